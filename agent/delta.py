"""Deltas between two files: their format, and how a file is rebuilt from an old one in bounded memory.

A delta is ``MAGIC``, the result's size (u64), and records. A record is a header and a payload that unpacks to at most
``MOST_PLAIN_BYTES``: instructions, then the bytes they use. All numbers are little-endian.

    header    codec u8, stored u32, plain u32, prefix offset u64, prefix length u32
    codec     0 as it is, 1 zstd, 2 xz, 3 bzip2; with a prefix (zstd alone) that slice of the old file is its dictionary
    plain     count, then per instruction: kind | length << 3, and for COPY and DIFF where in the old file,
              relative to where the last one ended; all as LEB128, the place zigzag
    after     the bytes of all DIFF, then those of all DATA
    COPY      takes bytes of the old file
    DIFF k    takes numbers of the old file and adds differences: kind 1 bytes, 2 to 4 IEEE floats of 16, 32, 64 bit
              (also bfloat16), 5 to 6 integers of 16 and 32 bit; the differences stand in byte planes, zigzag
    DATA      takes bytes of the payload

Floats are compared as integers in the order of their values, so that close weights have small differences. Whoever
made a delta need not be trusted: every size is bounded, and the caller compares the result's digest.

Run as a program it rebuilds one file, so that its memory is gone afterwards: ``python -m agent.delta OLD DELTA NEW
SIZE``; OLD is empty where the delta needs none.
"""

from __future__ import annotations

import bz2
import lzma
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import zstandard

from agent.wire.errors import EdgeferryError, Stop

MAGIC: Final = b"EFDELTA1"
HEAD: Final = struct.Struct("<8sQ")
RECORD: Final = struct.Struct("<BIIQI")
MOST_PLAIN_BYTES: Final = 2 << 20
MOST_PREFIX_BYTES: Final = 8 << 20
RAW, ZSTD, XZ, BZIP2 = range(4)
COPY, BYTES, FLOAT16, FLOAT32, FLOAT64, INT16, INT32, DATA = range(8)
WIDTHS: Final = {BYTES: 1, FLOAT16: 2, FLOAT32: 4, FLOAT64: 8, INT16: 2, INT32: 4}
FLOATS: Final = (FLOAT16, FLOAT32, FLOAT64)

_PIECE_BYTES: Final = 1 << 20
_SLACK_BYTES: Final = 64 << 10
_XZ_MEMORY_BYTES: Final = 24 << 20

Numbers = np.ndarray  # of unsigned integers


class BadDelta(Stop):
    """A delta is not one, or does not fit the file that it is used on. The file is fetched whole instead."""

    code = "EF2201"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One step of rebuilding.

    Attributes:
        kind: ``COPY``, ``DATA``, or the kind of numbers of a difference.
        length: bytes of the result.
        place: in the old file; 0 for ``DATA``.
    """

    kind: int
    length: int
    place: int = 0


def rebuild(old: BinaryIO | None, delta: BinaryIO, write: Callable[[bytes], object], size_bytes: int) -> None:
    """Write the new file, piece by piece.

    Args:
        old: the old file; None where the delta needs none.
        delta: from its start.
        write: takes the next bytes of the result.
        size_bytes: that the result must have.

    Raises:
        BadDelta: it cannot be followed; what was written is worth nothing.
    """
    head = delta.read(HEAD.size)
    if len(head) != HEAD.size or HEAD.unpack(head) != (MAGIC, size_bytes):
        raise BadDelta("no delta, or one to a file of another size")
    old_bytes = 0 if old is None else old.seek(0, os.SEEK_END)
    left = size_bytes
    while left:
        found = delta.read(RECORD.size)
        if len(found) != RECORD.size:
            raise BadDelta(f"it ends {left} bytes before the result does")
        codec, stored, plain, place, prefix = RECORD.unpack(found)
        if plain > MOST_PLAIN_BYTES or stored > plain + _SLACK_BYTES or prefix > MOST_PREFIX_BYTES:
            raise BadDelta(f"a record of {stored} bytes for {plain}, with a prefix of {prefix}")
        payload = delta.read(stored)
        if len(payload) != stored:
            raise BadDelta("it is cut short")
        dictionary = _slice(old, old_bytes, place, prefix) if prefix else b""
        data = unpacked(codec, payload, plain, dictionary)
        made = 0
        for piece in _follow(data, old, old_bytes, left):
            made += len(piece)
            left -= len(piece)
            write(piece)
        if plain > 4 * made + _SLACK_BYTES:
            raise BadDelta(f"a record of {plain} bytes for {made}")
    if delta.read(1):
        raise BadDelta("there is more after its end")


def unpacked(codec: int, payload: bytes, plain_bytes: int, prefix: bytes = b"") -> bytes:
    """Return what a record's payload holds, exactly ``plain_bytes`` of it.

    Raises:
        BadDelta: it holds something else.
    """
    data = b""
    try:
        if codec == RAW:
            data = payload
        elif codec == ZSTD:
            if zstandard.frame_content_size(payload) == plain_bytes:
                known = zstandard.ZstdCompressionDict(prefix, zstandard.DICT_TYPE_RAWCONTENT) if prefix else None
                data = zstandard.ZstdDecompressor(dict_data=known).decompress(payload)
        elif codec == XZ:
            data = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY_BYTES).decompress(payload, plain_bytes + 1)
        elif codec == BZIP2:
            data = bz2.BZ2Decompressor().decompress(payload, plain_bytes + 1)
    except (zstandard.ZstdError, lzma.LZMAError, OSError, EOFError, ValueError, MemoryError) as error:
        raise BadDelta(f"a record that cannot be unpacked: {error}") from None
    if len(data) != plain_bytes:
        raise BadDelta(f"a record of {len(data)} bytes, {plain_bytes} were announced")
    return data


def ordered(numbers: Numbers, kind: int) -> Numbers:
    """Return floats, given as unsigned integers, in the order of their values; other numbers as they are."""
    if kind not in FLOATS:
        return numbers
    sign = numbers.dtype.type(1 << (8 * numbers.dtype.itemsize - 1))
    return np.where(numbers & sign, ~numbers, numbers | sign)


def unordered(numbers: Numbers, kind: int) -> Numbers:
    """Undo ``ordered``."""
    if kind not in FLOATS:
        return numbers
    sign = numbers.dtype.type(1 << (8 * numbers.dtype.itemsize - 1))
    return np.where(numbers & sign, numbers ^ sign, ~numbers)


def _follow(data: bytes, old: BinaryIO | None, old_bytes: int, left: int) -> Iterator[bytes]:
    instructions, at = _read_instructions(data)
    literal_at = at + sum(one.length for one in instructions if one.kind not in (COPY, DATA))
    for one in instructions:
        if not 0 < one.length <= left:
            raise BadDelta(f"{one.length} bytes, where {left} are wanted")
        left -= one.length
        if one.kind == COPY:
            for first in range(0, one.length, _PIECE_BYTES):
                yield _slice(old, old_bytes, one.place + first, min(_PIECE_BYTES, one.length - first))
            continue
        first = literal_at if one.kind == DATA else at
        used = data[first : first + one.length]
        if len(used) != one.length:
            raise BadDelta("an instruction wants more than its record holds")
        if one.kind == DATA:
            literal_at += one.length
            yield used
            continue
        at += one.length
        if one.length % WIDTHS[one.kind]:
            raise BadDelta("half a number")
        yield _add(_slice(old, old_bytes, one.place, one.length), used, one.kind)
    if literal_at != len(data):
        raise BadDelta("a record holds more than its instructions use")


def _add(base: bytes, planes: bytes, kind: int) -> bytes:
    width = WIDTHS[kind]
    if width == 1:
        return (np.frombuffer(base, np.uint8) + np.frombuffer(planes, np.uint8)).tobytes()
    number = np.dtype(f"<u{width}")
    packed = np.frombuffer(planes, np.uint8).reshape(width, -1).T.copy().reshape(-1).view(number)
    one = number.type(1)
    difference = (packed >> one) ^ (~(packed & one) + one)
    return unordered(ordered(np.frombuffer(base, number), kind) + difference, kind).tobytes()


def _read_instructions(data: bytes) -> tuple[list[Instruction], int]:
    """Return the instructions, and where the bytes that they use begin."""
    count, at = _varint(data, 0)
    if count > len(data):
        raise BadDelta("more instructions than bytes")
    found, here = [], 0
    for _ in range(count):
        head, at = _varint(data, at)
        kind, length = head & 7, head >> 3
        place = 0
        if kind != DATA:
            step, at = _varint(data, at)
            place = here + ((step >> 1) ^ -(step & 1))
            here = place + length
        found.append(Instruction(kind, length, place))
    return found, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 63:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise BadDelta("a number without an end")


def _slice(old: BinaryIO | None, old_bytes: int, place: int, length: int) -> bytes:
    if old is None or place < 0 or place + length > old_bytes:
        raise BadDelta(f"{length} bytes at {place} of a file of {old_bytes}")
    old.seek(place)
    data = old.read(length)
    if len(data) != length:
        raise BadDelta("the old file became shorter while it was read")
    return data


def main(words: list[str]) -> int:
    """Rebuild one file; return 0, or 3 with one line on stderr for a delta that cannot be used."""
    old_path, delta_path, new_path, size = words
    try:
        with ExitStack() as stack:
            old = stack.enter_context(Path(old_path).open("rb")) if old_path else None
            delta = stack.enter_context(Path(delta_path).open("rb"))
            new = stack.enter_context(Path(new_path).open("wb"))
            rebuild(old, delta, new.write, int(size))
            new.flush()
            os.fsync(new.fileno())
    except EdgeferryError as error:
        print(error, file=sys.stderr)
        return 3
    except OSError as error:
        print(f"{error.errno}", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
