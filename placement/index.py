"""The fleet as sets: for every label value the clusters that have it. Pure.

Clusters are numbered in the order of their names, so that the lowest bits of a set are its first names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import compress, islice
from typing import Final

from placement.measures import Measures
from placement.postings import Posting, as_bits, bits_of, flags, moved, posting
from placement.types import Taint, Target

ARCH: Final = "arch"
PLATFORM: Final = "platform"
ARCH_LABEL: Final = "kubernetes.io/arch"
PLATFORM_LABEL: Final = "edgeferry.dev/platform"
_OUTRANKING: Final = {ARCH: ARCH_LABEL, PLATFORM: PLATFORM_LABEL}
_REBUILD: Final = 8
"""Where more than one cluster in so many changed, building is faster than changing."""

Values = Mapping[str, Mapping[str, Posting]]
_Moves = dict[str, list[tuple[int, str | None, str | None]]]
"""Key → cluster number, the value before, the value after; None for none."""


@dataclass(frozen=True, slots=True, eq=False)
class FleetIndex:
    """All clusters of a fleet at one moment; a change makes a new index that shares what stayed.

    Equal only to itself: comparing two fleets by content is nothing to do by accident.

    Attributes:
        ordered: names, sorted; the cluster at place n has number n.
        numbers: name → number.
        targets: name → cluster.
        everything: bits of all clusters.
        values: label key → value → the clusters that have it.
        keys: label key → bits of the clusters that have it.
        facts: ``arch`` and ``platform`` → value → the clusters that have it, from label or fact.
        taints: taint → the clusters that have it.
        measures: what is derived of all other facts, as policies ask for it.
    """

    ordered: tuple[str, ...] = ()
    numbers: Mapping[str, int] = field(default_factory=dict)
    targets: Mapping[str, Target] = field(default_factory=dict)
    everything: int = 0
    values: Values = field(default_factory=dict)
    keys: Mapping[str, int] = field(default_factory=dict)
    facts: Values = field(default_factory=dict)
    taints: Mapping[Taint, Posting] = field(default_factory=dict)
    measures: Measures = field(default_factory=Measures, repr=False)

    @classmethod
    def build(cls, targets: Iterable[Target]) -> FleetIndex:
        """Index clusters; their names are unique, their order does not matter."""
        by_name = {target.name: target for target in targets}
        ordered = tuple(sorted(by_name))
        labels: dict[str, dict[str, list[int]]] = {}
        facts: dict[str, dict[str, list[int]]] = {fact: {} for fact in _OUTRANKING}
        taints: dict[Taint, list[int]] = {}
        for number, name in enumerate(ordered):
            for key, value in by_name[name].labels.items():
                labels.setdefault(key, {}).setdefault(value, []).append(number)
            for fact, values in facts.items():
                value = known_value(by_name[name], fact)
                if value:
                    values.setdefault(value, []).append(number)
            for taint in dict.fromkeys(by_name[name].taints):
                taints.setdefault(taint, []).append(number)
        return cls(
            ordered=ordered,
            numbers={name: number for number, name in enumerate(ordered)},
            targets=by_name,
            everything=(1 << len(ordered)) - 1,
            values=_postings(labels, len(ordered)),
            keys={key: bits_of([n for some in values.values() for n in some]) for key, values in labels.items()},
            facts=_postings(facts, len(ordered)),
            taints={taint: posting(found, len(ordered)) for taint, found in taints.items()},
            measures=Measures(tuple(by_name[name] for name in ordered)),
        )

    def with_changes(self, changed: Iterable[Target], removed: Collection[str] = ()) -> FleetIndex:
        """Return the index after clusters changed, came, or went.

        Changed labels and facts cost time by the number of changed clusters, beside a copy of the table of clusters; a
        cluster that comes or goes costs a new numbering, as a build does.

        Args:
            changed: clusters that are new or have other labels or facts; they win over ``removed``.
            removed: names; unknown ones are passed over.
        """
        news = {target.name: target for target in changed}
        gone = {name for name in removed if name in self.numbers and name not in news}
        targets = dict(self.targets)
        targets.update(news)
        for name in gone:
            del targets[name]
        relabelled = sum(name in self.targets and self.targets[name].labels != one.labels for name, one in news.items())
        if gone or len(targets) > len(self.targets) or relabelled * _REBUILD > len(targets):
            return FleetIndex.build(targets.values())
        many = len(news) * _REBUILD > len(targets)
        labels: _Moves = {}
        facts: _Moves = {}
        taints: list[tuple[int, Taint | None, Taint | None]] = []
        changes: list[tuple[int, Target, Target]] = []
        for name, target in news.items():
            before = self.targets[name]
            changes.append((self.numbers[name], before, target))
            old, new = set(before.taints), set(target.taints)
            taints += [(self.numbers[name], taint, None) for taint in old - new]
            taints += [(self.numbers[name], None, taint) for taint in new - old]
            for key in before.labels.keys() | target.labels.keys():
                _note(labels, key, self.numbers[name], before.labels.get(key), target.labels.get(key))
            for fact in _OUTRANKING:
                _note(
                    facts,
                    fact,
                    self.numbers[name],
                    known_value(before, fact) or None,
                    known_value(target, fact) or None,
                )
        return FleetIndex(
            ordered=self.ordered,
            numbers=self.numbers,
            targets=targets,
            everything=self.everything,
            values=_moved(self.values, labels, len(targets)),
            keys=_moved_keys(self.keys, labels),
            facts=_moved(self.facts, facts, len(targets)),
            taints=moved(self.taints, taints, len(targets)),
            measures=Measures(tuple(map(targets.__getitem__, self.ordered)))
            if many
            else self.measures.with_changes(changes),
        )

    def having(self, key: str, value: str) -> int:
        """Return the bits of the clusters that have one label value."""
        return as_bits(self.values.get(key, {}).get(value, 0))

    def known(self, fact: str) -> Iterator[tuple[str, int]]:
        """Yield every value of ``arch`` or ``platform``, sorted, with the bits of the clusters that have it."""
        for value, found in sorted(self.facts.get(fact, {}).items()):
            yield value, as_bits(found)

    def names(self, found: int) -> list[str]:
        """Return the names of the clusters in some bits, sorted."""
        return list(compress(self.ordered, flags(found)))

    def first(self, found: int, count: int) -> int:
        """Return the ``count`` clusters of some bits whose names come first."""
        if count <= 0:
            return 0
        if found.bit_count() <= count:
            return found
        last = next(islice(compress(range(len(self.ordered)), flags(found)), count - 1, None))
        return found & ((1 << (last + 1)) - 1)

    def bits(self, names: Iterable[str]) -> int:
        """Return the bits of names; unknown ones are left out."""
        return bits_of([self.numbers[name] for name in names if name in self.numbers])


def known_value(target: Target, fact: str) -> str:
    """Return a cluster's ``arch`` or ``platform``: the label from Git outranks the fact; empty for not known."""
    label = target.labels.get(_OUTRANKING[fact], "")
    if label:
        return label
    measured = target.facts.get(fact)
    return "" if measured is None else measured[0]


def _postings(table: Mapping[str, Mapping[str, list[int]]], size: int) -> Values:
    return {
        key: {value: posting(found, size) for value, found in values.items()} for key, values in table.items() if values
    }


def _note(moves: _Moves, key: str, number: int, old: str | None, new: str | None) -> None:
    if old != new:
        moves.setdefault(key, []).append((number, old, new))


def _moved(table: Values, moves: _Moves, size: int) -> Values:
    after = {**table, **{key: moved(table.get(key, {}), some, size) for key, some in moves.items()}}
    return {key: values for key, values in after.items() if values}


def _moved_keys(keys: Mapping[str, int], moves: _Moves) -> Mapping[str, int]:
    after = dict(keys)
    for key, some in moves.items():
        for number, old, new in some:
            if new is None:
                after[key] &= ~(1 << number)
            elif old is None:
                after[key] = after.get(key, 0) | 1 << number
    return {key: found for key, found in after.items() if found}
