"""An overlay on the wire: one gzipped tar of plain files, in order, with no times or owners.

A received overlay is only bytes by name until agent/verify.py has accepted it.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.wire.errors import Stop

MEDIA_TYPE: Final = "application/vnd.edgeferry.overlay.v1+tar+gzip"


@dataclass(frozen=True, slots=True)
class Limits:
    """What an agent takes at most; a hub never writes more.

    Attributes:
        files: how many files an overlay has.
        file_bytes: of one file.
        total_bytes: of all files together, unpacked.
    """

    files: int = 10_000
    file_bytes: int = 4 << 20
    total_bytes: int = 64 << 20


class OverlayRefused(Stop):
    """An overlay holds what no overlay may hold."""

    code = "EF2005"


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return the wire form: the same files give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(files):
            member = tarfile.TarInfo(path)
            member.size = len(files[path])
            archive.addfile(member, io.BytesIO(files[path]))
    return gzip.compress(buffer.getvalue(), compresslevel=6, mtime=0)


def unpack(data: bytes, limits: Limits, where: str) -> dict[str, bytes]:
    """Return path → bytes of the wire form, held in memory; nothing is written.

    Raises:
        OverlayRefused: not a gzipped tar, links or devices in it, unsafe or double paths, or over ``limits``.
    """
    slack = 4096 + limits.files * 3072
    files: dict[str, bytes] = {}
    total = 0
    try:
        inflate = zlib.decompressobj(31)
        plain = inflate.decompress(data, limits.total_bytes + slack)
        if inflate.unconsumed_tail or not inflate.eof:
            raise OverlayRefused(f"more than {limits.total_bytes} bytes, or cut short", where=where)
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            for member in archive:
                if not member.isreg() or member.issparse():
                    raise OverlayRefused(f"{member.name[:200]!r} is not a plain file", where=where)
                check_path(member.name, where)
                if member.name in files:
                    raise OverlayRefused(f"{member.name!r} stands there twice", where=where)
                total += member.size
                if member.size > limits.file_bytes or total > limits.total_bytes or len(files) >= limits.files:
                    raise OverlayRefused(f"{member.name!r}: too large, or one file too many", where=where)
                content = archive.extractfile(member)
                assert content is not None
                files[member.name] = content.read()
    except (tarfile.TarError, zlib.error, EOFError, UnicodeError, ValueError, OSError) as error:
        raise OverlayRefused(f"not a gzipped tar: {error}", where=where) from None
    return files


def check_path(path: str, where: str) -> None:
    """Refuse a path that is not plain, relative, and below the overlay's directory.

    Raises:
        OverlayRefused: for absolute paths, ``..``, empty parts, backslashes and control characters.
    """
    parts = path.split("/")
    if (
        len(path) > 512
        or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
        or "\\" in path
        or not path.isprintable()
    ):
        raise OverlayRefused(f"unsafe path {path[:200]!r}", where=where)
