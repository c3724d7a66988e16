"""One module per subject: `python -m bench.decide`. Each prints one JSON line per figure."""
