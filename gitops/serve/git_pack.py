"""Git's packet lines and packs, as far as serving one overlay needs them.

Source: gitprotocol-common and gitformat-pack of Git.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from gitops.serve.faults import BadRequest
from gitops.serve.overlays import GitObject

FLUSH: Final = b"0000"
DELIMITER: Final = b"0001"
Mark = Literal[0, 1, 2]
"""A packet without content: flush, delimiter, end of response."""

_MARKS: Final[dict[int, Mark]] = {0: 0, 1: 1, 2: 2}
_MOST_PACKETS: Final = 40_000
_BAND_BYTES: Final = 65_515
_SMALL_BAND_BYTES: Final = 995
_TYPES: Final = {"commit": 1, "tree": 2, "blob": 3}


def packet(line: bytes) -> bytes:
    """Return one packet line."""
    return b"%04x%b" % (len(line) + 4, line)


def packets(data: bytes) -> list[bytes | Mark]:
    """Return the packet lines of a request, each without its newline.

    Raises:
        BadRequest: a length is no length, or the last one is cut short.
    """
    found: list[bytes | Mark] = []
    at = 0
    while at < len(data):
        try:
            length = int.from_bytes(bytes.fromhex(data[at : at + 4].decode("ascii")), "big")
        except (ValueError, UnicodeDecodeError):
            raise BadRequest("not a packet line") from None
        if len(data) - at < max(length, 4) or length == 3 or len(found) >= _MOST_PACKETS:
            raise BadRequest("a packet line is cut short, or there are too many")
        if length in _MARKS:
            found.append(_MARKS[length])
            at += 4
        else:
            found.append(data[at + 4 : at + length].removesuffix(b"\n"))
            at += length
    return found


def write_pack(objects: Sequence[GitObject]) -> bytes:
    """Return a pack, version 2, without deltas."""
    body = bytearray(b"PACK" + struct.pack("!II", 2, len(objects)))
    for one in objects:
        body += _header(_TYPES[one.kind], len(one.data))
        body += zlib.compress(one.data, 6)
    return bytes(body + hashlib.sha1(body, usedforsecurity=False).digest())


def banded(pack: bytes, *, small: bool = False) -> Iterable[bytes]:
    """Give a pack as packets of side band 1."""
    size = _SMALL_BAND_BYTES if small else _BAND_BYTES
    for at in range(0, len(pack), size):
        yield packet(b"\1" + pack[at : at + size])


def _header(kind: int, size: int) -> bytes:
    first, size = kind << 4 | size & 15, size >> 4
    out = bytearray()
    while size:
        out.append(first | 0x80)
        first, size = size & 0x7F, size >> 7
    out.append(first)
    return bytes(out)
