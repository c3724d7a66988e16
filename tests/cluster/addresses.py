"""Who has which address. All of it inside namespaces of a test bed's own: two test beds use the same."""

from __future__ import annotations

from typing import Final

HUB: Final = "10.200.0.1"
REGISTRY: Final = f"{HUB}:5000"
API_PORT: Final = 6443
MOST_SITES: Final = 30
_FIRST_PODS: Final = 64


def site(number: int) -> str:
    """Return the address of a site on its link to the hub."""
    return f"10.200.0.{10 + number}"


def lan(number: int) -> str:
    """Return the network of a site's nodes."""
    return f"10.201.{number}.0/24"


def node(number: int, index: int) -> str:
    """Return the address of a site's node; the first node, index 1, is the site itself."""
    return f"10.201.{number}.{index}"


def pods(number: int) -> str:
    """Return the network of all pods of a site."""
    return f"10.{_FIRST_PODS + number}.0.0/16"


def node_pods(number: int, index: int) -> str:
    """Return the network of the pods of one node."""
    return f"10.{_FIRST_PODS + number}.{index}.0/24"


def services(number: int) -> str:
    """Return the network of a site's Services; its first address is the API server's."""
    return f"10.96.{number}.0/24"


def first(network: str) -> str:
    """Return the first address of a network that ends in ``.0/N``."""
    return network.partition("/")[0].rsplit(".", 1)[0] + ".1"
