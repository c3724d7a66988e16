"""A set of cluster numbers: an integer used as bits where many have it, a sorted tuple where few do. Pure.

A label such as the site's name has nearly as many values as there are clusters. As bits, each of its values would cost
an eighth of a byte per cluster of the whole fleet, and all of them together the square of the fleet; as tuples they
cost eight bytes per cluster that has one.

Source: the array and bitmap containers of Roaring bitmaps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import compress, count, islice
from typing import Final, TypeVar

Posting = int | tuple[int, ...]
V = TypeVar("V", bound=Hashable)

_DENSE: Final = 64
"""One cluster in so many is where bits become smaller than a tuple of 8-byte references."""
_FLAGS: Final = bytes.maketrans(b"01", b"\0\1")


def posting(numbers: Sequence[int], size: int) -> Posting:
    """Return sorted ``numbers`` of a fleet of ``size`` clusters in their smaller form."""
    return bits_of(numbers) if len(numbers) * _DENSE > size else tuple(numbers)


def as_bits(found: Posting) -> int:
    """Return a posting as bits."""
    return found if isinstance(found, int) else bits_of(found)


def with_number(found: Posting, number: int, size: int) -> Posting:
    """Return the posting with one more number, which it does not have yet."""
    if isinstance(found, int):
        return found | 1 << number
    place = bisect_left(found, number)
    return posting((*found[:place], number, *found[place:]), size)


def without_number(found: Posting, number: int, size: int) -> Posting:
    """Return the posting without one number that it has."""
    if isinstance(found, int):
        left = found & ~(1 << number)
        # Half of the border, so that one cluster that comes and goes does not convert it each time.
        return left if left.bit_count() * _DENSE * 2 > size else tuple(compress(range(size), flags(left)))
    place = bisect_left(found, number)
    return found[:place] + found[place + 1 :]


def moved(table: Mapping[V, Posting], moves: Iterable[tuple[int, V | None, V | None]], size: int) -> dict[V, Posting]:
    """Return value → posting after some clusters' values changed.

    Args:
        table: before.
        moves: cluster number, the value that it loses, the value that it gets; None for none.
        size: of the fleet.
    """
    after = dict(table)
    for number, old, new in moves:
        if old is not None:
            after[old] = without_number(after[old], number, size)
            if not after[old]:
                del after[old]
        if new is not None:
            after[new] = with_number(after.get(new, ()), number, size)
    return after


def bits_of(numbers: Collection[int]) -> int:
    """Return numbers as bits."""
    if not numbers:
        return 0
    octets = bytearray((max(numbers) >> 3) + 1)
    for number in numbers:
        octets[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(octets, "little")


def numbers_of(found: int, most: int | None = None) -> Iterator[int]:
    """Yield the numbers of some bits, ascending; the first ``most``."""
    return islice(compress(count(), flags(found)), most)


def flags(found: int) -> bytes:
    """Return one byte per bit, 1 where it is set, lowest bit first: what ``itertools.compress`` selects by."""
    return format(found, "b")[::-1].encode().translate(_FLAGS)
