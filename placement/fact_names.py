"""The facts that every agent measures: how each is read, in which unit, and how several nodes become one. Pure.

A site's own facts have names of their own; they are read by their form, and travel as they are written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

Kind = Literal["number", "version", "list", "text"]
Fold = Literal["sum", "max", "min", "set", "same", "cluster"]

NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9_.]{0,61}[a-z0-9])?\Z")
"""Names of facts are label keys, so that a label can outrank each."""

MOST_VALUE: Final = 1024
MOST_NUMBER: Final = 1e18


@dataclass(frozen=True, slots=True)
class Definition:
    """One fact.

    Attributes:
        name: ``*`` stands for one part of it.
        kind: how its text is read.
        unit: of a number; empty for a plain one.
        fold: how the values of several nodes become the cluster's. ``same``: only where all agree; ``cluster``: it
            has one of its own.
        meaning: for people.
    """

    name: str
    kind: Kind
    unit: str
    fold: Fold
    meaning: str


DEFINITIONS: Final = (
    Definition("platform", "text", "", "cluster", "`kubernetes` or `host`"),
    Definition("arch", "text", "", "same", "architecture, as Kubernetes names it: `amd64`, `arm64`"),
    Definition("os", "text", "", "same", "operating system: `linux`"),
    Definition("kernel.version", "version", "", "min", "of the operating system's kernel"),
    Definition("kubernetes.version", "version", "", "cluster", "of the API server"),
    Definition("kubernetes.distribution", "text", "", "cluster", "`k3s`, `rke2`, `openshift`, …, else `kubernetes`"),
    Definition("nodes.count", "number", "", "sum", "nodes that are ready for pods"),
    Definition("nodes.arch", "list", "", "set", "architectures of the nodes"),
    Definition("cpu.capacity", "number", "cores", "sum", "processors that models may use"),
    Definition("memory.capacity", "number", "bytes", "sum", "main memory that models may use"),
    Definition("disk.capacity", "number", "bytes", "sum", "size of the disk that models are staged on"),
    Definition("disk.free", "number", "bytes", "sum", "free on it, in steps of one percent of it"),
    Definition("node.cpu.capacity", "number", "cores", "max", "processors of the node that has most"),
    Definition("node.memory.capacity", "number", "bytes", "max", "memory of the node that has most"),
    Definition("node.disk.capacity", "number", "bytes", "max", "disk of the node that has most"),
    Definition("accelerator.kind", "list", "", "set", "`nvidia`, `amd`, `intel`, `jetson`; empty for none"),
    Definition("accelerator.count", "number", "", "sum", "accelerators of all kinds"),
    Definition("accelerator.memory", "number", "bytes", "max", "memory of the accelerator that has most"),
    Definition("accelerator.*.count", "number", "", "sum", "accelerators of one kind"),
    Definition("accelerator.*.memory", "number", "bytes", "max", "memory of the one that has most, of one kind"),
    Definition("accelerator.*.model", "list", "", "set", "what the makers call them"),
    Definition("accelerator.*.driver", "version", "", "min", "version of their driver"),
    Definition("runtime.*.version", "version", "", "min", "of a container engine or inference server found there"),
)
_PLAIN: Final[Mapping[str, Definition]] = {one.name: one for one in DEFINITIONS if "*" not in one.name}
_FAMILIES: Final = tuple(
    (re.compile(re.escape(one.name).replace(r"\*", "[a-z0-9](?:[-a-z0-9_]*[a-z0-9])?") + r"\Z"), one)
    for one in DEFINITIONS
    if "*" in one.name
)


@lru_cache(maxsize=4096)
def definition(name: str) -> Definition | None:
    """Return what a fact's name means; None for a site's own."""
    return _PLAIN.get(name) or next((one for pattern, one in _FAMILIES if pattern.match(name)), None)


def kind_of(name: str) -> Kind | None:
    """Return how a fact is read; None for a site's own, which is read by its form."""
    found = definition(name)
    return None if found is None else found.kind
