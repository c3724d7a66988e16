"""A decision → who moves now: waves, budgets, soak, and the way back. Pure.

Deciding says where an entry belongs; this says who gets it in this step. It is driven by what clusters report and by
the time, and all that it must remember stands in ``RolloutState``.

Source: waves and minimum success after Open Cluster Management and Argo Rollouts; silence as a failure only after the
start, against Rancher Fleet and hawkBit (docs/adr/0011-rollouts.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from placement.progress import judge, waits_for_window
from placement.rollout_types import LATE, Advanced, Field, Place, RolloutState

LOOK_S: Final = 60
"""While somebody is silent, look so often whether it is back: being heard of alone wakes nobody."""


@dataclass(slots=True)
class _Work:
    """One step under way.

    Attributes:
        places: of started clusters, and of waiting ones with an older way back.
        waiting: clusters that are to change and were not started, in the order of their names.
        silent, shut: of those, who is not heard of, and whose window is closed.
    """

    scene: Field
    state: RolloutState
    places: dict[str, Place] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    silent: frozenset[str] = frozenset()
    shut: frozenset[str] = frozenset()
    due: list[datetime] = field(default_factory=list)

    def in_wave(self, wave: int, *steps: str) -> list[str]:
        return [c for c, p in self.places.items() if p.wave == wave and p.step in steps]

    def moving(self) -> int:
        return sum(p.step == "moving" for p in self.places.values())


def advance(scene: Field, before: RolloutState | None) -> Advanced:
    """Return the rollout's next state and what every chosen cluster is to have now.

    The same scene and state give the same result. Never more than the budget is in flight, a wave ends only with
    enough successes, and what is given is the new target, what is published, or what was published before.

    Args:
        scene: the decision, what is published, what clusters said, and the time.
        before: as the last step left it; None before the first rollout of this placement.
    """
    work = _Work(scene, _targeted(scene, before))
    _judge(work)
    _obey(work)
    if work.state.phase in ("rolling", "complete"):
        _check_failures(work)
    if work.state.phase == "rolling":
        _roll(work)
    if work.state.phase == "complete":
        _late_joiners(work)
    state = replace(work.state, places=work.places)
    essential = before is None or not _as_kept(before, state)
    if before is not None and not essential and before.places == state.places:
        state = before
    return Advanced(state, _give(work), min(work.due, default=None), essential)


def wave_size(scene: Field, state: RolloutState, wave: int) -> int:
    """Return how many clusters belong to a wave, for people."""
    work = _Work(scene, state, dict(state.places))
    _line_up(work)
    placed = len(work.in_wave(wave, "moving", "done", "failed"))
    return placed + len(_members(work, wave, placed)) if wave == state.wave else placed


def _targeted(scene: Field, before: RolloutState | None) -> RolloutState:
    """Return the state with a new rollout begun where the placement resolves to what it did not know."""
    wanted = frozenset(scene.want.values())
    if before is None:
        return RolloutState(1, "rolling", wanted, scene.now, scene.now)
    retried = before.number in scene.orders.retried and before.phase in ("reverted", "paused")
    if not retried and wanted <= before.targets:
        held = before.held & wanted
        return before if held == before.held else replace(before, held=held)
    places = {}
    if before.phase != "complete":
        # Whatever was not proven is no way back: it stays what it was before the first unproven target.
        places = {
            name: Place(LATE, "waiting", one.previous, "", scene.now, scene.now)
            for name, one in before.places.items()
            if name in scene.want and one.previous != scene.has.get(name, "")
        }
    held = frozenset[str]() if retried else before.held & wanted
    return RolloutState(before.number + 1, "rolling", wanted, scene.now, scene.now, places=places, held=held)


def _judge(work: _Work) -> None:
    """Look at every started cluster; put back who was started and may not switch before its next window."""
    scene, state = work.scene, work.state
    budget = scene.policy.max_concurrent or next((w.max_concurrent for w in scene.policy.waves), None)
    for name, place in state.places.items():
        want = scene.want.get(name)
        if want is None:
            continue
        if place.step == "waiting" or place.target != want:
            if scene.has.get(name, "") != want or place.step != "waiting":
                work.places[name] = replace(place, step="waiting", wave=LATE, target="", mark="")
            continue
        if place.step == "failed" or state.phase == "reverted":
            work.places[name] = place
            continue
        found, due = judge(place, name, scene)
        if budget is not None and state.phase != "paused" and waits_for_window(found, name, scene):
            told = scene.told.get(name)
            if told is not None and told.received_at >= place.at:
                found = replace(found, step="waiting", wave=LATE, target="", mark="")
        work.places[name] = found
        if due is not None:
            work.due.append(due)


def _obey(work: _Work) -> None:
    """Do what people ordered for this rollout."""
    scene, state = work.scene, work.state
    if state.number in scene.orders.aborted and state.phase in ("rolling", "paused"):
        _revert(work, "aborted")
        return
    resumed = scene.orders.resumed.get(state.number)
    if state.phase == "paused" and resumed is not None and resumed > state.since:
        failed = frozenset(name for name, one in work.places.items() if one.step == "failed")
        over = state.wave >= len(scene.policy.waves)
        work.state = replace(
            state, phase="complete" if over else "rolling", since=scene.now, excused=state.excused | failed, why=""
        )


def _check_failures(work: _Work) -> None:
    """Stop where a wave has more failures than it may."""
    scene, state, policy = work.scene, work.state, work.scene.policy
    failed: dict[int, list[str]] = {}
    for name, one in work.places.items():
        if one.step == "failed" and name not in state.excused:
            failed.setdefault(one.wave, []).append(name)
    if not failed:
        return
    _line_up(work)
    for wave in sorted(failed):
        if wave >= len(policy.waves) or (state.phase == "complete" and wave != LATE):
            continue
        placed = len(work.in_wave(wave, "moving", "done", "failed"))
        size = placed
        if wave == LATE:
            size += len(work.waiting) if state.phase == "complete" else 0
        elif wave == state.wave:
            size += len(_members(work, wave, placed))
        names = sorted(failed[wave])
        if len(names) <= policy.failures(wave, size):
            continue
        label = "the standing wave" if wave == LATE else f"wave {policy.waves[wave].name}"
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        why = f"{len(names)} of {size} failed in {label}: {', '.join(names[:3])}{more} ({work.places[names[0]].why})"
        if wave == LATE or policy.on_failure == "pause":
            work.state = replace(state, phase="paused", since=scene.now, why=why)
        else:
            _revert(work, why)
        return


def _revert(work: _Work, why: str) -> None:
    state = work.state
    work.state = replace(state, phase="reverted", since=work.scene.now, held=state.held | state.targets, why=why)


def _line_up(work: _Work) -> None:
    """Find who is still to be started, and who of them is silent or waits for a window."""
    scene = work.scene
    want, has, held, places = scene.want, scene.has, work.state.held, work.places
    work.waiting = sorted(
        name
        for name, digest in want.items()
        if has.get(name) != digest and digest not in held and (name not in places or places[name].step == "waiting")
    )
    limit = scene.now - timedelta(seconds=scene.offline_after_s)
    seen = scene.seen
    work.silent = frozenset(
        name for name in work.waiting if name not in scene.carried and (name not in seen or seen[name] < limit)
    )
    work.shut = frozenset(name for name in work.waiting if name in scene.hours and not scene.hours[name].open)


def _members(work: _Work, wave: int, placed: int) -> list[str]:
    """Return the clusters of a wave that were not started, without those that are deferred for now."""
    scene = work.scene
    out = work.silent | scene.carried | scene.halted
    free = [name for name in work.waiting if name not in out]
    mine = scene.members[wave]
    if mine is not None:
        return [name for name in free if name in mine]
    whole = len(scene.want) - sum(name in out for name in work.waiting)
    percent = scene.policy.waves[wave].percent or 100
    quota = -(-whole * percent // 100) - (whole - len(free) - placed)
    later = [one for one in scene.members[wave + 1 :] if one is not None]
    kept = [name for name in free if not any(name in one for one in later)] if later else free
    return kept[: max(0, quota - placed)]


def _roll(work: _Work) -> None:
    """Start who may start, and go on to the next wave as often as one is done."""
    scene, policy = work.scene, work.scene.policy
    _line_up(work)
    if work.silent:
        work.due.append(scene.now + timedelta(seconds=LOOK_S))
    while work.state.phase == "rolling":
        wave = work.state.wave
        if wave >= len(policy.waves):
            work.places = {n: one for n, one in work.places.items() if one.step in ("failed", "moving", "carried")}
            work.state = replace(work.state, phase="complete", since=scene.now)
            return
        placed = len(work.in_wave(wave, "moving", "done", "failed"))
        members = _members(work, wave, placed)
        if not placed and members and policy.asks(wave) and (work.state.number, wave) not in scene.orders.approved:
            return
        size = placed + len(members)
        _start(work, wave, members, policy.concurrent(wave, size))
        if not _is_over(work, wave, size):
            return
        work.state = replace(work.state, wave=wave + 1, since=scene.now)
        _carry(work, wave)


def _is_over(work: _Work, wave: int, size: int) -> bool:
    """Tell whether a wave has no one left to wait for, and enough successes."""
    policy, scene = work.scene.policy, work.scene
    done, failed = len(work.in_wave(wave, "done")), len(work.in_wave(wave, "failed"))
    if done + failed < size:
        return False
    if size:
        return done + len(work.state.excused & work.places.keys()) >= policy.successes(wave, size)
    mine = scene.members[wave]
    absent = [n for n in work.waiting if n in work.silent and (mine is None or n in mine)]
    proven = any(one.step == "done" for one in work.places.values())
    return not absent or (proven and policy.waves[wave].min_success is None)


def _start(work: _Work, wave: int, members: Iterable[str], budget: int) -> None:
    """Give the target to as many as the budget leaves room for."""
    scene = work.scene
    if scene.orders.halted:
        return
    amount = scene.policy.max_concurrent if wave == LATE else scene.policy.waves[wave].max_concurrent
    limited = (amount or scene.policy.max_concurrent) is not None
    room = budget - work.moving()
    for name in members:
        hours = scene.hours.get(name)
        if limited and room <= 0:
            break
        if limited and hours is not None and not hours.open:
            if hours.until is not None:
                work.due.append(hours.until)
            continue  # it would hold a place, or break the budget when all windows open at once
        known = work.places.get(name)
        previous = scene.has.get(name, "") if known is None else known.previous
        work.places[name] = Place(wave, "moving", previous, scene.want[name], scene.now, scene.now)
        work.due.append(scene.now + timedelta(seconds=scene.policy.progress_deadline_s))
        room -= 1
    started = {name for name in work.places if work.places[name].step != "waiting"}
    work.waiting = [name for name in work.waiting if name not in started]


def _carry(work: _Work, wave: int) -> None:
    """Give the target to the clusters that are reached by hand once their wave has shown that it works."""
    scene = work.scene
    last = wave == len(scene.policy.waves) - 1
    mine = scene.members[wave]
    for name in list(work.waiting):
        if name in scene.carried and name not in scene.halted and (last or (mine is not None and name in mine)):
            previous = scene.has.get(name, "")
            work.places[name] = Place(LATE, "carried", previous, scene.want[name], scene.now, scene.now)
            work.waiting.remove(name)


def _late_joiners(work: _Work) -> None:
    """Bring who came back, or is new, under the same budget."""
    scene = work.scene
    _line_up(work)
    if work.silent:
        work.due.append(scene.now + timedelta(seconds=LOOK_S))
    if work.waiting and not scene.orders.halted:
        _carry(work, len(scene.policy.waves) - 1)
    out = work.silent | scene.carried | scene.halted
    members = [name for name in work.waiting if name not in out]
    placed = len(work.in_wave(LATE, "moving", "done", "failed"))
    if members:
        _start(work, LATE, members, scene.policy.concurrent(LATE, placed + len(members)))
    elif not any(one.step in ("moving", "carried") for one in work.places.values()):
        # Everybody is through: the next who come are a standing wave of their own, and count anew.
        work.places = {n: one for n, one in work.places.items() if one.step != "done" and one.wave != LATE}


def _give(work: _Work) -> dict[str, str]:
    has, places = work.scene.has, work.places
    given = dict.fromkeys(work.scene.want, "")
    reverted = work.state.phase == "reverted"
    for name, digest in work.scene.want.items():
        place = places.get(name)
        if place is None:
            given[name] = has.get(name, "")
        elif reverted:
            given[name] = place.previous
        else:
            given[name] = has.get(name, "") if place.step == "waiting" else digest
    return given


def _as_kept(before: RolloutState, state: RolloutState) -> bool:
    """Tell whether nothing differs that must be kept; that a cluster came further is known from its next report."""
    if _head(before) != _head(state) or before.places.keys() != state.places.keys():
        return False
    old = before.places
    return all(one is old[name] or _part(one) == _part(old[name]) for name, one in state.places.items())


def _head(state: RolloutState) -> tuple[object, ...]:
    return (state.number, state.phase, state.targets, state.wave, state.held, state.excused)


def _part(one: Place) -> tuple[object, ...]:
    lasting = one.step if one.step in ("waiting", "failed", "carried") else ""
    return (one.wave, lasting, one.target, one.previous)
