"""What is derived of the clusters' facts, made when a policy first asks and kept up to date from then on. Pure.

Numbers and times of measurement are sorted columns, everything else is sets by text; capacities are bit-sliced numbers;
what an expression said of a cluster is kept until that cluster changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from placement.columns import Column
from placement.facts import number, quantity
from placement.postings import Posting, moved, posting
from placement.slices import Slices, slices_of, with_value
from placement.types import Target

AGELESS: Final = float("inf")
"""When a fact was measured that comes from a label."""

Change = tuple[int, Target, Target]
"""Cluster number, the cluster before, the cluster after."""


@dataclass(slots=True)
class Verdicts:
    """What an expression said so far: bits of the clusters for which it is true, false, and asked; error → clusters."""

    true: int = 0
    false: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def asked(self) -> int:
        """Bits of the clusters that it was evaluated for."""
        found = self.true | self.false
        for bits in self.errors.values():
            found |= bits
        return found

    def without(self, bits: int) -> Verdicts:
        """Return the verdicts without some clusters."""
        errors = {text: left for text, found in self.errors.items() if (left := found & ~bits)}
        return Verdicts(self.true & ~bits, self.false & ~bits, errors)


@dataclass(slots=True, eq=False)
class Measures:
    """Columns, sets and verdicts of one index.

    Attributes:
        targets: by cluster number.
    """

    targets: Sequence[Target] = ()
    _numbers: dict[str, Column] = field(default_factory=dict)
    _times: dict[str, Column] = field(default_factory=dict)
    _texts: dict[str, dict[str, Posting]] = field(default_factory=dict)
    _capacities: dict[tuple[str, int], Slices] = field(default_factory=dict)
    _verdicts: dict[tuple[str, ...], Verdicts] = field(default_factory=dict)

    def numbers(self, fact: str) -> Column:
        """Return a fact's column of numbers; texts that are none are left out."""
        return self._column(self._numbers, fact, number_of)

    def times(self, fact: str) -> Column:
        """Return when a fact was measured, in seconds since 1970; ``AGELESS`` for one that comes from a label."""
        return self._column(self._times, fact, time_of)

    def texts(self, fact: str) -> dict[str, Posting]:
        """Return a fact's text → the clusters where it is that."""
        found = self._texts.get(fact)
        if found is None:
            numbers: dict[str, list[int]] = {}
            for place, target in enumerate(self.targets):
                value = target.facts.get(fact)
                if value is not None:
                    numbers.setdefault(value[0], []).append(place)
            found = {text: posting(some, len(self.targets)) for text, some in numbers.items()}
            self._texts[fact] = found
        return found

    def capacity(self, fact: str, unit: int) -> Slices:
        """Return a number fact in whole ``unit``s, rounded down; 0 where it is not known.

        Args:
            fact: name.
            unit: positive for what one unit holds, negative for how many units are in one: −1000 is thousandths.
        """
        found = self._capacities.get((fact, unit))
        if found is None:
            values = {place: units_of(target, fact, unit) for place, target in enumerate(self.targets)}
            found = self._capacities[fact, unit] = slices_of({place: one for place, one in values.items() if one})
        return found

    def verdicts(self, key: tuple[str, ...]) -> Verdicts:
        """Return what an expression said; whoever evaluates it adds to them."""
        return self._verdicts.setdefault(key, Verdicts())

    def with_changes(self, changes: Sequence[Change]) -> Measures:
        """Return the measures after some clusters changed; no cluster came or went."""
        targets = list(self.targets)
        bits = 0
        for place, _, after in changes:
            targets[place] = after
            bits |= 1 << place
        made = Measures(targets)
        made._numbers = {fact: _changed(one, fact, changes, number_of) for fact, one in self._numbers.items()}
        made._times = {fact: _changed(one, fact, changes, time_of) for fact, one in self._times.items()}
        made._texts = {fact: _moved(one, fact, changes, len(targets)) for fact, one in self._texts.items()}
        made._verdicts = {key: one.without(bits) for key, one in self._verdicts.items()}
        for (fact, unit), slices in self._capacities.items():
            for place, before, after in changes:
                new = units_of(after, fact, unit)
                if new != units_of(before, fact, unit):
                    slices = with_value(slices, place, new)
            made._capacities[fact, unit] = slices
        return made

    def _column(self, known: dict[str, Column], fact: str, read: Callable[[Target, str], float | None]) -> Column:
        found = known.get(fact)
        if found is None:
            values = ((read(target, fact), place) for place, target in enumerate(self.targets))
            found = known[fact] = Column((value, place) for value, place in values if value is not None)
        return found


def number_of(target: Target, fact: str) -> float | None:
    """Return a fact as a number; None where it is not known, or none."""
    value = target.facts.get(fact)
    return None if value is None else number(value[0])


def time_of(target: Target, fact: str) -> float | None:
    """Return when a fact was measured, in seconds since 1970; None where it is not known."""
    value = target.facts.get(fact)
    if value is None:
        return None
    return AGELESS if value[1] is None else value[1].timestamp()


def units_of(target: Target, fact: str, unit: int) -> int:
    """Return a fact in whole units, as ``Measures.capacity`` has it."""
    value = target.facts.get(fact)
    found = None if value is None else quantity(value[0])
    if found is None:
        return 0
    return int(found // unit if unit > 0 else found * -unit)


def _changed(
    column: Column, fact: str, changes: Sequence[Change], read: Callable[[Target, str], float | None]
) -> Column:
    moves = [(place, read(before, fact), read(after, fact)) for place, before, after in changes]
    moves = [move for move in moves if move[1] != move[2]]
    return column.with_changes(moves) if moves else column


def _moved(texts: dict[str, Posting], fact: str, changes: Sequence[Change], size: int) -> dict[str, Posting]:
    moves = []
    for place, before, after in changes:
        old, new = (one[0] if (one := target.facts.get(fact)) else None for target in (before, after))
        if old != new:
            moves.append((place, old, new))
    return moved(texts, moves, size) if moves else texts
