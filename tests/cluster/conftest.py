"""Fixtures of the clusters' own tests."""

from tests.cluster.fixtures import bed, k3s_shaped_site, kubernetes_site, namespace, three_sites

__all__ = ["bed", "k3s_shaped_site", "kubernetes_site", "namespace", "three_sites"]
