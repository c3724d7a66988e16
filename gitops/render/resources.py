"""Needs of a version and nodes of a placement → what its pods ask Kubernetes for. Pure."""

from __future__ import annotations

from typing import Any, Final

from gitops import kinds
from placement.facts import quantity

Object = dict[str, Any]

ACCELERATORS: Final = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "intel": "gpu.intel.com/i915"}
"""Accelerator → the resource that its makers' device plugin offers; a Jetson's is shared by all pods of its node."""


def resources(needs: kinds.Needs) -> Object:
    """Return a container's requests and limits; empty for none.

    What is asked of a device plugin is both: Kubernetes takes no other.
    """
    requests = _given({"memory": needs.memory, "cpu": needs.cpu})
    limits = {} if needs.limits is None else _given({"memory": needs.limits.memory, "cpu": needs.limits.cpu})
    device = None if needs.accelerator is None else ACCELERATORS.get(needs.accelerator.kind or "")
    if needs.accelerator is not None and device is not None:
        requests[device] = limits[device] = str(needs.accelerator.count)
    made = {"requests": requests, "limits": limits}
    return {name: part for name, part in made.items() if part}


def pod_parts(needs: kinds.Needs, nodes: kinds.NodesSpec | None) -> Object:
    """Return what a pod's spec says of nodes: architectures of the needs, labels of the placement; empty for any."""
    expressions = []
    if needs.arch:
        expressions.append({"key": "kubernetes.io/arch", "operator": "In", "values": sorted(needs.arch)})
    if nodes is not None:
        expressions += [
            {"key": key, "operator": "In", "values": [value]} for key, value in sorted(nodes.match_labels.items())
        ]
        expressions += [
            {"key": one.key, "operator": one.operator, **({"values": list(one.values)} if one.values else {})}
            for one in nodes.match_expressions
        ]
    if not expressions:
        return {}
    terms = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


def over_limit(needs: kinds.Needs, name: str) -> bool:
    """Tell whether a limit is below what is needed, which Kubernetes refuses."""
    asked, limit = getattr(needs, name), None if needs.limits is None else getattr(needs.limits, name)
    wanted, most = (None if text is None else quantity(text) for text in (asked, limit))
    return wanted is not None and most is not None and most < wanted


def _given(values: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}
