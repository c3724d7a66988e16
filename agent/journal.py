"""The journal: for each entry what serves, what is on its way, and how to get back. Intent before, result after."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from agent.clock import Instant
from agent.state import State, StateUnreadable
from agent.wire.canonical import canonical
from agent.wire.errors import Malformed
from agent.wire.fields import Fields, write_time

Key = tuple[str, str]
"""Kind and name of an entry."""

Phase = Literal["idle", "starting", "testing", "switching", "probation", "returning", "removing"]
PHASES: Final[tuple[Phase, ...]] = ("idle", "starting", "testing", "switching", "probation", "returning", "removing")
UNCOMMITTED: Final = frozenset[Phase]({"starting", "testing", "switching", "probation"})

FAILURES_KEPT: Final = 16
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an entry digest is not tried again."""

    code: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class EntryState:
    """Where one entry stands. All digests are entry digests; empty for none.

    Attributes:
        running: the last one that was committed: the way back.
        serving: the one that was switched to; another than ``running`` only until it is committed.
        previous: the one that was committed before ``running``; kept on disk.
        target: the candidate, from ``starting`` to ``probation``.
        phase: ``starting``: the candidate is to be started; ``testing``: it was, and is to become ready and be tested;
            ``switching``: it may serve already; ``probation``: it serves, the way back is open; ``returning``: back to
            ``running``; ``removing``: half of it may be gone.
        since: begin of the phase, for people.
        since_ms: the same in milliseconds since boot ``boot``, for deadlines.
        boots: how often the site booted before the candidate was committed.
        tested: the candidate passed the self-test since it was started.
        revived: what a reboot ended was started again; while returning: the old one was started.
        failed: entry digest → why it is not tried again; the newest few.
        saw: model → entry digest that this workload was last told of.
    """

    kind: str
    name: str
    running: str = ""
    serving: str = ""
    previous: str = ""
    target: str = ""
    phase: Phase = "idle"
    since: datetime = _NEVER
    since_ms: int = 0
    boot: str = ""
    boots: int = 0
    tested: bool = False
    revived: bool = True
    failed: Mapping[str, Failure] = field(default_factory=dict)
    saw: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Kind and name."""
        return self.kind, self.name

    @property
    def digests(self) -> frozenset[str]:
        """Every entry digest that must stay on disk for this entry."""
        return frozenset({self.running, self.serving, self.previous, self.target}) - {""}

    def elapsed_ms(self, instant: Instant) -> int:
        """Return how long the phase has lasted within this boot."""
        return max(0, instant.uptime_ms - self.since_ms) if self.boot == instant.boot else 0

    def enter(self, phase: Phase, instant: Instant, **changes: Any) -> EntryState:
        """Return the state at the beginning of a phase."""
        return replace(self, phase=phase, since=instant.now, since_ms=instant.uptime_ms, boot=instant.boot, **changes)

    def with_failure(self, digest: str, code: str, message: str, instant: Instant) -> EntryState:
        """Return the state with a digest that is not tried again; the oldest failures beyond the bound go."""
        failed = {key: one for key, one in self.failed.items() if key != digest}
        failed[digest] = Failure(code, message[:500], instant.now)
        newest = sorted(failed.items(), key=lambda item: (item[1].at, item[0] == digest, item[0]))[-FAILURES_KEPT:]
        return replace(self, failed=dict(newest))


def after_boot(state: EntryState, instant: Instant) -> EntryState:
    """Return the state as this boot finds it: what was not committed is checked again, and the boot is counted.

    A reboot is never by itself a failure. Within one boot the state comes back as it is.
    """
    if state.boot == instant.boot or state.phase == "idle":
        return state
    phase: Phase = "starting" if state.phase == "testing" else state.phase
    boots = state.boots + (state.phase in UNCOMMITTED)
    return state.enter(phase, instant, boots=boots, tested=False, revived=False)


def read_journal(state: State) -> dict[Key, EntryState]:
    """Return every entry's state.

    Raises:
        StateUnreadable: a row is not what it should be.
    """
    found: dict[Key, EntryState] = {}
    for kind, name, text in state.rows("SELECT kind, name, state FROM journal ORDER BY kind, name"):
        where = f"journal {kind}/{name}"
        try:
            found[(str(kind), str(name))] = _read(str(kind), str(name), Fields.parse(str(text).encode(), where))
        except Malformed as error:
            raise StateUnreadable(str(error), where=where, do="move the state database away") from None
    return found


def write_entry(db: sqlite3.Connection, state: EntryState) -> None:
    """Record one entry's state; the caller's transaction makes it durable."""
    values: dict[str, Any] = {
        "running": state.running,
        "serving": state.serving,
        "previous": state.previous,
        "target": state.target,
        "phase": state.phase,
        "since": write_time(state.since),
        "sinceMs": state.since_ms,
        "boot": state.boot,
        "boots": state.boots,
        "tested": state.tested,
        "revived": state.revived,
        "failed": {
            digest: {"code": one.code, "message": one.message, "at": write_time(one.at)}
            for digest, one in state.failed.items()
        },
        "saw": dict(state.saw),
    }
    text = canonical(values).decode()
    db.execute("INSERT OR REPLACE INTO journal VALUES (?, ?, ?)", (state.kind, state.name, text))


def forget_entry(db: sqlite3.Connection, key: Key) -> None:
    """Forget an entry of which nothing is left."""
    db.execute("DELETE FROM journal WHERE kind = ? AND name = ?", key)


def forget_failures(state: State) -> int:
    """Have failed entry digests tried again; return how many there were."""
    forgotten = 0
    with state.transaction() as db:
        for one in read_journal(state).values():
            if one.failed:
                forgotten += len(one.failed)
                write_entry(db, replace(one, failed={}))
    return forgotten


def kept_digests(states: Iterable[EntryState]) -> frozenset[str]:
    """Return the entry digests that the journal may still need."""
    return frozenset().union(*(one.digests for one in states))


def _read(kind: str, name: str, item: Fields) -> EntryState:
    phase = item.text("phase")
    if phase not in PHASES:
        raise Malformed(f"phase is {phase[:40]!r}", where=item.where)
    failed = item.one("failed", lambda all_: all_.every(_read_failure))
    return EntryState(
        kind=kind,
        name=name,
        running=item.text("running"),
        serving=item.text("serving"),
        previous=item.text("previous"),
        target=item.text("target"),
        phase=phase,
        since=item.time("since"),
        since_ms=item.integer("sinceMs"),
        boot=item.text("boot"),
        boots=item.integer("boots"),
        tested=item.flag("tested"),
        revived=item.flag("revived"),
        failed=failed or {},
        saw=item.mapping("saw"),
    )


def _read_failure(item: Fields) -> Failure:
    return Failure(item.text("code"), item.text("message"), item.time("at"))
