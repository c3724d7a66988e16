"""When to report: at once when something that matters changed, later for wording and progress, and at a slow beat."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from agent import outbox
from agent.clock import Instant
from agent.courier import Courier, Letter
from agent.own_facts import OwnFacts
from agent.reconcile import Scene, Site, standing
from agent.report import entry_reports, in_full, what_matters
from agent.state import State
from agent.steps import Happening
from agent.wire.errors import EdgeferryError
from agent.wire.facts import Fact
from agent.wire.release import FORMATS
from agent.wire.report import Report, encode_report

DETAIL_MS: Final = 10_000
"""New wording and progress alone are told so often at most."""

FACTS_MS: Final = 3_600_000
CONTACT_MS: Final = 600_000
_NUMBERS: Final = 256


@dataclass(slots=True)
class Voice:
    """What was said last.

    Attributes:
        beat_ms: a report is sent so often even when nothing changed; 0 for never.
        version: of this agent.
        acknowledges: somebody tells which events have arrived; else the newest are always sent along.
        arrived: the newest report that the hub has acknowledged; None for none by this process.
    """

    beat_ms: int
    version: str
    acknowledges: bool = True
    scene: Scene | None = None
    told: bool = False
    last: Report | None = None
    last_ms: int = 0
    last_event: int = 0
    arrived: Report | None = None
    kept: Report | None = None
    kept_ms: int = 0
    facts: tuple[Fact, ...] = ()
    facts_ms: int = 0
    own: OwnFacts | None = None
    number: int = 0
    number_end: int = 0


def speak(site: Site, voice: Voice, courier: Courier, instant: Instant) -> None:
    """Forget what has arrived, keep how it stands for ``status``, and send a report where one is due.

    Raises:
        StateNotWritten: how it stands could not be kept.
    """
    for letter in courier.delivered() if voice.acknowledges else ():
        outbox.acknowledged(site.state, letter.events)
        voice.arrived = letter.report
    scene = site.calm
    if (
        scene is not None
        and scene is voice.scene
        and voice.told
        and site.fault is None
        and instant.uptime_ms - voice.last_ms < (voice.beat_ms or instant.uptime_ms)
        and instant.uptime_ms - voice.facts_ms < FACTS_MS
        and not (voice.own is not None and voice.own.changed())
    ):
        return
    report = _report(site, voice, instant)
    _keep(site.state, voice, report, instant)
    events = outbox.pending(site.state, newest=not voice.acknowledges)
    voice.scene, voice.told = scene, in_full(report) == in_full(voice.last) if voice.last else False
    since_ms = instant.uptime_ms - voice.last_ms
    due = (
        voice.last is None
        or what_matters(report) != what_matters(voice.last)
        or (events and events[-1].number > voice.last_event)
        or (since_ms >= DETAIL_MS and in_full(report) != in_full(voice.last))
        or (voice.beat_ms and since_ms >= voice.beat_ms)
        or (events and voice.acknowledges and courier.idle)
    )
    if not due:
        return
    if events:
        outbox.offered(site.state, events[-1].number)
        voice.last_event = events[-1].number
    whole = replace(report, number=_number(site.state, voice), sent_at=instant.now, events=events)
    courier.take(Letter(whole, voice.arrived))
    voice.last, voice.last_ms = report, instant.uptime_ms


def kept_report(state: State) -> bytes:
    """Return how it stood last, as a report without a number; empty while nothing was ever kept."""
    return state.setting("standing").encode()


def next_number(state: State) -> int:
    """Return a number for a report that an agent's own process does not send: above all that it has taken."""
    number = int(state.setting("reports") or 0) + 1
    state.set(reports=str(number))
    return number


def _report(site: Site, voice: Voice, instant: Instant) -> Report:
    force = site.force
    fault = site.fault or force.fault or site.orders.fault or site.late
    _measure(site, voice, instant)
    return Report(
        fleet=site.config.fleet,
        cluster=site.config.cluster,
        incarnation=site.state.incarnation,
        number=0,
        sent_at=instant.now,
        sequence=force.release.sequence if force.release is not None else 0,
        content=force.release.content if force.release is not None else "",
        trust=force.trust.number,
        agent=voice.version,
        reads=tuple(map(str, FORMATS)),
        fault_code=fault.code if fault is not None else "",
        fault=str(fault)[:1000] if fault is not None else "",
        ignored=force.ignored,
        entries=entry_reports(standing(site)),
        facts=voice.facts,
        source_revision=force.release.source_revision if force.release is not None else {},
        artifacts=tuple(
            sorted({one.digest for staged in site.staging.staged.values() for one in staged.entry.artifacts})
        ),
    )


def _measure(site: Site, voice: Voice, instant: Instant) -> None:
    """Measure the facts once an hour, and when the file of the site's own facts changed."""
    own = voice.own = voice.own or OwnFacts.of(site.root, site.config)
    changed = own.changed()
    if voice.facts and instant.uptime_ms - voice.facts_ms < FACTS_MS and not changed:
        return
    try:
        facts = {**own.facts(), **site.platform.facts()}
    except (EdgeferryError, OSError):
        facts = {}
    if changed and own.faults:
        with site.state.transaction() as db:
            told = [Happening("refused", code=one.code, message=one.what) for one in own.faults]
            outbox.record(db, None, told, instant.now)
    if facts or not voice.facts:
        voice.facts = tuple(Fact(name, facts[name], instant.now) for name in sorted(facts))
    voice.facts_ms = instant.uptime_ms


def _keep(state: State, voice: Voice, report: Report, instant: Instant) -> None:
    """Keep how it stands, for ``status`` and for the time when no agent runs; written when it changed."""
    before = voice.kept
    if before is not None:
        hurried = what_matters(before) != what_matters(report)
        if not hurried and (instant.uptime_ms - voice.kept_ms < DETAIL_MS or in_full(before) == in_full(report)):
            return
    state.set(standing=encode_report(replace(in_full(report), sent_at=instant.now)).decode())
    voice.kept, voice.kept_ms = report, instant.uptime_ms


def _number(state: State, voice: Voice) -> int:
    """Return the next number of a report; they are taken from the disk by the hundred, to spare it."""
    if voice.number >= voice.number_end:
        voice.number = int(state.setting("reports") or 0)
        voice.number_end = voice.number + _NUMBERS
        state.set(reports=str(voice.number_end))
    voice.number += 1
    return voice.number
