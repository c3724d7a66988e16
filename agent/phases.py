"""One entry's way from its bytes to commit, phase by phase. Pure.

before the switch   a failure retires the candidate; what serves is not touched
after the switch    a failure returns to what was committed, or, where nothing was, retires the candidate
every failure       is recorded first: its digest is not tried again

Source: Mender's contract (download, install, commit, cleanup), with checks after a reboot in place of a return.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from agent.actions import Action, Repair, Retire, Seen, Stage, Staged, Start, Switch, Test
from agent.journal import EntryState
from agent.steps import (
    BootsExhausted,
    CandidateFailed,
    Happening,
    KeptDamaged,
    ModelWentBack,
    NotReadyInTime,
    NotSteady,
    Situation,
    Step,
    Waiting,
)
from agent.together import lost_model, points_for, saw
from agent.wire.errors import EdgeferryError, Wait

MOST_BOOTS: Final = 3
_UNSTEADY_PROBATIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Case:
    """One entry under consideration.

    Attributes:
        goal: the entry digest to get to; that which serves, or the candidate, where the way stays as it is.
        blocked: why the next version may not be started or switched to yet.
    """

    s: Situation
    state: EntryState
    goal: str
    blocked: Wait | None = None


def advance(case: Case) -> Step | Waiting | None:
    """Return the entry's next step, why there is none, or None where there is nothing to do."""
    match case.state.phase:
        case "idle":
            return _keep(case) or _bring(case)
        case "starting":
            return _give_way(case) or _keep(case) or _start(case, case.state, case.goal)
        case "testing":
            return _give_way(case) or _keep(case) or _test(case)
        case "switching":
            return _after_failure(case) or _switch(case)
        case "probation":
            return _after_failure(case) or _probation(case)
        case "returning":
            return _return(case)
        case _:
            raise AssertionError(f"no way on from {case.state.phase}")


def _keep(case: Case) -> Step | Waiting | None:
    """Keep up what serves, whatever else is on its way."""
    state = case.state
    digest = state.serving
    if not digest:
        return None
    staged = case.s.staged.get(digest)
    if staged is None:
        return _fetch(case, digest)
    seen = case.s.serving(state.key, digest)
    if digest != state.running and seen is not None and seen.health == "degraded":
        # Uncommitted, and another candidate was on its way: out with both.
        failed = state.with_failure(digest, CandidateFailed.code, seen.message, case.s.instant)
        done = failed.enter("returning", case.s.instant, target=digest, revived=False)
        if not state.running:
            done = failed.enter("idle", case.s.instant, target="", serving="")
        retired = [case.s.staged[one] for one in (state.target,) if one in case.s.staged]
        retired += [] if state.running else [staged]
        news = _happening(case, "failed", digest, CandidateFailed.code, seen.message)
        return Step(state.key, digest, tuple(map(Retire, retired)), state, done, news=news)
    if seen is not None and not seen.drift:
        return None
    return _repair(case, staged, seen.drift if seen is not None else "nothing of it is there")


def _repair(case: Case, staged: Staged, why: str) -> Step:
    action = Repair(staged, why, points_for(case.s, staged.entry))
    news = _happening(case, "repaired", staged.digest, message=why)
    return Step(case.state.key, staged.digest, (action,), news=news, again_later=True)


def _bring(case: Case) -> Step | Waiting | None:
    """Begin with a new version once its bytes are here and nobody has to go first."""
    if case.goal in ("", case.state.serving):
        return None
    if case.goal not in case.s.staged:
        return _fetch(case, case.goal)
    if case.blocked is not None:
        return Waiting(case.state.key, fault=case.blocked)
    return _start(case, case.state, case.goal)


def _fetch(case: Case, digest: str) -> Step | Waiting:
    entry = case.s.entries.get(digest)
    if entry is None:
        fault = KeptDamaged(f"{digest} is not kept whole", do="nothing: it is fetched again once the site is online")
        return Waiting(case.state.key, fault=fault)
    if digest in case.s.staging:
        return Waiting(case.state.key)
    return Step(case.state.key, digest, (Stage(entry),), candidate=digest)


def _start(case: Case, state: EntryState, digest: str) -> Step | Waiting:
    staged = case.s.staged.get(digest)
    if staged is None:
        return _fetch(case, digest)
    fresh = state.target != digest
    boots = 0 if fresh else state.boots
    intent = state.enter("starting", case.s.instant, target=digest, boots=boots, tested=False, revived=True)
    if boots >= MOST_BOOTS:
        return _fail_before(case, BootsExhausted(f"the site booted {boots} times before {_name(staged)} was committed"))
    done = intent.enter("testing", case.s.instant)
    ahead = _happening(case, "staged", digest, message=staged.note) if fresh else ()
    action = Start(staged, points_for(case.s, staged.entry))
    return Step(state.key, digest, (action,), intent, done, ahead=ahead, candidate=digest)


def _test(case: Case) -> Step | Waiting:
    state, s = case.state, case.s
    staged = s.staged.get(state.target)
    if staged is None:
        return _fetch(case, state.target)
    seen = s.instance(state.key, state.target)
    if seen is None:
        return _may_switch(case)
    if seen.serving:
        return Step(state.key, state.target, done=_probation_of(case, staged))
    if seen.health == "degraded":
        return _fail_before(case, CandidateFailed(seen.message or "it is degraded"))
    if seen.health != "current":
        if state.elapsed_ms(s.instant) > s.start_deadline_ms:
            return _fail_before(case, _late(case, seen))
        return Waiting(state.key, soon=True)
    if staged.entry.self_test is not None and not state.tested:
        if state.elapsed_ms(s.instant) > s.start_deadline_ms:
            return _fail_before(case, _late(case, seen))
        return Step(state.key, state.target, (Test(staged),), done=replace(state, tested=True), candidate=state.target)
    return _may_switch(case)


def _may_switch(case: Case) -> Step | Waiting:
    if case.blocked is not None:
        return Waiting(case.state.key, fault=case.blocked)
    return _switch(case)


def _switch(case: Case) -> Step | Waiting:
    state, s = case.state, case.s
    staged = s.staged.get(state.target)
    if staged is None:
        return _fetch(case, state.target)
    before = s.staged.get(state.serving)
    actions: list[Action] = [Switch(staged, before, points_for(s, staged.entry))]
    if before is not None and state.serving not in (state.running, state.target):
        actions.append(Retire(before))
    intent = state if state.phase == "switching" else state.enter("switching", s.instant)
    news = _happening(case, "switched", state.target)
    done = _probation_of(case, staged)
    return Step(state.key, state.target, tuple(actions), intent, done, news=news, candidate=state.target)


def _probation_of(case: Case, staged: Staged) -> EntryState:
    return case.state.enter(
        "probation", case.s.instant, serving=case.state.target, revived=True, saw=saw(case.s, staged.entry)
    )


def _probation(case: Case) -> Step | Waiting:
    state, s = case.state, case.s
    staged = s.staged.get(state.target)
    if staged is None:
        return _fetch(case, state.target)
    if state.boots >= MOST_BOOTS:
        return _fail_after(
            case, BootsExhausted(f"the site booted {state.boots} times before {_name(staged)} was committed")
        )
    seen = s.serving(state.key, state.target)
    sound = seen is not None and not seen.drift and seen.health != "degraded"
    if not state.revived and not sound:
        action = Repair(staged, "the site was started again", points_for(s, staged.entry))
        done = state.enter("probation", s.instant, revived=True)
        return Step(state.key, state.target, (action,), state, done, candidate=state.target)
    if seen is not None and seen.health == "degraded":
        return _fail_after(case, CandidateFailed(seen.message or "it is degraded"))
    if seen is None or seen.drift:
        return _repair(case, staged, seen.drift if seen is not None else "nothing of it is there")
    stretch = s.stretches.get((state.key, state.target))
    lasted_ms = stretch.ms if stretch is not None else 0
    if seen.health != "current":
        if lasted_ms > s.start_deadline_ms:
            return _fail_after(case, _late(case, seen))
        return _unsteady(case) or _superseded(case) or Waiting(state.key, soon=True)
    if staged.entry.self_test is not None and not state.tested:
        return Step(state.key, state.target, (Test(staged),), done=replace(state, tested=True), candidate=state.target)
    lost = lost_model(s, staged.entry) if state.running else ""
    if lost and not lost_model(s, s.staged[state.running].entry if state.running in s.staged else staged.entry):
        return _go_back(case, ModelWentBack(f"model {lost} returned to a version that {_name(staged)} does not take"))
    step = _superseded(case)
    if step is not None and not isinstance(step, Waiting):
        return step
    if stretch is not None and stretch.health == "current" and lasted_ms >= s.probation_ms:
        return _commit(case)
    return _unsteady(case) or Waiting(state.key, soon=True, fault=step.fault if step is not None else None)


def _unsteady(case: Case) -> Step | None:
    s = case.s
    most_ms = s.start_deadline_ms + _UNSTEADY_PROBATIONS * s.probation_ms
    if min(case.state.elapsed_ms(s.instant), s.watched_ms) <= most_ms:
        return None
    return _fail_after(case, NotSteady(f"not healthy for {s.probation_ms / 1000:g} s on end in {most_ms / 1000:g} s"))


def _superseded(case: Case) -> Step | Waiting | None:
    """A newer version need not wait for the end of this one's probation; the way back stays what was committed."""
    state, s = case.state, case.s
    if case.goal == state.target:
        return None
    if case.goal == state.running:
        return _go_back(case, None)
    if case.goal not in s.staged:
        return _fetch(case, case.goal)
    if case.blocked is not None:
        return Waiting(state.key, fault=case.blocked)
    seen = s.serving(state.key, state.target)
    if not state.running and seen is not None and seen.health == "current":
        return _commit(case)  # the only way back there is
    return _start(case, state, case.goal)


def _commit(case: Case) -> Step:
    state = case.state
    old = case.s.staged.get(state.running)
    actions = (Retire(old),) if old is not None and state.running != state.target else ()
    done = state.enter(
        "idle",
        case.s.instant,
        running=state.target,
        previous=state.running or state.previous,
        target="",
        boots=0,
        tested=False,
        failed={key: one for key, one in state.failed.items() if key != state.target},
    )
    return Step(state.key, state.target, actions, done=done, news=_happening(case, "committed", state.target))


def _give_way(case: Case) -> Step | None:
    """A candidate that failed, or that nobody wants any more, goes before it ever served."""
    state = case.state
    if state.target in state.failed or case.goal != state.target:
        return _abandon(case, state, ())
    return None


def _abandon(case: Case, intent: EntryState, ahead: tuple[Happening, ...]) -> Step:
    state, s = case.state, case.s
    staged = s.staged.get(state.target)
    actions = (Retire(staged),) if staged is not None else ()
    if state.serving == state.running:
        done = intent.enter("idle", s.instant, target="", boots=0, tested=False, revived=True)
    else:
        done = intent.enter("probation", s.instant, target=state.serving, boots=0, tested=True, revived=True)
    return Step(state.key, state.target, actions, intent, done, ahead=ahead)


def _fail_before(case: Case, fault: EdgeferryError) -> Step:
    state = case.state
    failed = state.with_failure(state.target, fault.code, fault.what, case.s.instant)
    return _abandon(case, failed, _happening(case, "failed", state.target, fault.code, fault.what))


def _after_failure(case: Case) -> Step | None:
    failure = case.state.failed.get(case.state.target)
    return _leave(case, case.state, ()) if failure is not None else None


def _fail_after(case: Case, fault: EdgeferryError) -> Step:
    state = case.state
    failed = state.with_failure(state.target, fault.code, fault.what, case.s.instant)
    return _leave(case, failed, _happening(case, "failed", state.target, fault.code, fault.what))


def _go_back(case: Case, why: EdgeferryError | None) -> Step:
    """Return to what was committed though the candidate did nothing wrong."""
    news = () if why is None else _happening(case, "waits", case.state.target, why.code, why.what)
    return _leave(case, case.state, news)


def _leave(case: Case, intent: EntryState, ahead: tuple[Happening, ...]) -> Step:
    state, s = case.state, case.s
    staged, before = s.staged.get(state.target), s.staged.get(state.serving)
    actions: list[Action] = []
    if state.phase == "switching" and before is not None and state.serving not in (state.running, state.target):
        # What it was to replace is itself in probation, and goes on with that.
        actions.append(Switch(before, staged, points_for(s, before.entry)))
        actions += [Retire(staged)] if staged is not None else []
        resumed = intent.enter("probation", s.instant, target=state.serving, boots=0, tested=False, revived=True)
        return Step(state.key, state.serving, tuple(actions), intent, resumed, ahead=ahead)
    if state.running:
        done = intent.enter("returning", s.instant, revived=False)
        return Step(state.key, state.target, (), done, None, ahead=ahead)
    actions += [Retire(staged)] if staged is not None else []
    done = intent.enter("idle", s.instant, target="", serving="", boots=0, tested=False, revived=True)
    return Step(state.key, state.target, tuple(actions), intent, done, ahead=ahead)


def _return(case: Case) -> Step | Waiting:
    """Bring back what was committed; started first where it does not run any more."""
    state, s = case.state, case.s
    old, gone = s.staged.get(state.running), s.staged.get(state.target)
    if old is None:
        return _fetch(case, state.running)
    seen = s.instance(state.key, state.running)
    serves = seen is not None and seen.serving and seen.health == "current"
    if not serves and not state.revived and (seen is None or seen.health == "degraded"):
        action = Start(old, points_for(s, old.entry))
        return Step(state.key, state.running, (action,), state, state.enter("returning", s.instant, revived=True))
    if seen is not None and seen.health == "progressing" and state.elapsed_ms(s.instant) <= s.start_deadline_ms:
        return Waiting(state.key, soon=True)
    actions: list[Action] = [] if serves else [Switch(old, gone, points_for(s, old.entry))]
    actions += [Retire(gone)] if gone is not None and state.target != state.running else []
    done = state.enter(
        "idle",
        s.instant,
        serving=state.running,
        target="",
        boots=0,
        tested=False,
        revived=True,
        saw=saw(s, old.entry),
    )
    failure = state.failed.get(state.target)
    code, why = (failure.code, failure.message) if failure is not None else ("", "")
    news = _happening(case, "returned", state.running, code, why)
    return Step(state.key, state.running, tuple(actions), done=done, news=news)


def _late(case: Case, seen: Seen) -> NotReadyInTime:
    return NotReadyInTime(f"not ready within {case.s.start_deadline_ms / 1000:g} s: {seen.message or seen.health}")


def _happening(case: Case, kind: str, digest: str, code: str = "", message: str = "") -> tuple[Happening, ...]:
    entry = case.s.entries.get(digest)
    return (Happening(kind, entry.version if entry is not None else "", code, message),)


def _name(staged: Staged) -> str:
    return f"{staged.entry.kind} {staged.entry.name} {staged.entry.version}"
