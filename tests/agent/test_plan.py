"""The decision table of agent/plan.py, row by row, and the laws that hold for every situation."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.actions import ModelPoint, Observed, Seen, Staged
from agent.clock import Instant
from agent.journal import EntryState, Phase
from agent.plan import plan
from agent.steps import Desired, Situation, Stretch
from agent.together import accepts
from agent.wire.release import Entry
from agent.wire.report import Health
from tests.agent.simulated_site import model, workload

NOW = Instant(datetime(2026, 5, 6, tzinfo=UTC), 1_000_000, "boot")
KEY = ("model", "digits")
OLD, NEW = model()[0], model(version="2.0.0", test=True)[0]


def seen(entry: Entry, *, serving: bool = True, health: Health = "current", drift: str = "") -> Seen:
    return Seen(entry.kind, entry.name, entry.digest, serving, health, drift, f"http://{entry.name}" if serving else "")


def at(phase: Phase = "idle", running: Entry | None = OLD, serving: Entry | None = OLD, target: Entry | None = None,
       **more: Any) -> EntryState:  # fmt: skip
    digests = [one.digest if one is not None else "" for one in (running, serving, target)]
    state = EntryState("model", "digits", digests[0], digests[1], "", digests[2])
    return state.enter(phase, replace(NOW, uptime_ms=NOW.uptime_ms - 1000), **more)


def situation(
    wanted: Iterable[Entry] | None,
    states: Iterable[EntryState] = (),
    look: Iterable[Seen] = (),
    known: Iterable[Entry] = (OLD, NEW),
    **more: Any,
) -> Situation:
    entries = {one.digest: one for one in [*known, *(wanted or ())]}
    more.setdefault("staged", {digest: Staged(one) for digest, one in entries.items()})
    told = {}
    if any(one.kind == "model" and one.serving for one in look):
        points = [ModelPoint(one.name, entries[one.digest].version, one.url) for one in look if one.serving]
        known_here = {state.name for state in states}
        told = {"edgeferry-models": tuple(point for point in points if point.name in known_here)}
    return Situation(
        desired=None if wanted is None else Desired(tuple(wanted), more.pop("retire", "")),
        states={one.key: one for one in states},
        observed=Observed(tuple(look), more.pop("announced", told)),
        instant=NOW,
        entries=entries,
        **more,
    )


def lines(found: Situation) -> list[str]:
    return [type(action).__name__ for action in plan(found).actions if type(action).__name__ != "Announce"]


def failed(state: EntryState, entry: Entry = NEW) -> EntryState:
    return state.with_failure(entry.digest, "EF4062", "it died", NOW)


CASES: dict[str, tuple[Situation, list[str]]] = {
    "no release was ever accepted: nothing": (situation(None, [at()], [seen(OLD, drift="gone")]), []),
    "retire keep: nothing": (situation([], [at()], [seen(OLD, drift="gone")], retire="keep"), []),
    "retire delete: remove": (situation([OLD], [at()], [seen(OLD)], retire="delete"), ["Remove"]),
    "not asked for, not there: nothing": (situation([]), []),
    "not asked for, there: remove": (situation([], [at()], [seen(OLD)]), ["Remove"]),
    "not asked for, there without a record: remove": (situation([], [], [seen(OLD)]), ["Remove"]),
    "asked for and sound: nothing": (situation([OLD], [at()], [seen(OLD)]), []),
    "asked for and sound, no record: taken over": (situation([OLD], [], [seen(OLD)]), []),
    "asked for and drifted: repair": (situation([OLD], [at()], [seen(OLD, drift="replicas")]), ["Repair"]),
    "asked for and gone: repair": (situation([OLD], [at()], []), ["Repair"]),
    "asked for, its bytes lost: stage": (situation([OLD], [at()], [seen(OLD)], staged={}), ["Stage"]),
    "degraded without drift is the platform's to mend": (situation([OLD], [at()], [seen(OLD, health="degraded")]), []),
    "new, bytes not here: stage": (
        situation([NEW], [at()], [seen(OLD)], staged={OLD.digest: Staged(OLD)}), ["Stage"]),
    "new, bytes on their way: nothing": (
        situation([NEW], [at()], [seen(OLD)], staged={OLD.digest: Staged(OLD)}, staging=frozenset({NEW.digest})), []),
    "new, bytes here: start": (situation([NEW], [at()], [seen(OLD)]), ["Start"]),
    "new, but it failed before: nothing": (situation([NEW], [failed(at())], [seen(OLD)]), []),
    "new, but it failed before: the old one is kept up": (situation([NEW], [failed(at())], []), ["Repair"]),
    "new, but the platform refuses: nothing": (situation([NEW], [at()], [seen(OLD)], refused={KEY: "no"}), []),
    "new, but it requires the unknown: nothing": (
        situation([replace(NEW, requires=("x",))], [at()], [seen(OLD)]), []),
    "new, and it requires what is known: start": (
        situation([replace(NEW, requires=("x",))], [at()], [seen(OLD)], requires=frozenset({"x"})), ["Start"]),
    "starting: again, it may be half done": (situation([NEW], [at("starting", target=NEW)], [seen(OLD)]), ["Start"]),
    "starting, not wanted any more: retire": (situation([OLD], [at("starting", target=NEW)], [seen(OLD)]), ["Retire"]),
    "starting, and the old one died: repair first": (situation([NEW], [at("starting", target=NEW)], []), ["Repair"]),
    "started, not ready: wait": (
        situation([NEW], [at("testing", target=NEW)], [seen(OLD), seen(NEW, serving=False, health="progressing")]), []),
    "started, not ready in time: retire": (
        situation([NEW], [at("testing", target=NEW)], [seen(OLD), seen(NEW, serving=False, health="progressing")],
                  start_deadline_ms=500), ["Retire"]),
    "started and dead: retire": (
        situation([NEW], [at("testing", target=NEW)], [seen(OLD), seen(NEW, serving=False, health="degraded")]),
        ["Retire"]),
    "started and ready: test": (
        situation([NEW], [at("testing", target=NEW)], [seen(OLD), seen(NEW, serving=False)]), ["Test"]),
    "started, ready and tested: switch": (
        situation([NEW], [at("testing", target=NEW, tested=True)], [seen(OLD), seen(NEW, serving=False)]), ["Switch"]),
    "the platform starts nothing beside: switch": (
        situation([NEW], [at("testing", target=NEW)], [seen(OLD)]), ["Switch"]),
    "switching: again, it may be half done": (
        situation([NEW], [at("switching", target=NEW)], [seen(NEW)]), ["Switch"]),
    "switching failed: back": (situation([NEW], [failed(at("switching", target=NEW))], [seen(OLD)]), []),
    "in probation, not tested yet: test": (
        situation([NEW], [at("probation", serving=NEW, target=NEW)], [seen(NEW), seen(OLD, serving=False)]), ["Test"]),
    "in probation, healthy, not long enough: wait": (
        situation([NEW], [at("probation", serving=NEW, target=NEW, tested=True)], [seen(NEW)],
                  stretches={(KEY, NEW.digest): Stretch("current", 29_999)}), []),
    "in probation, healthy for long enough: commit": (
        situation([NEW], [at("probation", serving=NEW, target=NEW, tested=True)], [seen(NEW)],
                  stretches={(KEY, NEW.digest): Stretch("current", 30_000)}), ["Retire"]),
    "in probation, changed by others: repair": (
        situation([NEW], [at("probation", serving=NEW, target=NEW, tested=True)], [seen(NEW, drift="replicas")]),
        ["Repair"]),
    "in probation after a boot: brought up again": (
        situation([NEW], [at("probation", serving=NEW, target=NEW, revived=False)],
                  [seen(NEW, health="degraded", drift="gone")]), ["Repair"]),
    "in probation after three boots: back": (
        situation([NEW], [at("probation", serving=NEW, target=NEW, boots=3)], [seen(NEW)]), []),
    "returning, the old one is up: switch back": (
        situation([NEW], [failed(at("returning", serving=NEW, target=NEW, revived=False))],
                  [seen(NEW, health="degraded"), seen(OLD, serving=False)]), ["Switch", "Retire"]),
    "returning, the old one is down: start it first": (
        situation([NEW], [failed(at("returning", serving=NEW, target=NEW, revived=False))],
                  [seen(NEW, health="degraded")]), ["Start"]),
    "returning, the old one was started and does not come: switch all the same": (
        situation([NEW], [failed(at("returning", serving=NEW, target=NEW, revived=True))],
                  [seen(NEW, health="degraded"), seen(OLD, serving=False, health="degraded")]), ["Switch", "Retire"]),
    "removing, asked for again: what is half gone goes first": (situation([OLD], [at("removing")], []), ["Remove"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_decision_table(case: tuple[Situation, list[str]]) -> None:
    found, expected = case
    assert lines(found) == expected


def test_a_failure_in_probation_is_recorded_before_the_return_begins() -> None:
    now = situation([NEW], [at("probation", serving=NEW, target=NEW)], [seen(NEW, health="degraded")])
    (step,) = plan(now).steps
    assert step.intent is not None and step.intent.phase == "returning" and NEW.digest in step.intent.failed
    assert not step.actions and [one.kind for one in step.ahead] == ["failed"]


def test_a_commit_remembers_the_version_before() -> None:
    state = at("probation", serving=NEW, target=NEW, tested=True)
    now = situation([NEW], [state], [seen(NEW)], stretches={(KEY, NEW.digest): Stretch("current", 30_000)})
    (step,) = plan(now).steps
    assert step.done is not None
    assert (step.done.running, step.done.previous, step.done.target) == (NEW.digest, OLD.digest, "")


PHASE = st.sampled_from(["idle", "starting", "testing", "switching", "probation", "returning"])
HEALTH = st.sampled_from(["current", "progressing", "degraded"])
READER = workload(uses=[("digits", "*", "restart")])[0]


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    phase = cast(Phase, draw(PHASE))
    moving = phase not in ("idle",)
    serving = NEW if phase in ("probation", "returning") else OLD
    state = at(phase, serving=serving, target=NEW if moving else None, boots=draw(st.integers(0, 3)),
               tested=draw(st.booleans()), revived=draw(st.booleans()))  # fmt: skip
    state = failed(state) if draw(st.booleans()) else state
    look = [
        seen(one, serving=one is serving, health=draw(HEALTH), drift=draw(st.sampled_from(["", "changed"])))
        for one in (OLD, NEW)
        if draw(st.booleans())
    ]
    wanted = draw(st.sampled_from([(), (OLD,), (NEW,), (NEW, READER), (READER,)]))
    reader = EntryState("workload", "reader", READER.digest, READER.digest)
    states = [state, reader] if draw(st.booleans()) else [state]
    return situation(wanted, states, look, known=(OLD, NEW, READER))


@given(situations(), st.randoms(use_true_random=False))
def test_the_order_of_what_is_given_changes_nothing(now: Situation, order: random.Random) -> None:
    assert now.desired is not None
    entries, look, states = list(now.desired.entries), list(now.observed.seen), list(now.states.items())
    for many in (entries, look, states):
        order.shuffle(many)  # type: ignore[arg-type]  # lists all
    other = replace(
        now,
        desired=replace(now.desired, entries=tuple(entries)),
        observed=replace(now.observed, seen=tuple(look)),
        states=dict(states),
    )
    one, two = plan(now), plan(other)
    assert one.steps == two.steps
    assert [(w.key, w.soon, str(w.fault)) for w in one.waits] == [(w.key, w.soon, str(w.fault)) for w in two.waits]


@given(situations())
def test_no_plan_touches_the_way_back(now: Situation) -> None:
    """What was committed is retired only by the step that commits another one; it is removed only when unwanted."""
    for step in plan(now).steps:
        names = [type(action).__name__ for action in step.actions]
        state = now.states.get(step.key)
        for action in step.actions:
            if type(action).__name__ == "Retire" and state is not None:
                retired = cast(Any, action).staged.digest
                assert retired != state.running or (step.done is not None and step.done.running != retired)
        if "Remove" in names:
            assert step.key not in now.wanted()


@given(situations())
def test_an_entry_has_one_step_at_a_time(now: Situation) -> None:
    keys = [step.key for step in plan(now).steps]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("wish", "version", "taken"),
    [(">=2 <3", "2.1.0", True), (">=2 <3", "3.0.0", False), ("*", "0.0.1", True), ("nonsense", "1.0.0", False)],
)
def test_ranges_are_read_as_the_hub_reads_them(wish: str, version: str, taken: bool) -> None:
    assert accepts(wish, version) is taken
