"""Whole numbers of all clusters at once: one set of clusters for every binary digit. Pure.

Adding a need to a thousand clusters, or asking which have room for it, costs one operation per digit and not one per
cluster. Digit n of a cluster's number is its bit in the set at place n.

Source: bit-sliced indexes (O'Neil and Quass 1997, Improved query performance with variant indexes).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest

from placement.postings import bits_of

Slices = tuple[int, ...]


def slices_of(values: Mapping[int, int]) -> Slices:
    """Return the slices of cluster number → value; the others have 0."""
    digits = max(map(int.bit_length, values.values()), default=0)
    return tuple(bits_of([number for number, value in values.items() if value >> digit & 1]) for digit in range(digits))


def value_of(slices: Slices, number: int) -> int:
    """Return one cluster's value."""
    return sum((found >> number & 1) << digit for digit, found in enumerate(slices))


def with_value(slices: Slices, number: int, value: int) -> Slices:
    """Return the slices after one cluster's value changed."""
    bit = 1 << number
    digits = max(len(slices), value.bit_length())
    padded = (*slices, *(0 for _ in range(digits - len(slices))))
    return tuple(found | bit if value >> digit & 1 else found & ~bit for digit, found in enumerate(padded))


def plus(slices: Slices, amount: int, where: int) -> Slices:
    """Return the slices after ``amount`` was added for the clusters in some bits."""
    made = list(slices)
    carry, digit = 0, 0
    while carry or amount >> digit:
        if digit == len(made):
            made.append(0)
        before, adding = made[digit], where if amount >> digit & 1 else 0
        made[digit] = before ^ adding ^ carry
        carry = (before & adding) | (carry & (before ^ adding))
        digit += 1
    return tuple(made)


def minus(slices: Slices, amount: int, where: int) -> Slices:
    """Return the slices after ``amount``, which they have, was taken from the clusters in some bits."""
    made = list(slices)
    borrow, digit = 0, 0
    while (borrow or amount >> digit) and digit < len(made):
        before, taking = made[digit], where if amount >> digit & 1 else 0
        made[digit] = before ^ taking ^ borrow
        borrow = (~before & (taking | borrow)) | (taking & borrow)
        digit += 1
    return tuple(made)


def not_less(left: Slices, right: Slices, where: int) -> int:
    """Return the bits among ``where`` of the clusters whose value in ``left`` is not less than that in ``right``."""
    less = 0
    for one, other in zip_longest(left, right, fillvalue=0):
        less = (other & ~one) | (less & ~(one ^ other))
    return where & ~less
