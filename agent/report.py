"""What is reported: per entry what runs, what is wanted, and how it is. Pure; agent/courier.py sends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from agent.actions import Observed, Seen
from agent.health import Instance, Since
from agent.journal import EntryState, Key
from agent.staging import Progress
from agent.wire.errors import EdgeferryError
from agent.wire.release import Entry
from agent.wire.report import EntryReport, Health, Report

MOST_MESSAGE: Final = 500
_NEVER_RUNS: Final = frozenset({"EF4060", "EF4061"})
"""This agent, or this kind of site, cannot run it."""
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Standing:
    """All that the entries' part of a report depends on.

    Attributes:
        wanted: what the release asks for.
        observed: what the platform sees; None where it could not look.
        since: since when each instance is as it is.
        faults: key → why it does not come further.
        entries: entry digest → entry, of all that is known.
        progress: entry digest → how far its staging is.
    """

    wanted: Mapping[Key, Entry]
    states: Mapping[Key, EntryState]
    observed: Observed | None
    since: Mapping[Instance, Since] = field(default_factory=dict)
    faults: Mapping[Key, EdgeferryError] = field(default_factory=dict)
    entries: Mapping[str, Entry] = field(default_factory=dict)
    progress: Mapping[str, Progress] = field(default_factory=dict)


def entry_reports(standing: Standing) -> tuple[EntryReport, ...]:
    """Return one line for every entry that is wanted or still there, in order."""
    return tuple(_entry(standing, key) for key in sorted(standing.wanted.keys() | standing.states.keys()))


def what_matters(report: Report) -> Report:
    """Return the report without numbers, times, progress and wording: where two are equal, there is no hurry."""
    return replace(
        in_full(report),
        entries=tuple(replace(one, message="", staged_bytes=0) for one in report.entries),
        fault="",
        artifacts=(),
    )


def in_full(report: Report) -> Report:
    """Return the report without numbers, times of measurement and events: where two are equal, nothing is new."""
    facts = tuple(replace(one, measured_at=_NEVER) for one in report.facts)
    return replace(report, number=0, sent_at=_NEVER, facts=facts, events=())


def _entry(standing: Standing, key: Key) -> EntryReport:
    wanted, state = standing.wanted.get(key), standing.states.get(key) or EntryState(*key)
    seen = _serving(standing.observed, key, state)
    digest = seen.digest if seen is not None else state.serving
    entry = standing.entries.get(digest)
    since = standing.since.get((key, digest))
    fault, progress = standing.faults.get(key), standing.progress.get(wanted.digest if wanted is not None else "")
    if fault is None and progress is not None:
        fault = progress.fault
    code, message = (fault.code, fault.what) if fault is not None else ("", "")
    failure = state.failed.get(wanted.digest) if wanted is not None else None
    if failure is not None:
        code, message = failure.code, failure.message
    health = _health(standing, key, seen, digest, code, failed=failure is not None)
    current = health == "current" and since is not None and since.health == "current"
    size = sum(one.size_bytes for one in wanted.artifacts) if wanted is not None else 0
    return EntryReport(
        kind=key[0],
        name=key[1],
        version=entry.version if entry is not None else wanted.version if wanted is not None and not digest else "",
        digest=digest,
        wanted=wanted.digest if wanted is not None else "",
        health=health,
        healthy_since=since.at if current and since is not None else None,
        code=code,
        message=(message or (seen.message if seen is not None and health != "current" else ""))[:MOST_MESSAGE],
        url=seen.url if seen is not None else "",
        staged_bytes=min(size, progress.bytes_here) if progress is not None else size if _staged(state, wanted) else 0,
        size_bytes=size,
        failed=failure is not None or code in _NEVER_RUNS,
        since=since.at if since is not None and since.health == health else None,
    )


def _serving(observed: Observed | None, key: Key, state: EntryState) -> Seen | None:
    found = [one for one in (observed.seen if observed else ()) if (one.kind, one.name) == key and one.serving]
    return next((one for one in found if one.digest == state.serving), found[0] if found else None)


def _health(standing: Standing, key: Key, seen: Seen | None, digest: str, code: str, *, failed: bool) -> Health:
    """Return the health of what runs; of what is wanted where nothing runs."""
    if standing.observed is None:
        return "unknown"
    if seen is not None:
        return seen.health
    if digest:
        return "degraded"
    return "degraded" if failed or code in _NEVER_RUNS else "progressing"


def _staged(state: EntryState, wanted: Entry | None) -> bool:
    return wanted is not None and wanted.digest in state.digests
