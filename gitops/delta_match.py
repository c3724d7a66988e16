"""What of an old model file helps to make a new one: instructions for a delta. Pure but for the time they take.

Tensors are matched by name, else by kind and length in their order; what stands between them, and files of no known
format, by bsdiff's matching.

Source: C. Percival, Naive differences of executable code (bsdiff).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import bsdiff4.core
import numpy as np
import zstandard

from agent.delta import BYTES, COPY, DATA, FLOAT16, FLOAT32, WIDTHS, Instruction
from gitops.delta_records import planes
from gitops.tensors import Span, tensor_spans

MOST_BSDIFF_BYTES: Final = 50 << 20
"""bsdiff takes 17 times the old file of memory."""

_GAP_BYTES: Final = 8 << 20
_SAMPLE_BYTES: Final = 64 << 10


def match_tensors(old: memoryview, new: memoryview) -> list[Instruction] | None:
    """Return instructions over the tensors of two files of one format; None where they have none in common."""
    pairs = _pairs(tensor_spans(old), tensor_spans(new))
    if not pairs:
        return None
    found: list[Instruction] = []
    old_end = new_end = 0
    for before, after in pairs:
        found += _between(old, new, (old_end, before.place), (new_end, after.place))
        found += _numbers(old, new, before, after)
        old_end, new_end = before.place + before.length, after.place + after.length
    found += _between(old, new, (old_end, len(old)), (new_end, len(new)))
    return merged(found)


def match_bytes(old: memoryview, new: memoryview, place: int = 0) -> list[Instruction]:
    """Return instructions by bsdiff's matching.

    Args:
        old: the old bytes, at most ``MOST_BSDIFF_BYTES``.
        new: the new ones.
        place: of ``old`` in the old file.
    """
    control, difference, _ = bsdiff4.core.diff(bytes(old), bytes(new))
    numbers = np.frombuffer(control, "<u8")  # sign and magnitude
    signed = np.where(numbers >> 63, -1, 1) * (numbers & ((1 << 63) - 1)).astype(np.int64)
    found: list[Instruction] = []
    at = used = 0
    for added, literal, step in signed.reshape(-1, 3).tolist():
        if added:
            same = not any(difference[used : used + added])
            found.append(Instruction(COPY if same else BYTES, added, place + at))
        if literal:
            found.append(Instruction(DATA, literal))
        used += added
        at += added + step
    return merged(found)


def match_same_size(old: memoryview, new: memoryview) -> list[Instruction] | None:
    """Return one difference over two files of equal size; None for another size, or where it would not help."""
    if len(old) != len(new) or not len(new):
        return None
    plain = sum(map(_packed_bytes, _samples(new)))
    best: tuple[float, int] = (0.95 * plain, DATA)
    for kind in (BYTES, FLOAT16, FLOAT32):
        number = np.dtype(f"<u{WIDTHS[kind]}")
        cost = 0
        for one, other in zip(_samples(old), _samples(new), strict=True):
            whole = len(one) // 8 * 8
            values = planes(np.frombuffer(one[:whole], number), np.frombuffer(other[:whole], number), kind)
            cost += _packed_bytes(values)
        best = min(best, (cost, kind))
    kind = best[1]
    if kind == DATA:
        return None
    whole = len(new) // WIDTHS[kind] * WIDTHS[kind]
    rest = [Instruction(DATA, len(new) - whole)] if whole < len(new) else []
    return [Instruction(kind, whole, 0), *rest]


def merged(instructions: Iterable[Instruction]) -> list[Instruction]:
    """Return the same instructions with neighbours of one kind put together."""
    found: list[Instruction] = []
    for one in instructions:
        last = found[-1] if found else None
        follows = last is not None and last.kind == one.kind and last.kind in (COPY, DATA)
        if last is not None and follows and (one.kind == DATA or last.place + last.length == one.place):
            found[-1] = Instruction(one.kind, last.length + one.length, last.place)
        else:
            found.append(one)
    return found


def _pairs(old: Sequence[Span], new: Sequence[Span]) -> list[tuple[Span, Span]]:
    """Return tensors that are the same but for their values, in the order of the new file."""
    named = {one.name: one for one in old}
    pairs = {}
    for one in new:
        known = named.get(one.name)
        if known is not None and (known.kind, known.length) == (one.kind, one.length):
            pairs[one] = known
    used = set(pairs.values())
    left: dict[tuple[int, int], list[Span]] = {}
    for one in reversed(old):
        if one not in used:
            left.setdefault((one.kind, one.length), []).append(one)
    for one in new:
        alike = left.get((one.kind, one.length))
        if one not in pairs and alike:
            pairs[one] = alike.pop()
    return [(pairs[one], one) for one in new if one in pairs]


def _numbers(old: memoryview, new: memoryview, before: Span, after: Span) -> list[Instruction]:
    one = old[before.place : before.place + before.length]
    other = new[after.place : after.place + after.length]
    if one == other:
        return [Instruction(COPY, after.length, before.place)]
    whole = after.length // WIDTHS[after.kind] * WIDTHS[after.kind]
    rest = [Instruction(DATA, after.length - whole)] if whole < after.length else []
    return [Instruction(after.kind, whole, before.place), *rest] if whole else rest


def _between(old: memoryview, new: memoryview, before: tuple[int, int], after: tuple[int, int]) -> list[Instruction]:
    """Return instructions for what stands between two tensors."""
    length = after[1] - after[0]
    if length <= 0:
        return []
    wanted = new[after[0] : after[1]]
    for place in (before[1] - length, before[0]):
        if place >= 0 and place + length <= len(old) and old[place : place + length] == wanted:
            return [Instruction(COPY, length, place)]
    known = max(0, before[1] - before[0])
    if length < 16 or not 0 < known <= _GAP_BYTES or length > _GAP_BYTES:
        return [Instruction(DATA, length)]
    return match_bytes(old[before[0] : before[1]], wanted, before[0])


def _samples(data: memoryview) -> Iterator[bytes]:
    for part in range(4):
        first = len(data) * part // 4 // 8 * 8
        yield bytes(data[first : first + _SAMPLE_BYTES])


def _packed_bytes(data: bytes) -> int:
    return len(zstandard.ZstdCompressor(level=3).compress(data))
