"""The program for one edge cluster: fetch, verify, stage, switch, report."""

VERSION = "0.1.0"
"""Of the whole distribution: asking for it by ``importlib.metadata`` costs an agent three megabytes."""
