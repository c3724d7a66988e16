"""Decisions as they stand in the fleet repository: ``decisions/<placement>/…``.

``decision.json`` tells what was decided and why the others were refused; ``chosen/<h>/<h>.json`` tells which
clusters, sharded by the first two hex digits of sha256(name) so that a small change rewrites little. Nothing in them
depends on source commits or reports: they are rewritten only when the decision changes. A placement writes under its
own name, a workload that follows one under ``<workload>.workload``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from agent.wire.canonical import canonical
from agent.wire.errors import Malformed
from agent.wire.fields import Fields, write_time

FORMATS: Final = (1,)
_SAMPLE: Final = 10


@dataclass(frozen=True, slots=True)
class Refused:
    """A group of refused clusters: ``sample`` names the first ten."""

    code: str
    text: str
    count: int
    sample: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """What one cluster got; version and digest are empty for one that was chosen and waits for its wave.

    Attributes:
        variant: of the decision's version; empty for the version itself.
        contradicted: when a fact that contradicts its placement was first measured; None for none.
        arriving: a cluster that is left waits until this one reports it current.
        leaving: it is left, and keeps it until others have it.
    """

    version: str
    digest: str
    variant: str = ""
    contradicted: datetime | None = None
    arriving: bool = False
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One decision as published.

    Attributes:
        name: directory below decisions/.
        kind: ``model`` or ``workload``.
        subject: name of the model or workload.
        version: chosen for all; empty for none.
        short: how many of ``count`` were not found.
        fault: why nothing was decided; empty for none.
        refused: groups, in the order of the policy's checks.
        identities: version → identity, of every version this placement ever chose: they may not change any more.
        chosen: cluster → what it got.
    """

    name: str
    kind: str
    subject: str
    version: str
    short: int = 0
    fault: str = ""
    refused: tuple[Refused, ...] = ()
    identities: Mapping[str, str] = field(default_factory=dict)
    chosen: Mapping[str, Placed] = field(default_factory=dict)


def document_of(name: str) -> str:
    """Return the name of the placement's document: a decision of one that selects models is ``NAME.models.MODEL``."""
    return name.partition(".models.")[0]


def head_path(name: str) -> str:
    """Return the path of a decision's head."""
    return f"decisions/{name}/decision.json"


@lru_cache(maxsize=200_000)
def shard(cluster: str) -> str:
    """Return ``h/h`` of a cluster: which file of ``chosen`` it stands in."""
    first = hashlib.sha256(cluster.encode()).hexdigest()
    return f"{first[0]}/{first[1]}"


def shard_path(name: str, part: str) -> str:
    """Return the path of one shard of ``chosen``."""
    return f"decisions/{name}/chosen/{part}.json"


def encode_head(record: DecisionRecord) -> bytes:
    """Return the bytes of decision.json."""
    return canonical(
        {
            "format": 1,
            "kind": record.kind,
            "subject": record.subject,
            "version": record.version,
            "chosen": len(record.chosen),
            "short": record.short,
            "fault": record.fault,
            "refused": [
                {"code": one.code, "text": one.text, "count": one.count, "clusters": list(one.sample)}
                for one in record.refused
            ],
            "identities": dict(record.identities),
        }
    )


def encode_shard(chosen: Mapping[str, Placed]) -> bytes:
    """Return the bytes of one shard."""
    return canonical({"format": 1, "clusters": {name: _placed(one) for name, one in chosen.items()}})


def _placed(one: Placed) -> dict[str, Any]:
    written: dict[str, Any] = {"version": one.version, "entryDigest": one.digest}
    if one.variant:
        written["variant"] = one.variant
    if one.contradicted is not None:
        written["contradictedSince"] = write_time(one.contradicted)
    for name, flag in (("arriving", one.arriving), ("leaving", one.leaving)):
        if flag:
            written[name] = True
    return written


def encode_all(record: DecisionRecord) -> dict[str, bytes]:
    """Return path → bytes of the whole decision."""
    shards: dict[str, dict[str, Placed]] = {}
    for name, one in record.chosen.items():
        shards.setdefault(shard(name), {})[name] = one
    files = {shard_path(record.name, part): encode_shard(chosen) for part, chosen in shards.items()}
    return {head_path(record.name): encode_head(record), **files}


def decode_all(name: str, files: Mapping[str, bytes]) -> DecisionRecord:
    """Read one decision.

    Args:
        name: directory below decisions/.
        files: path → bytes; those of other decisions are left alone.

    Raises:
        Malformed: the head is missing, or a file is not what it should be.
    """
    path = head_path(name)
    if path not in files:
        raise Malformed("the decision has no head", where=path)
    top = Fields.parse(files[path], path)
    top.format(FORMATS)
    chosen: dict[str, Placed] = {}
    for where, data in files.items():
        if where.startswith(f"decisions/{name}/chosen/"):
            chosen.update(_decode_shard(data, where))
    return DecisionRecord(
        name=name,
        kind=top.text("kind"),
        subject=top.text("subject"),
        version=top.text("version", ""),
        short=top.integer("short", 0),
        fault=top.text("fault", ""),
        refused=top.each("refused", _read_refused),
        identities=top.mapping("identities"),
        chosen=chosen,
    )


def source_commits(message: str) -> dict[str, str]:
    """Return source name → commit, as a fleet commit's message names them."""
    lines = [
        line.removeprefix("Source-Commit: ") for line in message.splitlines() if line.startswith("Source-Commit: ")
    ]
    return dict(line.split("=", 1) for line in lines if "=" in line)


def sample(names: Iterable[str]) -> tuple[str, ...]:
    """Return the first few names."""
    return tuple(name for name, _ in zip(names, range(_SAMPLE), strict=False))


def _decode_shard(data: bytes, where: str) -> dict[str, Placed]:
    top = Fields.parse(data, where)
    top.format(FORMATS)
    clusters = top.one("clusters", lambda item: item.every(_read_placed))
    if clusters is None:
        raise Malformed("clusters is missing", where=where)
    return clusters


def _read_placed(item: Fields) -> Placed:
    return Placed(
        item.text("version"),
        item.digest("entryDigest", ""),
        item.text("variant", ""),
        item.time("contradictedSince") if item.text("contradictedSince", "") else None,
        item.flag("arriving", False),
        item.flag("leaving", False),
    )


def _read_refused(item: Fields) -> Refused:
    return Refused(item.text("code"), item.text("text"), item.integer("count"), item.texts("clusters"))
