"""Tar layers → files of a tree, as strictly as a hostile archive asks for.

Reading is bounded in every direction: bytes in all, files, the size of one header, and what an archive may be
larger than its compressed form.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from agent.tree import ArtifactRefused, NewTree

_PIECE_BYTES: Final = 256 << 10
_MOST_HEADER_BYTES: Final = 1 << 20
_MOST_HEADERS_BYTES: Final = 128 << 20
_MOST_PADDING_BYTES: Final = 16 << 20
_BROKEN: Final = (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, UnicodeError, ValueError, OverflowError)


def unpack_tar(archive: Path, tree: NewTree, *, compressed: bool, below: str = "") -> None:
    """Put the files of an archive into a tree.

    Args:
        archive: a verified layer.
        tree: in the making.
        compressed: by gzip.
        below: take only what is below this directory of the archive, and leave the directory's name away.

    Raises:
        ArtifactRefused: links, devices or sparse files in it, unsafe or colliding names, too much, or no tar archive.
        OSError: the disk is full, or broken.
    """
    with archive.open("rb") as raw:
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if compressed else raw  # type: ignore[assignment]  # it reads
        source = _Forward(stream, tree.where)
        for member in _members(source, tree.where):
            path = _inside(member.name, below)
            if path is None:
                continue
            if member.isdir():
                if path:
                    tree.directory(path)
            elif member.isreg() and not member.issparse():
                if member.size > tree.most_bytes:
                    raise ArtifactRefused(f"{member.name[:200]!r} has {member.size} bytes", where=tree.where)
                tree.write(path, source.take(member), executable=bool(member.mode & 0o100))
            else:
                raise ArtifactRefused(
                    f"{member.name[:200]!r} is a link, a device or a sparse file",
                    where=tree.where,
                    do="pack plain files and directories only",
                )


class _Forward:
    """What tarfile reads from: only forward, and no header of a size that an honest one never has."""

    def __init__(self, stream: IO[bytes], where: str) -> None:
        self._stream = stream
        self._where = where
        self._at = 0
        self._header_bytes = 0
        self._last = b""

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> int:
        if to < self._at:
            raise ValueError("an archive is read once, forward")
        while self._at < to and self._more(min(_PIECE_BYTES, to - self._at)):
            pass
        return self._at

    def read(self, size: int) -> bytes:
        self._header_bytes += size
        if not 0 <= size <= _MOST_HEADER_BYTES or self._header_bytes > _MOST_HEADERS_BYTES:
            raise ValueError(f"a header of {size} bytes, {self._header_bytes} in all")
        parts = []
        while size and (data := self._more(size)):
            parts.append(data)
            size -= len(data)
        self._last = b"".join(parts)
        return self._last

    def end(self) -> None:
        """See that nothing follows but padding: tarfile takes a damaged header for the end, and reads no checksum."""
        data, padding = self._last, 0
        while not data.strip(b"\0") and padding <= _MOST_PADDING_BYTES:
            data = self._more(_PIECE_BYTES)
            padding += len(data)
            if not data:
                return
        raise ValueError("something follows behind its end")

    def take(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """Yield the bytes of the member whose header was read last."""
        self.seek(member.offset_data)
        left = member.size
        while left:
            data = self._more(min(left, _PIECE_BYTES))
            if not data:
                raise ArtifactRefused(f"cut short within {member.name[:200]!r}", where=self._where)
            left -= len(data)
            yield data

    def _more(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except _BROKEN as error:
            raise ArtifactRefused(f"not a readable archive: {error}", where=self._where) from None
        self._at += len(data)
        return data


def _members(source: _Forward, where: str) -> Iterator[tarfile.TarInfo]:
    try:
        archive = tarfile.TarFile(fileobj=source, mode="r")  # type: ignore[arg-type]  # it needs read, seek and tell
        while (member := archive.next()) is not None:
            yield member
            archive.members = []  # type: ignore[attr-defined]  # else it remembers every one of them
        source.end()
    except _BROKEN as error:
        raise ArtifactRefused(f"not a readable archive: {error}", where=where) from None


def _inside(name: str, below: str) -> str | None:
    """Return a member's path below ``below``, empty for that directory itself; None for what is elsewhere."""
    path = name
    while path.startswith("./"):
        path = path[2:]
    path = "" if path == "." else path.rstrip("/") if path != "/" else path
    if not below:
        return path
    if path == below:
        return ""
    return path[len(below) + 1 :] if path.startswith(f"{below}/") else None
