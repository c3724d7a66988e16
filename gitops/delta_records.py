"""Instructions → the records of a delta, each packed by what packs it best. The format is agent/delta.py's."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np
import zstandard

from agent.delta import (
    BZIP2,
    COPY,
    DATA,
    HEAD,
    MAGIC,
    MOST_PREFIX_BYTES,
    RAW,
    RECORD,
    WIDTHS,
    XZ,
    ZSTD,
    Instruction,
    Numbers,
    ordered,
)

BLOCK_BYTES: Final = 1 << 20
_SLACK_BYTES: Final = 32 << 10
_LEVEL: Final = 3
_THOROUGH: Final = 19
_WORTH_MORE: Final = 0.6
"""Where the quick packer brings a payload below this, it has structure, and the thorough ones may find more of it."""


Bytes = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Slice:
    """A piece of the old file that helps to pack a record."""

    place: int
    length: int


Prefix = Callable[[int, int], Slice | None]
"""(place in the new file, bytes there) → the slice of the old file that its record is packed with; None for none."""


def no_prefix(_place: int, _length: int) -> None:
    """Pack every record by itself."""


def write_delta(
    old: Bytes, new: Bytes, instructions: Iterable[Instruction], out: BinaryIO, prefix: Prefix = no_prefix
) -> int:
    """Write a delta; return its size in bytes.

    Args:
        old: the old file; empty for none.
        new: the new file.
        instructions: together they make all of ``new``, in order.
        out: where to.
        prefix: chooses what of the old file helps to pack a record.
    """
    out.write(HEAD.pack(MAGIC, len(new)))
    size = HEAD.size
    at, prefixed = 0, _Prefixed(old)
    for group in _groups(_split(instructions)):
        plain, length = _plain(old, new, group, at), sum(one.length for one in group)
        chosen = prefix(at, length)
        codec, stored = packed(plain) if chosen is None else (ZSTD, prefixed.pack(plain, chosen))
        where = chosen or Slice(0, 0)
        out.write(RECORD.pack(codec, len(stored), len(plain), where.place, where.length))
        out.write(stored)
        size += RECORD.size + len(stored)
        at += length
    if at != len(new):
        raise AssertionError(f"instructions for {at} bytes of {len(new)}")
    return size


def packed(plain: bytes) -> tuple[int, bytes]:
    """Return the codec that packs some bytes best, and what it makes of them."""
    quick = zstandard.ZstdCompressor(level=_LEVEL).compress(plain)
    found = [(len(plain), RAW, plain), (len(quick), ZSTD, quick)]
    if len(quick) < _WORTH_MORE * len(plain):
        for codec, data in (
            (ZSTD, zstandard.ZstdCompressor(level=_THOROUGH).compress(plain)),
            (BZIP2, bz2.compress(plain)),
            (XZ, lzma.compress(plain, check=lzma.CHECK_NONE, preset=6)),
        ):
            found.append((len(data), codec, data))
    _, codec, data = min(found, key=lambda one: one[:2])
    return codec, data


@dataclass(slots=True)
class _Prefixed:
    """Packs with slices of the old file; the last slice stays ready for use."""

    old: Bytes
    chosen: Slice | None = None
    ready: zstandard.ZstdCompressor | None = None

    def pack(self, plain: bytes, chosen: Slice) -> bytes:
        if self.ready is None or self.chosen != chosen:
            level = _THOROUGH if len(self.old) <= MOST_PREFIX_BYTES else _LEVEL
            data = bytes(self.old[chosen.place : chosen.place + chosen.length])
            known = zstandard.ZstdCompressionDict(data, zstandard.DICT_TYPE_RAWCONTENT)
            known.precompute_compress(level=level)
            self.chosen, self.ready = chosen, zstandard.ZstdCompressor(level=level, dict_data=known)
        return self.ready.compress(plain)


def planes(base: Numbers, wanted: Numbers, kind: int) -> bytes:
    """Return differences as a record holds them.

    Args:
        base: numbers of the old file, as unsigned integers.
        wanted: as many of the new one.
        kind: what they are.
    """
    width = WIDTHS[kind]
    difference = ordered(wanted, kind) - ordered(base, kind)
    if width == 1:
        return bytes(difference.tobytes())
    signed = difference.view(f"<i{width}")
    zigzag = ((signed << 1) ^ (signed >> (8 * width - 1))).view(np.uint8)
    return bytes(zigzag.reshape(-1, width).T.tobytes())


def _split(instructions: Iterable[Instruction]) -> Iterator[Instruction]:
    """Cut what takes bytes of a record into pieces that fit one."""
    for one in instructions:
        if one.kind == COPY or one.length <= BLOCK_BYTES:
            yield one
            continue
        for first in range(0, one.length, BLOCK_BYTES):
            place = one.place + first if one.kind != DATA else 0
            yield Instruction(one.kind, min(BLOCK_BYTES, one.length - first), place)


def _groups(instructions: Iterable[Instruction]) -> Iterator[Sequence[Instruction]]:
    group: list[Instruction] = []
    held = 0
    for one in instructions:
        costs = 20 + (0 if one.kind == COPY else one.length)
        if group and held + costs > BLOCK_BYTES + _SLACK_BYTES:
            yield group
            group, held = [], 0
        group.append(one)
        held += costs
    if group:
        yield group


def _plain(old: Bytes, new: Bytes, group: Sequence[Instruction], at: int) -> bytes:
    heads, differences, literals = [_varint(len(group))], [], []
    here = 0
    for one in group:
        heads.append(_varint(one.kind | one.length << 3))
        if one.kind != DATA:
            step = one.place - here
            heads.append(_varint((step << 1) ^ (step >> 63)))
            here = one.place + one.length
        if one.kind == DATA:
            literals.append(bytes(new[at : at + one.length]))
        elif one.kind != COPY:
            number = np.dtype(f"<u{WIDTHS[one.kind]}")
            base = np.frombuffer(bytes(old[one.place : one.place + one.length]), number)
            differences.append(planes(base, np.frombuffer(bytes(new[at : at + one.length]), number), one.kind))
        at += one.length
    return b"".join([*heads, *differences, *literals])


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
