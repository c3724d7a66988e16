"""Decision → entries and the files of one overlay per cluster. Pure."""
