"""What is promised of every cluster's capacity, so that nothing is promised twice. Pure, but for a room that fills."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from placement.index import FleetIndex
from placement.slices import Slices, minus, not_less, plus, value_of
from placement.types import Needs

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that is used up.

    Attributes:
        fact: its capacity.
        unit: of the amounts, as ``Measures.capacity`` has it.
        node: the fact that says what the largest node has; empty for none.
    """

    fact: str
    unit: int
    node: str = ""


MEMORY: Final = Resource("memory.capacity", _MIB, "node.memory.capacity")
DISK: Final = Resource("disk.capacity", _MIB, "node.disk.capacity")
CPU: Final = Resource("cpu.capacity", -1000, "node.cpu.capacity")
ACCELERATORS: Final = Resource("accelerator.count", 1)
VERSIONS_KEPT: Final = 2
"""On disk: the one that runs, and the one before or the next."""


@lru_cache(maxsize=4096)
def amounts(needs: Needs) -> tuple[tuple[str, Resource, int], ...]:
    """Return what needs use up: word for people, resource, amount in its unit, rounded up."""
    found = []
    if needs.accelerator is not None:
        found.append(("accelerator", ACCELERATORS, needs.accelerator.count))
        if needs.accelerator.kind:
            of_kind = Resource(f"accelerator.{needs.accelerator.kind}.count", 1)
            found.append(("accelerator", of_kind, needs.accelerator.count))
    if needs.memory_bytes:
        found.append(("memory", MEMORY, -(-needs.memory_bytes // _MIB)))
    if needs.disk_bytes:
        found.append(("disk", DISK, -(-needs.disk_bytes * VERSIONS_KEPT // _MIB)))
    if needs.cpu_milli:
        found.append(("cpu", CPU, needs.cpu_milli))
    return tuple(found)


@dataclass(slots=True)
class Room:
    """What is promised so far, by resource.

    Attributes:
        promised: fact of the capacity → amount of every cluster.
    """

    promised: dict[str, Slices] = field(default_factory=dict)

    def copy(self) -> Room:
        """Return a room that fills by itself."""
        return Room(dict(self.promised))

    def take(self, needs: Needs, where: int) -> None:
        """Promise what ``needs`` use up on the clusters in some bits."""
        if where:
            for _, resource, amount in amounts(needs):
                self.promised[resource.fact] = plus(self.promised.get(resource.fact, ()), amount, where)

    def give_back(self, needs: Needs, where: int) -> None:
        """Take a promise back; it was made before."""
        if where:
            for _, resource, amount in amounts(needs):
                self.promised[resource.fact] = minus(self.promised.get(resource.fact, ()), amount, where)

    def has(self, resource: Resource, amount: int, index: FleetIndex, where: int) -> int:
        """Return the bits among ``where`` of the clusters that can promise ``amount`` more."""
        promised = self.promised.get(resource.fact, ())
        if not any(promised):
            least = amount * resource.unit if resource.unit > 0 else amount / -resource.unit
            return where & ~index.measures.numbers(resource.fact).below(least)
        wanted = plus(promised, amount, where)
        return not_less(index.measures.capacity(resource.fact, resource.unit), wanted, where)

    def left(self, resource: Resource, capacity: int, number: int) -> int:
        """Return what one cluster has left of a capacity; 0 where more is promised than there is."""
        return max(0, capacity - value_of(self.promised.get(resource.fact, ()), number))
