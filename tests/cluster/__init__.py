"""Real Kubernetes for tests: components built from source into one binary, started and stopped by the tests.

``python -m tests.cluster --help`` on the command line; tests/cluster/fixtures.py in tests.
"""
