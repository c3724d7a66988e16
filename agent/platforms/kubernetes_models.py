"""Where a workload on a cluster finds its models: the models file of its namespace. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from agent.actions import ModelPoint
from agent.platforms.host_files import variables
from agent.platforms.kubernetes_mirror import MODELS_FILE
from agent.platforms.kubernetes_objects import Json, short_digest
from agent.wire.release import Entry

ANNOUNCED: Final = "announce"
"""Kind of the inventory's record of a namespace's models file."""


def models_file(namespace: str, points: Sequence[ModelPoint]) -> Json:
    """Return the ConfigMap with ``<NAME>_URL``, ``<NAME>_PATH`` and ``<NAME>_VERSION`` of every model."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": MODELS_FILE, "namespace": namespace},
        "data": variables(points),
    }


def read_models_file(data: Mapping[str, str]) -> tuple[ModelPoint, ...]:
    """Return the models that a models file names, in order of their names."""
    names = sorted({name.removesuffix("_VERSION") for name in data if name.endswith("_VERSION")})
    return tuple(
        ModelPoint(
            name.lower().replace("_", "-"),
            data[f"{name}_VERSION"],
            data.get(f"{name}_URL", ""),
            data.get(f"{name}_PATH", ""),
        )
        for name in names
    )


def models_digest(entry: Entry, points: Sequence[ModelPoint]) -> str:
    """Return what changes when a model changes that the workload is restarted for; empty where there is none."""
    restarts = {use.name for use in entry.models if use.on_change == "restart"}
    found = sorted((one.name, one.version, one.url, one.path) for one in points if one.name in restarts)
    return short_digest(found) if found else ""
