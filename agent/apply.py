"""Executing a plan: the intent is durable before an action, the result and its events after it.

Two executors take the same plan: ``apply`` does it, ``describe`` says it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent import outbox
from agent.actions import (
    Action,
    Announce,
    Platform,
    Refresh,
    Remove,
    Repair,
    Retire,
    Stage,
    Staged,
    Start,
    Switch,
    Test,
)
from agent.clock import Instant
from agent.journal import EntryState, Key, forget_entry, read_journal, write_entry
from agent.staging import SystemFault
from agent.state import State
from agent.steps import Happening, Plan, Step
from agent.wire.errors import EdgeferryError, Retry, Stop

LONGEST_MS: Final = 60_000
STOPPED_MS: Final = 300_000
_CALM_MS: Final = 120_000


class Book:
    """The journal in memory as on disk, with the events of every change.

    Args:
        state: where it stands.

    Attributes:
        states: every entry's, as it was recorded last.
        said: happenings since somebody took them away, for the log.
        changes: how often something was recorded since the start.
    """

    __slots__ = ("_state", "changes", "said", "states")

    def __init__(self, state: State) -> None:
        self._state = state
        self.states: dict[Key, EntryState] = read_journal(state)
        self.said: list[tuple[Key, Happening]] = []
        self.changes = 0

    def put(self, key: Key, after: EntryState | None, news: Iterable[Happening], instant: Instant) -> None:
        """Record a state, where there is one and it is another, and what happened: both or none.

        Raises:
            StateNotWritten, StateUnreadable: nothing was recorded.
        """
        changed = after is not None and self.states.get(key) != after
        happenings = tuple(news)
        if not changed and not happenings:
            return
        with self._state.transaction() as db:
            if after is not None and changed:
                write_entry(db, after)
            outbox.record(db, key, happenings, instant.now)
        if after is not None:
            self.states[key] = after
        self.said += [(key, one) for one in happenings]
        self.changes += 1

    def forget(self, key: Key, news: Iterable[Happening], instant: Instant) -> None:
        """Record that nothing is left of an entry."""
        happenings = tuple(news)
        with self._state.transaction() as db:
            forget_entry(db, key)
            outbox.record(db, key, happenings, instant.now)
        self.states.pop(key, None)
        self.said += [(key, one) for one in happenings]
        self.changes += 1


@dataclass(frozen=True, slots=True)
class _Pause:
    subject: str
    tries: int
    until_ms: int


@dataclass(slots=True)
class Pace:
    """How soon a step is done again: what fails, or has to be repaired, again and again is tried ever more rarely.

    In memory only: a new agent tries at once.
    """

    _pauses: dict[Key, _Pause] = field(default_factory=dict)

    def holds(self, step: Step, instant: Instant) -> bool:
        """Tell whether the step's time has not come yet. Other actions, or another digest, are another step."""
        pause = self._pauses.get(step.key)
        return pause is not None and pause.subject == _subject(step) and instant.uptime_ms < pause.until_ms

    def wait(self, step: Step, least_ms: int, most_ms: int, instant: Instant) -> None:
        """Do not do the step again before a pause, longer each time."""
        before = self._pauses.get(step.key)
        tries = 0
        if before is not None and before.subject == _subject(step) and instant.uptime_ms - before.until_ms < _CALM_MS:
            tries = before.tries + 1
        pause_ms = min(most_ms, least_ms * 2 ** min(tries, 16))
        until_ms = instant.uptime_ms + pause_ms
        self._pauses[step.key] = _Pause(_subject(step), tries, until_ms)

    def clear(self, key: Key) -> None:
        """The entry moved on."""
        self._pauses.pop(key, None)

    def next_ms(self, instant: Instant) -> int | None:
        """Return in how many milliseconds the next pause ends; None where there is none."""
        ends = [pause.until_ms - instant.uptime_ms for pause in self._pauses.values()]
        return min((end for end in ends if end > 0), default=None)


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a plan.

    Attributes:
        moved: something was done: look again, and plan again.
        faults: key → why its step did not succeed.
        held: keys whose step has to wait for its time.
    """

    moved: bool
    faults: Mapping[Key, EdgeferryError]
    held: frozenset[Key]


def apply(
    plan: Plan, book: Book, platform: Platform, stage: Callable[[Stage], None], pace: Pace, instant: Instant
) -> Applied:
    """Execute the steps in order. A fault of one entry stops no other.

    Args:
        plan: for the situation that was just seen.
        book: the journal.
        platform: executes everything but ``Stage``.
        stage: has an entry's bytes brought, and returns at once.
        pace: what was tried before.
        instant: of the look.

    Raises:
        StateNotWritten, StateUnreadable: the journal cannot be written; nothing is done without it.
    """
    faults: dict[Key, EdgeferryError] = {}
    held: set[Key] = set()
    moved = False
    for step in plan.steps:
        if pace.holds(step, instant):
            held.add(step.key)
            continue
        if step.intent is not None:
            book.put(step.key, step.intent, step.ahead, instant)
        fault = _perform(step.actions, platform, stage)
        if fault is None:
            if step.forget:
                book.forget(step.key, step.news, instant)
            else:
                book.put(step.key, step.done, (*(() if step.intent else step.ahead), *step.news), instant)
            if step.again_later:
                pace.wait(step, 1000, LONGEST_MS, instant)
            else:
                pace.clear(step.key)
            moved = True
            continue
        faults[step.key] = fault
        if isinstance(fault, Stop) and step.candidate:
            fail(book, step.key, step.candidate, fault, instant)
            moved = True
        elif isinstance(fault, Stop):
            pace.wait(step, 5000, STOPPED_MS, instant)
        else:
            least_s = fault.delay_s if isinstance(fault, Retry) else 1.0
            pace.wait(step, int(least_s * 1000), max(LONGEST_MS, int(least_s * 1000)), instant)
    return Applied(moved, faults, frozenset(held))


def fail(book: Book, key: Key, digest: str, fault: EdgeferryError, instant: Instant) -> None:
    """Record that an entry digest failed and is not tried again."""
    state = book.states.get(key) or EntryState(*key)
    news = Happening("failed", code=fault.code, message=str(fault))
    book.put(key, state.with_failure(digest, fault.code, fault.what, instant), (news,), instant)


def describe(action: Action) -> tuple[str, str, str]:
    """Return verb, object and detail of an action, for people. The printing executor."""
    match action:
        case Stage(entry):
            size = sum(one.size_bytes for one in entry.artifacts)
            return "stage", f"{entry.kind}/{entry.name}", f"{entry.version}, {size} bytes at most"
        case Start(staged):
            return "start", _object(staged), f"{staged.entry.version}, beside what serves"
        case Test(staged):
            return "test", _object(staged), staged.entry.version
        case Switch(staged, previous):
            before = f"from {previous.entry.version} " if previous is not None else ""
            return "switch", _object(staged), f"{before}to {staged.entry.version}"
        case Retire(staged):
            return "retire", _object(staged), staged.entry.version
        case Repair(staged, why):
            return "repair", _object(staged), f"{staged.entry.version}: {why}"
        case Remove(kind, name):
            return "remove", f"{kind}/{name}", ""
        case Announce(namespace, points):
            return "announce", namespace, ", ".join(f"{one.name} {one.version}" for one in points)
        case Refresh(staged, how):
            return "refresh", _object(staged), how


def _perform(actions: Iterable[Action], platform: Platform, stage: Callable[[Stage], None]) -> EdgeferryError | None:
    for action in actions:
        try:
            if isinstance(action, Stage):
                stage(action)
            else:
                platform.execute(action)
        except EdgeferryError as error:
            return error
        except OSError as error:
            return SystemFault(error.strerror or str(error), where=str(error.filename or describe(action)[1]))
    return None


def _subject(step: Step) -> str:
    return " ".join((step.subject, *(type(action).__name__ for action in step.actions)))


def _object(staged: Staged) -> str:
    return f"{staged.entry.kind}/{staged.entry.name}"
