"""One cycle: take what came, look, plan, apply until there is nothing left to do now, and say how it is.

Every step's fault is written down in one place, whatever happened, and stops no other entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from agent import force, health
from agent.actions import ContentChanged, Observed, Platform, Stage
from agent.apply import Book, Pace, apply, fail
from agent.clock import Clock, Instant
from agent.config import Config
from agent.entries import drop_entries, read_entry
from agent.fetch import Received
from agent.force import Force
from agent.health import Since
from agent.journal import Key, after_boot, kept_digests
from agent.observe import observe
from agent.offline import OfflineTooLong, offline_too_long, stopped
from agent.orders import Orders, OrdersFile
from agent.plan import plan
from agent.report import Standing
from agent.signed_models import signature_fault
from agent.staging import Bytes, Staging, SystemFault
from agent.state import State
from agent.steps import Plan, Situation, WaitsForWindow
from agent.wire.canonical import canonical
from agent.wire.errors import EdgeferryError, Retry, Stop, Wait
from agent.wire.release import REQUIRES, Entry

ROUNDS: Final = 16
"""Look, plan, apply so often in one cycle at most: an entry needs seven from nothing to its probation."""

SOON_MS: Final = 150
PROBATION_MS: Final = 500


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a plan depends on while every entry is idle: the same scene has the same plan, whatever the time."""

    observed: Observed
    force: Force
    changes: int
    underway: frozenset[str]
    staged: int
    orders: Orders
    late: bool


@dataclass(slots=True)
class Site:
    """Everything of one agent that outlives a cycle.

    Attributes:
        root: the state directory.
        key: fingerprint of the agent's key.
        pending: an overlay that could not be kept yet.
        observed: at the end of the last cycle; None while the platform cannot look.
        faults: key → why the entry does not come further.
        fault: what keeps the whole cycle from its work; None for nothing.
        entries: entry digest → entry, of all that is wanted or may be needed.
        refused: entry digest → why the platform cannot do it; empty where it can.
        untrusted: entry digest → why its model's signature does not let it be switched to.
        kept: entry digests that were left when everything else was removed last.
        began_ms: uptime when this agent began.
        calm: what the last cycle saw where it found nothing to do, nor anything to wait for; None else.
        late: nothing was heard for longer than the release allows; None where it may go on.
    """

    root: Path
    config: Config
    key: str
    state: State
    clock: Clock
    platform: Platform
    staging: Staging
    book: Book
    force: Force
    since: dict[health.Instance, Since]
    orders: OrdersFile
    began_ms: int
    pace: Pace = field(default_factory=Pace)
    pending: Received | None = None
    observed: Observed | None = None
    faults: dict[Key, EdgeferryError] = field(default_factory=dict)
    fault: EdgeferryError | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    untrusted: dict[str, EdgeferryError] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    calm: Scene | None = None
    late: OfflineTooLong | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a cycle ended.

    Attributes:
        next_ms: look again after so long at the latest.
        plan: the last one; without steps where all was done.
        settled: nothing is on its way, and nothing waits for its time.
    """

    next_ms: int
    plan: Plan
    settled: bool


def open_site(
    root: Path,
    config: Config,
    key: str,
    state: State,
    platform: Platform,
    store: Bytes,
    wake: Callable[[], None],
    instant: Instant,
) -> Site:
    """Return the site as the last agent left it; nothing is written."""
    site = Site(
        root,
        config,
        key,
        state,
        Clock(state),
        platform,
        Staging(store, wake),
        Book(state),
        force.in_force(root, state),
        health.kept(state, instant),
        OrdersFile(root),
        instant.uptime_ms,
    )
    _know(site)
    return site


def cycle(site: Site, received: Received | None, instant: Instant) -> Outcome:
    """Do one cycle and return when the next one is due. It raises nothing but bugs."""
    last, unfinished, bringing = Plan(), False, False
    try:
        for key, state in list(site.book.states.items()):
            site.book.put(key, after_boot(state, instant), (), instant)
        _take(site, received, instant)
        site.late = None if received is not None else offline_too_long(site.state, site.force.release, instant)
        _staged(site, instant)
        for number in range(ROUNDS):
            site.observed = observe(site.platform, site.book.states.values(), site.staging.staged)
            scene = _scene(site)
            if number == 0 and site.calm is not None and _same(site.calm, scene):
                return Outcome(int(site.config.look_s * 1000), last, settled=not scene.underway)
            site.since = health.fold(site.since, site.observed, instant)
            now = situation(site, site.observed, instant)
            last, bringing = plan(now), bool(now.staging)
            applied = apply(last, site.book, site.platform, lambda action: _want(site, action), site.pace, instant)
            _remember(site, last, applied.faults, applied.held)
            _doubt(site, applied.faults)
            unfinished = applied.moved
            if not unfinished:
                break
            _staged(site, instant)
        health.keep(site.state, site.since, instant)
        _tidy(site, last)
        site.fault = None
        idle = all(state.phase == "idle" for state in site.book.states.values())
        coming = any(one.health == "progressing" for one in scene.observed.seen)
        timed = any(isinstance(wait.fault, WaitsForWindow) for wait in last.waits)
        calm = idle and not coming and not timed and not last.steps and site.pending is None
        site.calm = scene if calm else None
    except EdgeferryError as error:
        site.fault, site.observed, site.calm = error, None, None
    except OSError as error:
        site.fault = SystemFault(error.strerror or str(error), where=str(error.filename or site.root))
        site.observed, site.calm = None, None
    return _outcome(site, last, instant, unfinished=unfinished, bringing=bringing)


def situation(site: Site, observed: Observed, instant: Instant) -> Situation:
    """Return all that the plan depends on."""
    wanted = site.force.release.entries if site.force.release is not None else ()
    desired, orders, release = site.force.desired, site.orders.read(), site.force.release
    if site.late is not None and release is not None and release.max_offline is not None:
        desired = stopped(desired, release.max_offline)
        orders = Orders() if release.max_offline.action == "stop" else orders
    return Situation(
        desired=desired,
        states=site.book.states,
        observed=observed,
        staged=site.staging.staged,
        instant=instant,
        staging=site.staging.underway,
        entries=site.entries,
        refused={(one.kind, one.name): site.refused[one.digest] for one in wanted if site.refused.get(one.digest)},
        requires=REQUIRES,
        untrusted=site.untrusted,
        stretches=health.stretches(site.since, instant),
        start_deadline_ms=int(site.config.start_deadline_s * 1000),
        probation_ms=int(site.config.probation_s * 1000),
        orders=orders,
        watched_ms=instant.uptime_ms - site.began_ms,
    )


def standing(site: Site) -> Standing:
    """Return what the entries' part of a report depends on."""
    desired = site.force.desired
    entries = desired.entries if desired and not desired.retire else ()
    wanted: dict[Key, Entry] = {(one.kind, one.name): one for one in entries}
    progress = {one.digest: found for one in wanted.values() if (found := site.staging.progress(one.digest))}
    return Standing(wanted, site.book.states, site.observed, site.since, site.faults, site.entries, progress)


def _take(site: Site, received: Received | None, instant: Instant) -> None:
    """Put what came into force; a refused overlay changes nothing, and is said."""
    site.pending = received or site.pending
    if site.pending is None:
        return
    try:
        site.force = force.take(
            site.pending, site.force, site.config, site.key, site.root, site.state, site.clock, instant
        )
    except Stop as fault:
        site.force = replace(site.force, fault=fault)
        site.pending = None
    except (Retry, Wait) as fault:
        site.force = replace(site.force, fault=fault)
    else:
        site.pending = None
        _know(site)
        _retry(site, instant)


def _retry(site: Site, instant: Instant) -> None:
    """Have tried again what failed, once for each order; one that was carried out before is remembered."""
    orders = site.force.release.retries if site.force.release is not None else {}
    done = canonical(dict(orders)).decode() if orders else ""
    known = site.state.setting("retries")
    if done == known:
        return
    before = json.loads(known) if known else {}
    for (kind, name), state in list(site.book.states.items()):
        order = orders.get(f"{kind}/{name}", "")
        if order and order != before.get(f"{kind}/{name}") and state.failed:
            site.book.put((kind, name), replace(state, failed={}), (), instant)
    site.state.set(retries=done)


def _know(site: Site) -> None:
    """Have every entry at hand that is wanted or may still be needed, and take up what is staged already."""
    wanted = {one.digest: one for one in (site.force.release.entries if site.force.release else ())}
    site.refused = {digest: site.platform.refuses(one) for digest, one in wanted.items()}
    needed = kept_digests(site.book.states.values()) | wanted.keys()
    site.entries = {digest: one for digest, one in site.entries.items() if digest in needed}
    site.untrusted = {}
    for digest in sorted(needed):
        found = read_entry(site.root, digest)
        if found is None:
            if digest in wanted:
                site.force = replace(site.force, revision="")
            continue
        site.entries[digest] = found[0]
        untrusted = signature_fault(*found, site.force.trust)
        if untrusted is not None:
            site.untrusted[digest] = untrusted
        if not site.refused.get(digest):
            site.staging.look(*found)


def _scene(site: Site) -> Scene:
    assert site.observed is not None
    staging = site.staging
    return Scene(
        site.observed,
        site.force,
        site.book.changes,
        staging.underway,
        staging.completed,
        site.orders.read(),
        site.late is not None,
    )


def _same(one: Scene, other: Scene) -> bool:
    # The release is compared by identity: it is another object only when another overlay was taken.
    return (
        one.force is other.force
        and one.changes == other.changes
        and one.staged == other.staged
        and one.underway == other.underway
        and one.orders is other.orders
        and one.late == other.late
        and one.observed == other.observed
    )


def _want(site: Site, action: Stage) -> None:
    found = read_entry(site.root, action.entry.digest)
    if found is not None:
        site.staging.want(*found)


def _staged(site: Site, instant: Instant) -> None:
    """Write down what could not be staged, ever; the old version stays."""
    for digest, fault in site.staging.failures():
        entry = site.entries.get(digest)
        if entry is None:
            continue
        key = (entry.kind, entry.name)
        state = site.book.states.get(key)
        site.faults[key] = fault
        if state is None or digest not in (state.running, state.serving):
            fail(site.book, key, digest, fault, instant)


def _doubt(site: Site, faults: Mapping[Key, EdgeferryError]) -> None:
    """Have bytes read again that a platform found changed; the next plan has them brought where they are wrong."""
    for fault in faults.values():
        if isinstance(fault, ContentChanged):
            site.staging.doubt(fault.entry)


def _remember(site: Site, last: Plan, faults: Mapping[Key, EdgeferryError], held: Collection[Key]) -> None:
    """Keep, per entry, why it does not come further; what moved on has no fault any more."""
    waits = {wait.key: wait.fault for wait in last.waits if wait.fault is not None}
    still = {key: site.faults[key] for key in held if key in site.faults}
    site.faults = {**waits, **still, **faults}


def _tidy(site: Site, last: Plan) -> None:
    """Remove what nothing needs any more; never what runs, what ran before, or what is wanted."""
    wanted = {one.digest for one in (site.force.release.entries if site.force.release else ())}
    needed = kept_digests(site.book.states.values()) | wanted
    if last.steps or needed == site.kept or site.force.release is None:
        return
    drop_entries(site.root, needed)
    site.entries = {digest: one for digest, one in site.entries.items() if digest in needed}
    site.staging.keep(site.entries)
    site.kept = needed


def _outcome(site: Site, last: Plan, instant: Instant, *, unfinished: bool, bringing: bool) -> Outcome:
    due = [int(site.config.look_s * 1000)]
    deadline_ms = site.config.start_deadline_s * 1000
    coming = any(
        one.health == "progressing" and instant.uptime_ms - one.at_ms < deadline_ms for one in site.since.values()
    )
    if site.fault is not None:
        due = [int((site.fault.delay_s if isinstance(site.fault, Retry) else site.config.look_s) * 1000)]
    elif last.soon:
        phases = {state.phase for state in site.book.states.values()}
        due.append(SOON_MS if phases & {"starting", "testing", "switching", "returning"} else PROBATION_MS)
    elif coming:
        due.append(PROBATION_MS)
    elif unfinished or site.pending is not None:
        due.append(SOON_MS)
    paused = site.pace.next_ms(instant)
    if paused is not None:
        due.append(max(SOON_MS, paused))
    settled = site.fault is None and not last.soon and not coming and not bringing and not last.steps
    return Outcome(min(due), last, settled)
