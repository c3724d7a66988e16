"""What is cheap to know of a cluster: its version, and what its nodes say of themselves, folded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from agent.folding import fold
from agent.platforms.kubernetes_client import Api
from agent.platforms.kubernetes_errors import RightMissing
from agent.platforms.kubernetes_objects import Resource
from placement.facts import quantity

NODES: Final = Resource("v1", "Node", "nodes", False)

_CAPACITIES: Final = {"cpu": "cpu.capacity", "memory": "memory.capacity", "ephemeral-storage": "disk.capacity"}
_DEVICES: Final = {
    "nvidia.com/gpu": "nvidia", "amd.com/gpu": "amd", "gpu.intel.com/i915": "intel", "gpu.intel.com/xe": "intel",
}  # fmt: skip
"""What device plugins offer → the kind of accelerator."""

_PRODUCTS: Final = {"nvidia": "nvidia.com/gpu.product", "amd": "amd.com/gpu.product-name"}
_MEMORIES: Final = {"nvidia": ("nvidia.com/gpu.memory", "Mi"), "amd": ("amd.com/gpu.vram", "")}
_DRIVERS: Final = {"nvidia": "nvidia.com/cuda.driver-version.full", "amd": "amd.com/gpu.driver-version"}
_JETSON: Final = re.compile("jetson|tegra|orin|xavier", re.IGNORECASE)
_DISTRIBUTIONS: Final = ("k3s", "rke2", "k0s", "gke", "eks", "vmware")
_BY_LABEL: Final = {
    "kubernetes.azure.com/cluster": "aks", "node.openshift.io/os_id": "openshift", "microk8s.io/cluster": "microk8s",
    "cloud.google.com/gke-nodepool": "gke", "eks.amazonaws.com/nodegroup": "eks",
}  # fmt: skip


def cluster_facts(api: Api) -> dict[str, str]:
    """Return the facts of a cluster, of which several nodes' are folded.

    Where nodes may not be listed, or there are none, the API server's own platform stands for them.
    """
    version = api.request("GET", "/version", where="/version")
    text = str(version["gitVersion"])
    nodes: list[Mapping[str, Any]] = []
    try:
        nodes = [node for page in api.pages(NODES, "", "") for node in page["items"]]
    except RightMissing:
        pass
    found = fold([node_facts(node) for node in nodes])
    found["kubernetes.version"] = text
    found["kubernetes.distribution"] = distribution(text, nodes)
    if not found.get("nodes.arch"):
        system, _, architecture = str(version.get("platform", "")).partition("/")
        found |= {"nodes.arch": architecture, "arch": architecture, "os": system}
    return found


def node_facts(node: Mapping[str, Any]) -> dict[str, str]:
    """Return what one node says: allocatable resources, what runs it, and accelerators by device plugin and labels."""
    status = node.get("status") or {}
    info, labels = status.get("nodeInfo") or {}, (node.get("metadata") or {}).get("labels") or {}
    offered = status.get("allocatable") or status.get("capacity") or {}
    found = {"nodes.count": "1"}
    for key, name in (("architecture", "arch"), ("operatingSystem", "os"), ("kernelVersion", "kernel.version")):
        if info.get(key):
            found[name] = str(info[key])
    if "arch" in found:
        found["nodes.arch"] = found["arch"]
    runtime, _, version = str(info.get("containerRuntimeVersion", "")).partition("://")
    if re.fullmatch("[a-z0-9-]+", runtime) and version:
        found[f"runtime.{runtime}.version"] = version
    for key, name in _CAPACITIES.items():
        amount = quantity(str(offered.get(key, "")))
        if amount is not None:
            found[name] = _plain(amount)
    return found | _accelerators(offered, labels)


def _accelerators(offered: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    kinds: set[str] = set()
    total, largest = Decimal(0), Decimal(0)
    for resource, maker in _DEVICES.items():
        count = quantity(str(offered.get(resource, "0"))) or Decimal(0)
        if not count:
            continue
        product = labels.get(_PRODUCTS.get(maker, ""), "")
        machine = labels.get("nvidia.com/gpu.machine", "")
        kind = "jetson" if maker == "nvidia" and _JETSON.search(f"{product} {machine}") else maker
        kinds.add(kind)
        total += count
        found[f"accelerator.{kind}.count"] = _plain(count)
        if product:
            found[f"accelerator.{kind}.model"] = product.replace(",", " ")
        driver = labels.get(_DRIVERS.get(maker, ""), "")
        if driver:
            found[f"accelerator.{kind}.driver"] = driver
        label, unit = _MEMORIES.get(maker, ("", ""))
        memory = quantity(f"{labels.get(label, '')}{unit}")
        if memory is not None:
            largest = max(largest, memory)
            found[f"accelerator.{kind}.memory"] = _plain(memory)
    found |= {"accelerator.kind": ",".join(sorted(kinds)), "accelerator.count": _plain(total)}
    return found | ({"accelerator.memory": _plain(largest)} if largest else {})


def distribution(version: str, nodes: list[Mapping[str, Any]]) -> str:
    """Return what a cluster's version and its nodes' labels say of who made it; ``kubernetes`` for nothing special."""
    suffix = re.split("[-+]", version, maxsplit=1)[1:] or [""]
    for name in _DISTRIBUTIONS:
        if name in suffix[0]:
            return name
    for node in nodes:
        for label in (node.get("metadata") or {}).get("labels") or {}:
            if label in _BY_LABEL:
                return _BY_LABEL[label]
        if "talos" in str(((node.get("status") or {}).get("nodeInfo") or {}).get("osImage", "")).lower():
            return "talos"
    return "kubernetes"


def _plain(value: Decimal) -> str:
    return format(value.normalize(), "f") if value else "0"
