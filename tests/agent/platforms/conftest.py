"""Fixtures of the platforms' tests; the host's stand in host_fixtures.py."""

from tests.cluster.fixtures import api_server, namespace

__all__ = ["api_server", "namespace"]
