"""Fixtures of the platforms' tests."""

from tests.cluster.fixtures import api_server, namespace

__all__ = ["api_server", "namespace"]
