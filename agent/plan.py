"""What to do now: a pure function of what is asked for, what is recorded, and what is seen.

=========== ==================== ==========================================================================
asked for?  there?               then
=========== ==================== ==========================================================================
unknown     anything             nothing: a missing release is a fault, not an instruction
``keep``    anything             nothing: it is managed no more and left as it is
no, kept    something            nothing: what the fleet's ``deletionPolicy`` keeps is left as it is
no          nothing, no record   nothing
no          something            Remove; workloads first, then the models that nobody uses any more
yes         that digest, sound   nothing; a workload whose model was switched: Refresh
yes         that digest, drifted Repair
yes         another, or none     Stage → Start → Test → Switch → probation → commit (agent/phases.py)
yes, but it failed before        nothing new; what serves is kept up; said
yes, but it requires the unknown as it is, kept up; said
yes, but no key signed it        as it is, kept up; what was not switched to goes; said
yes, but the platform refuses    as it is, kept up; said; the others go on
a person here holds it           as it is, kept up; said
a person here went back from it  the version before, in the same way
yes, but the window is closed    staged; what serves is kept up; said
=========== ==================== ==========================================================================

A placement that was renamed changes no entry digest, so it restarts nothing.
"""

from __future__ import annotations

from dataclasses import replace

from agent.actions import Remove
from agent.journal import EntryState, Key
from agent.orders import Held, RolledBack
from agent.phases import Case, advance
from agent.steps import (
    FailedBefore,
    Happening,
    Plan,
    PlatformRefuses,
    RequiresUnknown,
    Situation,
    Step,
    Waiting,
    WaitsForWindow,
    WaitsForWorkload,
)
from agent.together import announcements, model_waits, refresh, still_used, workload_waits
from agent.wire.errors import EdgeferryError, Wait
from agent.wire.fields import write_time
from agent.wire.model_signature import ModelNotSigned, ModelSignatureRefused
from agent.wire.release import Entry
from agent.wire.windows import opening


def plan(s: Situation) -> Plan:
    """Return every entry's next step. Pure; the order of entries and of what is seen changes nothing.

    Within a plan: what nobody asks for goes first (its room may be needed), then models, then what consumers are told,
    then workloads.
    """
    if s.desired is None or s.desired.retire == "keep":
        return Plan()
    wanted = s.wanted()
    there = set(s.states) | {(one.kind, one.name) for one in s.observed.seen}
    steps: list[Step] = []
    waits: list[Waiting] = []

    def take(found: Step | Waiting | None) -> None:
        if isinstance(found, Step):
            steps.append(found)
        elif found is not None:
            waits.append(found)

    unwanted = there - wanted.keys() if not s.desired.keep or s.desired.retire else set()
    for key in sorted(unwanted, key=lambda key: (key[0] != "workload", key[1])):
        held = _held(s, key)
        take(Waiting(key, fault=held) if held is not None else _remove(s, key))
    for key in sorted(key for key in wanted if key[0] == "model"):
        take(_entry(s, wanted[key], waits))
    steps += announcements(s)
    for key in sorted(key for key in wanted if key[0] == "workload"):
        take(_entry(s, wanted[key], waits))
    return Plan(tuple(steps), tuple(waits))


def _entry(s: Situation, entry: Entry, waits: list[Waiting]) -> Step | Waiting | None:
    """One entry that is asked for."""
    key = (entry.kind, entry.name)
    state = s.states.get(key)
    if state is None:
        state = _found(s, entry)
        if state.running:
            return Step(key, entry.digest, done=state)
    if state.phase == "removing":
        return _removal(s, state)
    course = state.target if state.phase in ("starting", "testing", "switching", "probation") else state.serving
    unfit = _unfit(s, state, entry)
    if unfit is not None:
        waits.append(Waiting(key, fault=unfit))
        held = state.target if state.phase == "probation" else state.serving
        goal = held if isinstance(unfit, FailedBefore | ModelNotSigned | ModelSignatureRefused) else course
        return advance(Case(s, state, goal))
    blocked: Wait | None = model_waits(s, entry) if entry.kind == "model" else workload_waits(s, entry)
    order = _order(s, state, entry)
    if isinstance(order, Held):
        blocked = order
    elif order is not None:
        waits.append(Waiting(key, fault=order))
    else:
        blocked = blocked or _window_waits(s, state, entry)
    found = advance(Case(s, state, entry.digest, blocked))
    if found is None and entry.kind == "workload" and state.serving == entry.digest:
        return _follow(s, state, entry)
    return found


def _order(s: Situation, state: EntryState, entry: Entry) -> Held | RolledBack | None:
    """Return what a person at the site ordered that concerns this entry now."""
    asked = next((one for one in s.desired.entries if (one.kind, one.name) == state.key), entry) if s.desired else entry
    rollback = s.orders.rollback(state.key, asked.digest)
    if rollback is not None and asked is not entry:
        why = f": {rollback.why}" if rollback.why else ""
        return RolledBack(
            f"back from {asked.version} to {entry.version} by a person here{why}",
            where="/".join(state.key),
            do="`edgeferry-agent rollback --undo` takes it back; so does the next version",
        )
    return _held(s, state.key) if entry.digest != state.serving else None


def _held(s: Situation, key: Key) -> Held | None:
    hold = s.orders.hold(key)
    if hold is None:
        return None
    why = f": {hold.why}" if hold.why else ""
    return Held(f"held by a person here{why}", where="/".join(key), do="`edgeferry-agent hold --off` lets it go on")


def _window_waits(s: Situation, state: EntryState, entry: Entry) -> WaitsForWindow | None:
    """Return why what serves may not be replaced now. Where nothing serves there is nothing to disturb."""
    desired = s.desired
    if desired is None or not desired.windows or not state.serving or state.serving == entry.digest:
        return None
    if f"{entry.kind}/{entry.name}" in desired.returns:
        return None
    where, do = f"{entry.kind}/{entry.name}", "nothing: it switches by itself"
    if not s.instant.trusted:
        what = "the clock is behind what was seen before: windows stay closed"
        return WaitsForWindow(what, where=where, do="set the site's clock")
    try:
        found = opening(desired.windows, s.instant.now)
    except ValueError as error:
        return WaitsForWindow(f"windows stay closed: {error}", where=where, do="install the time zone database")
    if found.open or found.until is None:
        return None
    return WaitsForWindow(f"{entry.version} waits for the window at {write_time(found.until)}", where=where, do=do)


def _unfit(s: Situation, state: EntryState, entry: Entry) -> EdgeferryError | None:
    """Return why the entry cannot become what is asked for at all."""
    where = f"{entry.kind}/{entry.name}"
    if unknown := sorted(set(entry.requires) - s.requires):
        return RequiresUnknown(
            f"{entry.version} requires {', '.join(unknown)}, which this agent does not know",
            where=where,
            do="upgrade the agent; until then it stays as it is",
        )
    if entry.digest in s.untrusted:
        return s.untrusted[entry.digest]
    if s.refused.get(state.key):
        return PlatformRefuses(f"{entry.version}: {s.refused[state.key]}", where=where)
    failure = state.failed.get(entry.digest)
    if failure is not None:
        return FailedBefore(
            f"{entry.version} failed here ({failure.code}: {failure.message})",
            where=where,
            do="publish a version that works, or `edgeferry-agent once --retry`",
        )
    return None


def _found(s: Situation, entry: Entry) -> EntryState:
    """Return the record for an entry without one; what serves with the wanted digest is taken as committed."""
    state = EntryState(entry.kind, entry.name)
    if s.serving(state.key, entry.digest) is None:
        return state
    return state.enter("idle", s.instant, running=entry.digest, serving=entry.digest)


def _follow(s: Situation, state: EntryState, entry: Entry) -> Step | None:
    """A workload takes up models that were switched since it was told of them last."""
    if state.phase != "idle":
        return None
    action, news = refresh(s, entry, state.saw)
    now = _saw_all(s, entry)
    done = replace(state, saw=now) if state.saw != now and now.keys() >= state.saw.keys() else None
    if action is None:
        return Step(state.key, entry.digest, done=done) if done is not None else None
    return Step(state.key, entry.digest, (action,), done=done, news=news, again_later=True)


def _saw_all(s: Situation, entry: Entry) -> dict[str, str]:
    serving = {name: state.serving for (kind, name), state in s.states.items() if kind == "model"}
    return {use.name: serving[use.name] for use in entry.models if serving.get(use.name)}


def _remove(s: Situation, key: Key) -> Step | Waiting | None:
    """One entry that nobody asks for."""
    state = s.states.get(key) or EntryState(*key)
    if key[0] == "model":
        user = still_used(s, key[1])
        if user:
            fault = WaitsForWorkload(f"it goes once workload {user} does not use it any more", where=f"model/{key[1]}")
            return Waiting(key, fault=fault)
    return _removal(s, state)


def _removal(s: Situation, state: EntryState) -> Step:
    version = s.entries[state.serving].version if state.serving in s.entries else ""
    return Step(
        state.key,
        state.serving,
        (Remove(state.kind, state.name),),
        intent=state if state.phase == "removing" else state.enter("removing", s.instant),
        forget=True,
        news=(Happening("removed", version),),
    )
