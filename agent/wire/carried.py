"""What is carried to a site on a disk, and back: one file each way, both verifiable.

To the site, an uncompressed tar: ``carried.json`` (this head), ``carried.json.sig`` (SSHSIG by a release key, namespace
``edgeferry-carried``), ``overlay`` (the wire form of agent/wire/overlay.py), ``blobs/sha256/<hex>``. Back from it, a
JSON document with a signed report.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agent.wire.canonical import canonical
from agent.wire.errors import Malformed, Stop
from agent.wire.fields import Fields, write_time

HEAD: Final = "carried.json"
SIGNATURE: Final = "carried.json.sig"
OVERLAY: Final = "overlay"
BLOBS: Final = "blobs/sha256/"
MOST_HEAD_BYTES: Final = 4 << 20

_MOST_TEXT: Final = 4 << 20


class CarriedDamaged(Stop):
    """A carried file is cut short, is not one of ours, or holds other bytes than its head says."""

    code = "EF4441"


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes in the file, in the order of the tar."""

    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Head:
    """What the file holds.

    Attributes:
        sequence: of the release in it.
        trust: number of the trust that the signature is by.
        made_at: UTC, by the hub's clock.
        overlay: digest of the member ``overlay``.
        incarnation: of the agent's state whose events the hub has; empty for none.
        events: the hub has its events up to this number.
    """

    fleet: str
    cluster: str
    sequence: int
    trust: int
    made_at: datetime
    overlay: str
    blobs: tuple[Blob, ...] = ()
    incarnation: str = ""
    events: int = 0


def encode_head(head: Head) -> bytes:
    """Return the canonical bytes: what is signed."""
    return canonical(
        {
            "format": 1,
            "fleet": head.fleet,
            "cluster": head.cluster,
            "sequence": head.sequence,
            "trust": head.trust,
            "madeAt": write_time(head.made_at),
            "overlay": head.overlay,
            "blobs": [{"digest": one.digest, "size": one.size_bytes} for one in head.blobs],
            "events": {"incarnation": head.incarnation, "number": head.events},
        }
    )


def decode_head(data: bytes, where: str) -> Head:
    """Read a head. It proves nothing about who wrote it.

    Raises:
        Malformed, UnsupportedFormat: it is not one that this version reads.
    """
    top = Fields.parse(data, where)
    top.format((1,))
    events = top.one("events", lambda one: (one.text("incarnation", "", most=64), one.integer("number", 0)))
    return Head(
        fleet=top.text("fleet"),
        cluster=top.text("cluster"),
        sequence=top.integer("sequence"),
        trust=top.integer("trust"),
        made_at=top.time("madeAt"),
        overlay=top.digest("overlay"),
        blobs=top.each("blobs", lambda one: Blob(one.digest("digest"), one.integer("size"))),
        incarnation=events[0] if events else "",
        events=events[1] if events else 0,
    )


def encode_carried_report(data: bytes, signature: bytes) -> bytes:
    """Return the file with a report and its signature."""
    texts = {"report": base64.b64encode(data).decode(), "signature": signature.decode()}
    return canonical({"format": 1, **texts})


def decode_carried_report(data: bytes, where: str) -> tuple[bytes, bytes]:
    """Return the report's bytes, not verified, and the armored signature.

    Raises:
        Malformed, UnsupportedFormat: it is not one that this version reads.
    """
    top = Fields.parse(data, where)
    top.format((1,))
    try:
        report = base64.b64decode(top.text("report", most=_MOST_TEXT), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("report is not base64", where=where) from None
    return report, top.text("signature").encode()
