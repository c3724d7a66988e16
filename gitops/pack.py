"""Git objects → one pack file with its index, durable before it is seen. No deltas: packs of one publication are small.

Source: gitformat-pack(5), pack version 2 and index version 2.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Container
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Literal, Self

Kind = Literal["commit", "tree", "blob"]

_sha1: Final = hashlib.sha1
_TYPE: Final = {"commit": 1, "tree": 2, "blob": 3}
_LEVEL: Final = 1
_STORED_BYTES: Final = 4096
"""Trees, which are mostly ids, and objects up to this size are stored as they are. Compressing a release would cost
as much as all else together, for 1.2 KB, and a repack finds most of that as deltas (docs/adr/0004-publication.md)."""

_NAMES: Final = {"commit": b"commit", "tree": b"tree", "blob": b"blob"}
_HEADER: Final = struct.Struct(">4sII")
_BUFFER_BYTES: Final = 4 << 20
_BIG_OFFSET: Final = 1 << 31


def object_id(kind: Kind, data: bytes) -> bytes:
    """Return the 20-byte id of a Git object."""
    return _sha1(b"%b %d\0%b" % (_NAMES[kind], len(data), data), usedforsecurity=False).digest()


class PackWriter:
    """Collects objects, each once, and makes them readable in one go.

    Use it as a context manager: left without ``finish``, it removes what it wrote.

    Args:
        directory: ``objects/pack`` of a repository. Only one writer may be at work there.
        present: ids that need not be written, as they are in the repository already.
    """

    def __init__(self, directory: Path, present: Container[bytes]) -> None:
        self.written: dict[bytes, int] = {}  # offset << 32 | checksum: numbers cost the garbage collector nothing
        self._directory = directory
        self._present = present
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._size = _HEADER.size
        self._file: BinaryIO | None = None

    def put(self, kind: Kind, data: bytes) -> bytes:
        """Return the object's id; it is written unless it is there."""
        size = len(data)
        oid = _sha1(b"%b %d\0%b" % (_NAMES[kind], size, data), usedforsecurity=False).digest()
        if oid in self.written or oid in self._present:
            return oid
        body = zlib.compress(data, 0 if kind == "tree" or size <= _STORED_BYTES else _LEVEL)
        chunk = _head(kind, size) + body
        self.written[oid] = self._size << 32 | zlib.crc32(chunk)
        self._chunks.append(chunk)
        self._size += len(chunk)
        self._buffered += len(chunk)
        if self._buffered > _BUFFER_BYTES:
            self._flush()
        return oid

    def finish(self) -> None:
        """Make all objects readable and durable; without any, nothing is written.

        Raises:
            OSError: the disk is full, or cannot be written; nothing is readable then.
        """
        if not self.written:
            return
        self._flush()
        file = self._file
        assert file is not None
        file.seek(0)
        file.write(_HEADER.pack(b"PACK", 2, len(self.written)))
        checksum = _sha1_of(file)
        file.write(checksum)
        _sync(file)
        with self._create("idx") as index:
            index.write(_index(self.written, checksum))
            _sync(index)
        name = f"pack-{checksum.hex()}"
        for suffix in ("pack", "idx"):  # a reader looks for the index: it comes last
            beside = self._temporary(suffix)
            beside.chmod(0o444)
            beside.rename(self._directory / f"{name}.{suffix}")
        sync_directory(self._directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            for suffix in ("pack", "idx"):
                self._temporary(suffix).unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._file is None:
            # "tmp_": git's own housekeeping knows it as garbage; no ".pack": a repack takes every such file
            self._file = self._create("pack")
            self._chunks.insert(0, bytes(_HEADER.size))
        self._file.write(b"".join(self._chunks))
        self._chunks.clear()
        self._buffered = 0

    def _create(self, suffix: str) -> BinaryIO:
        """Open a new temporary file; one left by a process that was killed may be read-only, so it is removed."""
        path = self._temporary(suffix)
        path.unlink(missing_ok=True)
        return path.open("x+b")

    def _temporary(self, suffix: str) -> Path:
        return self._directory / f"tmp_edgeferry_{suffix}"


@lru_cache(4096)
def _head(kind: Kind, size: int) -> bytes:
    """Return what stands before an object in a pack: its kind and its size, seven bits a byte."""
    byte = _TYPE[kind] << 4 | size & 15
    size >>= 4
    head = bytearray()
    while size:
        head.append(byte | 0x80)
        byte = size & 0x7F
        size >>= 7
    head.append(byte)
    return bytes(head)


def sync_directory(directory: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sha1_of(file: BinaryIO) -> bytes:
    """Return the checksum of the whole file, and leave its position at the end."""
    file.seek(0)
    hasher = _sha1(usedforsecurity=False)
    while piece := file.read(1 << 20):
        hasher.update(piece)
    return hasher.digest()


def _index(entries: dict[bytes, int], checksum: bytes) -> bytes:
    oids = sorted(entries)
    counts = [0] * 256
    for oid in oids:
        counts[oid[0]] += 1
    fan = list(accumulate(counts))
    places = [entries[oid] for oid in oids]
    offsets = [place >> 32 for place in places]
    big = [offset for offset in offsets if offset >= _BIG_OFFSET]
    if big:
        number = {offset: _BIG_OFFSET | n for n, offset in enumerate(big)}
        offsets = [number.get(offset, offset) for offset in offsets]
    data = b"".join(
        (
            b"\377tOc\0\0\0\2",
            struct.pack(">256I", *fan),
            *oids,
            struct.pack(f">{len(oids)}I", *[place & 0xFFFFFFFF for place in places]),
            struct.pack(f">{len(oids)}I", *offsets),
            struct.pack(f">{len(big)}Q", *big),
            checksum,
        )
    )
    return data + _sha1(data, usedforsecurity=False).digest()
