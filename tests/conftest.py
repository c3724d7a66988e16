"""Fixtures of all tests: the clusters, of which a process has one set whoever asks for them."""

pytest_plugins = ["tests.cluster.fixtures"]
