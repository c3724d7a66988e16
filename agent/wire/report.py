"""The report: what a cluster runs now (level), and what happened since the last one (edge).

Format 1, signed with the agent's key in the namespace ``edgeferry-report``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from agent.wire.canonical import canonical, is_digest
from agent.wire.errors import Malformed
from agent.wire.facts import Fact, decode_fact, encode_fact
from agent.wire.fields import Fields, write_time

FORMATS: Final = (1,)

REPORT_NAME: Final = "report.json"
REPORT_SIGNATURE_NAME: Final = "report.json.sig"
_BRANCHES: Final = "refs/heads/report/"

Health = Literal["current", "progressing", "degraded", "unknown"]
HEALTHS: Final[tuple[Health, ...]] = ("current", "progressing", "degraded", "unknown")


@dataclass(frozen=True, slots=True)
class EntryReport:
    """What the cluster does with one entry.

    Attributes:
        digest: entry digest of what runs; empty when nothing of it runs.
        wanted: entry digest that the release asks for; empty while it is being removed.
        health: of what runs.
        healthy_since: begin of the present stretch of ``current``; None in every other health.
        code: EF code of the last fault; empty for none.
        message: one sentence for people; never a secret.
        url: where the consumer reaches it; empty for none.
        staged_bytes: present at the site, of ``size_bytes``.
        failed: the wanted digest failed here, or cannot run here, and is not tried again.
        since: begin of the present stretch of ``health``, whatever it is; None for not known.
    """

    kind: str
    name: str
    version: str
    digest: str
    wanted: str
    health: Health
    healthy_since: datetime | None = None
    code: str = ""
    message: str = ""
    url: str = ""
    staged_bytes: int = 0
    size_bytes: int = 0
    failed: bool = False
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One numbered transition.

    Attributes:
        number: grows by one within an incarnation of the agent's state.
        at: when it happened, by the site's clock.
        kind: ``staged``, ``switched``, ``committed``, ``returned``, ``removed``, ``repaired``, ``refused``, …
        object: ``model/NAME``, ``workload/NAME``, or empty for the cluster.
        message: one sentence for people; never a secret.
        count: how many equal transitions are folded into this one.
    """

    number: int
    at: datetime
    kind: str
    object: str
    version: str = ""
    code: str = ""
    message: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    """One report of one cluster.

    Attributes:
        incarnation: made when the agent's state was made; with a number it names an event for ever.
        number: of the report, grows by one.
        sequence: of the release in force; 0 for none.
        content: of the release in force; empty for none.
        trust: number of the trust in force.
        agent: version of the agent.
        reads: release formats that this agent reads.
        fault: EF code and sentence why the newest release is not in force; empty for none.
        ignored: how many releases with a lower sequence were ignored.
        artifacts: digests of the artifacts that are complete at the site, in order.
        base: 0 for a whole report; else the number of the one that this one says the differences to: see
            agent/wire/report_delta.py.
        gone: what the base has and this one has not: ``model/NAME``, ``workload/NAME``, ``fact/NAME``, digests.
        unread: why facts of it could not be read; they are left out, and nothing else is lost.
    """

    fleet: str
    cluster: str
    incarnation: str
    number: int
    sent_at: datetime
    sequence: int = 0
    content: str = ""
    trust: int = 0
    agent: str = ""
    reads: tuple[str, ...] = ()
    fault_code: str = ""
    fault: str = ""
    ignored: int = 0
    entries: tuple[EntryReport, ...] = ()
    facts: tuple[Fact, ...] = ()
    events: tuple[Event, ...] = ()
    source_revision: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    base: int = 0
    gone: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


def report_branch(cluster: str) -> str:
    """Return the reference of a cluster's newest report in a report repository."""
    return f"{_BRANCHES}{cluster}"


def encode_report(report: Report) -> bytes:
    """Return the canonical bytes: what is signed."""
    relative = {"base": report.base, "gone": list(report.gone)} if report.base else {}
    return canonical(
        {
            **relative,
            "format": 1,
            "fleet": report.fleet,
            "cluster": report.cluster,
            "incarnation": report.incarnation,
            "number": report.number,
            "sentAt": write_time(report.sent_at),
            "release": {
                "sequence": report.sequence,
                "content": report.content,
                "sourceRevision": dict(report.source_revision),
            },
            "trust": report.trust,
            "agent": {"version": report.agent, "reads": list(report.reads)},
            "fault": {"code": report.fault_code, "message": report.fault},
            "ignored": report.ignored,
            "entries": [_entry(one) for one in report.entries],
            "facts": [encode_fact(one) for one in report.facts],
            "events": [_event(one) for one in report.events],
            "artifacts": list(report.artifacts),
        }
    )


def decode_report(data: bytes, where: str = "report") -> Report:
    """Read a report. It proves nothing about who wrote it.

    Raises:
        Malformed: a field is missing or of the wrong kind.
        UnsupportedFormat: a newer format.
    """
    top = Fields.parse(data, where)
    top.format(FORMATS)
    sequence, content, source_revision = _required(
        top, "release", lambda f: (f.integer("sequence", 0), f.digest("content", ""), f.mapping("sourceRevision"))
    )
    version, reads = _required(top, "agent", lambda f: (f.text("version", ""), f.texts("reads")))
    code, fault = top.one("fault", lambda f: (f.text("code", ""), f.text("message", ""))) or ("", "")
    facts, unread = top.readable("facts", decode_fact)
    return Report(
        fleet=top.text("fleet"),
        cluster=top.text("cluster"),
        incarnation=top.text("incarnation", most=64),
        number=top.integer("number"),
        sent_at=top.time("sentAt"),
        sequence=sequence,
        content=content,
        source_revision=source_revision,
        trust=top.integer("trust", 0),
        agent=version,
        reads=reads,
        fault_code=code,
        fault=fault,
        ignored=top.integer("ignored", 0),
        entries=top.each("entries", _read_entry),
        facts=facts,
        unread=unread,
        events=top.each("events", _read_event),
        artifacts=_digests(top.texts("artifacts"), top.where),
        base=top.integer("base", 0),
        gone=top.texts("gone"),
    )


def _entry(one: EntryReport) -> dict[str, Any]:
    more: dict[str, Any] = {"failed": True} if one.failed else {}
    if one.since is not None:
        more["since"] = write_time(one.since)
    return more | {
        "kind": one.kind,
        "name": one.name,
        "version": one.version,
        "entryDigest": one.digest,
        "wanted": one.wanted,
        "health": one.health,
        "healthySince": "" if one.healthy_since is None else write_time(one.healthy_since),
        "code": one.code,
        "message": one.message,
        "url": one.url,
        "stagedBytes": one.staged_bytes,
        "sizeBytes": one.size_bytes,
    }


def _read_entry(item: Fields) -> EntryReport:
    health = item.text("health")
    if health not in HEALTHS:
        raise Malformed(f"health is {health[:40]!r}", where=item.where)
    return EntryReport(
        kind=item.text("kind"),
        name=item.text("name", most=253),
        version=item.text("version", "", most=253),
        digest=item.digest("entryDigest", ""),
        wanted=item.digest("wanted", ""),
        health=health,
        healthy_since=item.time("healthySince") if item.text("healthySince", "") else None,
        code=item.text("code", ""),
        message=item.text("message", ""),
        url=item.text("url", ""),
        staged_bytes=item.integer("stagedBytes", 0),
        size_bytes=item.integer("sizeBytes", 0),
        failed=item.flag("failed", False),
        since=item.time("since") if item.text("since", "") else None,
    )


def _event(one: Event) -> dict[str, Any]:
    return {
        "number": one.number,
        "at": write_time(one.at),
        "kind": one.kind,
        "object": one.object,
        "version": one.version,
        "code": one.code,
        "message": one.message,
        "count": one.count,
    }


def _read_event(item: Fields) -> Event:
    return Event(
        number=item.integer("number"),
        at=item.time("at"),
        kind=item.text("kind", most=64),
        object=item.text("object", ""),
        version=item.text("version", ""),
        code=item.text("code", ""),
        message=item.text("message", ""),
        count=item.integer("count", 1),
    )


def _digests(texts: tuple[str, ...], where: str) -> tuple[str, ...]:
    wrong = next((one for one in texts if not is_digest(one)), None)
    if wrong is not None:
        raise Malformed(f"artifacts: not a sha256 digest: {wrong[:80]!r}", where=where)
    return texts


def _required(top: Fields, name: str, read: Any) -> Any:
    value = top.one(name, read)
    if value is None:
        raise Malformed(f"{name} is missing", where=top.where)
    return value
