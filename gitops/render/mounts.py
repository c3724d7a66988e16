"""A workload's objects → the same with the models that it mounts. Pure.

The agent keeps a folder for each model on the node, in which `current` leads to the version in service
(agent/platforms/kubernetes_files.py); a pod mounts that folder, read-only, and sees a switch at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent.wire.release import ModelUse

MODELS: Final = "/var/lib/edgeferry/models"
"""Where an agent keeps the folders on a node."""

Object = dict[str, Any]

_TEMPLATE: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
"""Kind → where its pods' template stands."""


def mounted(manifest: Object, uses: Sequence[ModelUse]) -> Object:
    """Return an object whose containers all mount the models with a ``mount``; others are returned as they are."""
    wanted = [use for use in uses if use.mount]
    way = _TEMPLATE.get(manifest.get("kind", ""))
    if not wanted or way is None:
        return manifest
    return _changed(manifest, (*way, "spec"), wanted)


def _changed(value: Object, way: Sequence[str], uses: Sequence[ModelUse]) -> Object:
    if way:
        inner = value.get(way[0])
        return {**value, way[0]: _changed(inner, way[1:], uses)} if isinstance(inner, dict) else value
    volumes = [
        {"name": _volume(use), "hostPath": {"path": f"{MODELS}/{use.name}", "type": "Directory"}} for use in uses
    ]
    mounts = [{"name": _volume(use), "mountPath": use.mount, "readOnly": True} for use in uses]
    changed = {**value, "volumes": [*(value.get("volumes") or ()), *volumes]}
    for part in ("initContainers", "containers"):
        if part in value:
            changed[part] = [
                {**one, "volumeMounts": [*(one.get("volumeMounts") or ()), *mounts]} for one in value[part] or ()
            ]
    return changed


def _volume(use: ModelUse) -> str:
    return f"model-{use.name}"
