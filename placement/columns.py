"""A fact that is a number, as a column sorted by value: a comparison is a bisection. Pure.

At values some way apart the column also holds the set of all clusters below, so that a comparison costs one such set
and the few clusters between it and the value asked for, whatever share of the fleet it selects.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final

from placement.postings import bits_of

_STEP: Final = 256
"""So many clusters lie between two kept sets, at least; in a large fleet more, so that the sets stay few."""
_SETS: Final = 64


class Column:
    """Cluster numbers sorted by a value; a change makes a new column.

    Args:
        pairs: (value, cluster number) in any order, numbers unique.
    """

    __slots__ = ("_changes", "_marks", "_numbers", "_sets", "_values", "known")

    def __init__(self, pairs: Iterable[tuple[float, int]]) -> None:
        ordered = sorted(pairs)
        self._values = [value for value, _ in ordered]
        self._numbers = [number for _, number in ordered]
        self._changes = 0
        self._mark()

    known: int
    """Bits of the clusters that have a value."""

    def below(self, value: float, *, inclusive: bool = False) -> int:
        """Return the bits of the clusters whose value is less than ``value``, or at most that."""
        end = (bisect_right if inclusive else bisect_left)(self._values, value)
        after = bisect_right(self._marks, value)  # marks before it lie at or below the value
        low = bisect_left(self._values, self._marks[after - 1]) if after else 0
        high = bisect_left(self._values, self._marks[after]) if after < len(self._marks) else len(self._values)
        if end - low <= high - end:
            return (self._sets[after - 1] if after else 0) | bits_of(self._numbers[low:end])
        above = self._sets[after] if after < len(self._sets) else self.known
        return above & ~bits_of(self._numbers[end:high])

    def equal(self, value: float) -> int:
        """Return the bits of the clusters that have exactly this value."""
        return self.below(value, inclusive=True) & ~self.below(value)

    def with_changes(self, changes: Iterable[tuple[int, float | None, float | None]]) -> Column:
        """Return the column after some clusters' values changed.

        Args:
            changes: cluster number, the value before, the value after; None for none.
        """
        made: Column = object.__new__(Column)
        made._values, made._numbers = self._values.copy(), self._numbers.copy()
        made._marks, made._sets, made.known = self._marks, self._sets.copy(), self.known
        made._changes = self._changes
        for number, old, new in changes:
            made._move(number, old, new)
        if made._changes * 4 > len(made._values) + _STEP:
            made._changes = 0
            made._mark()
        return made

    def _move(self, number: int, old: float | None, new: float | None) -> None:
        bit = 1 << number
        self._changes += 1
        if old is not None:
            place = self._numbers.index(number, bisect_left(self._values, old), bisect_right(self._values, old))
            del self._values[place], self._numbers[place]
        if new is not None:
            place = bisect_right(self._values, new)
            self._values.insert(place, new)
            self._numbers.insert(place, number)
        if (old is None) != (new is None):
            self.known ^= bit
        # A set holds the cluster where its mark lies above the value: those between the two values change.
        first = len(self._marks) if old is None else bisect_right(self._marks, old)
        last = len(self._marks) if new is None else bisect_right(self._marks, new)
        for place in range(min(first, last), max(first, last)):
            self._sets[place] ^= bit

    def _mark(self) -> None:
        """Choose the marks and their sets anew."""
        step = max(_STEP, len(self._values) // _SETS)
        marks: set[float] = set()
        place = 0
        while place < len(self._values):
            value = self._values[place]
            end = bisect_right(self._values, value)
            if place:
                marks.add(value)
            if end - place > step and end < len(self._values):
                marks.add(self._values[end])
            place = max(end, place + step)
        self._marks = sorted(marks)
        self._sets: list[int] = []
        below, start = 0, 0
        for mark in self._marks:
            end = bisect_left(self._values, mark)
            below |= bits_of(self._numbers[start:end])
            self._sets.append(below)
            start = end
        self.known = below | bits_of(self._numbers[start:])
