"""Fixtures of the clusters' own tests."""

from tests.cluster.fixtures import bed, namespace, one_site, site, three_sites

__all__ = ["bed", "namespace", "one_site", "site", "three_sites"]
