"""The project's own images, built reproducibly without a daemon: ``python -m images --help``."""
