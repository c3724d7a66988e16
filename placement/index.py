"""The fleet as bits: for every label value one integer whose bit n says that cluster n has it. Pure.

Clusters are numbered in the order of their names, so that the lowest bits of a set are its first names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import compress
from typing import Final

from placement.types import Target

ARCH: Final = "arch"
PLATFORM: Final = "platform"
_OUTRANKING: Final = {ARCH: "kubernetes.io/arch", PLATFORM: "edgeferry.dev/platform"}
_FLAGS: Final = bytes.maketrans(b"01", b"\0\1")


@dataclass(frozen=True, slots=True)
class FleetIndex:
    """All clusters of a fleet at one moment; a change makes a new index that shares what stayed.

    Attributes:
        ordered: names, sorted; the cluster at place n has number n.
        numbers: name → number.
        targets: name → cluster.
        everything: bits of all clusters.
        values: label key → value → bits.
        keys: label key → bits of the clusters that have it.
        known: ``arch`` and ``platform`` → value → bits, from label or fact.
    """

    ordered: tuple[str, ...] = ()
    numbers: Mapping[str, int] = field(default_factory=dict)
    targets: Mapping[str, Target] = field(default_factory=dict)
    everything: int = 0
    values: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    keys: Mapping[str, int] = field(default_factory=dict)
    known: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def build(cls, targets: Iterable[Target]) -> FleetIndex:
        """Index clusters; their names are unique, their order does not matter."""
        by_name = {target.name: target for target in targets}
        ordered = tuple(sorted(by_name))
        numbers = {name: number for number, name in enumerate(ordered)}
        labels: dict[str, dict[str, list[int]]] = {}
        known: dict[str, dict[str, list[int]]] = {ARCH: {}, PLATFORM: {}}
        for number, name in enumerate(ordered):
            for key, value in by_name[name].labels.items():
                labels.setdefault(key, {}).setdefault(value, []).append(number)
            for fact, values in known.items():
                value = known_value(by_name[name], fact)
                if value:
                    values.setdefault(value, []).append(number)
        bits = {key: {value: _bits(found) for value, found in values.items()} for key, values in labels.items()}
        return cls(
            ordered=ordered,
            numbers=numbers,
            targets=by_name,
            everything=(1 << len(ordered)) - 1,
            values=bits,
            keys={key: _union(values) for key, values in bits.items()},
            known={fact: {value: _bits(found) for value, found in values.items()} for fact, values in known.items()},
        )

    def with_changes(self, changed: Iterable[Target], removed: Collection[str] = ()) -> FleetIndex:
        """Return the index after clusters changed, came, or went.

        Changed labels and facts cost time by the number of changed clusters; a cluster that comes or goes costs a
        new numbering.
        """
        news = {target.name: target for target in changed}
        gone = {name for name in removed if name in self.numbers and name not in news}
        targets = {name: target for name, target in self.targets.items() if name not in gone} | news
        if gone or news.keys() - self.numbers.keys():
            return FleetIndex.build(targets.values())
        values = {key: dict(found) for key, found in self.values.items()}
        known = {fact: dict(found) for fact, found in self.known.items()}
        for name, target in news.items():
            bit, old = 1 << self.numbers[name], self.targets[name]
            for key in old.labels.keys() | target.labels.keys():
                _move(values.setdefault(key, {}), old.labels.get(key), target.labels.get(key), bit)
            for fact, found in known.items():
                _move(found, known_value(old, fact) or None, known_value(target, fact) or None, bit)
        values = {key: found for key, found in values.items() if found}
        return FleetIndex(
            ordered=self.ordered,
            numbers=self.numbers,
            targets=targets,
            everything=self.everything,
            values=values,
            keys={key: _union(found) for key, found in values.items()},
            known=known,
        )

    def names(self, bits: int) -> list[str]:
        """Return the names of the clusters in ``bits``, sorted."""
        return list(compress(self.ordered, _flags(bits)))

    def first(self, bits: int, count: int) -> int:
        """Return the ``count`` clusters of ``bits`` whose names come first."""
        if count <= 0:
            return 0
        if bits.bit_count() <= count:
            return bits
        places = compress(range(len(self.ordered)), _flags(bits))
        last = next(place for n, place in enumerate(places, 1) if n == count)
        return bits & ((1 << (last + 1)) - 1)

    def bits(self, names: Iterable[str]) -> int:
        """Return the bits of names; unknown ones are left out."""
        return _bits([self.numbers[name] for name in names if name in self.numbers])


def known_value(target: Target, fact: str) -> str:
    """Return a cluster's ``arch`` or ``platform``: the label from Git outranks the fact; empty for not known."""
    label = target.labels.get(_OUTRANKING[fact], "")
    if label:
        return label
    measured = target.facts.get(fact)
    return "" if measured is None else measured[0]


def _bits(numbers: Collection[int]) -> int:
    if not numbers:
        return 0
    flags = bytearray((max(numbers) >> 3) + 1)
    for number in numbers:
        flags[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(flags, "little")


def _flags(bits: int) -> bytes:
    return format(bits, "b")[::-1].encode().translate(_FLAGS)


def _union(values: Mapping[str, int]) -> int:
    found = 0
    for bits in values.values():
        found |= bits
    return found


def _move(values: dict[str, int], old: str | None, new: str | None, bit: int) -> None:
    if old == new:
        return
    if old is not None:
        values[old] &= ~bit
        if not values[old]:
            del values[old]
    if new is not None:
        values[new] = values.get(new, 0) | bit
