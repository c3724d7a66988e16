"""The rolling laws, over fleets that are cut off, lose reports and power, and run into bad versions; hubs that die."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitops.simulated import BEHAVIOURS, NEW, OLD, Course, Setting
from gitops.simulating import Simulation
from placement.rollout_types import LATE, Advanced, Amount, Field, RolloutPolicy, RolloutState, Wave

CANARY = RolloutPolicy(
    (Wave("canary"), Wave("25%", 25), Wave("100%", 100)), max_concurrent=Amount(20, percent=True), soak_s=1800
)

amounts = st.builds(Amount, st.integers(1, 6)) | st.builds(Amount, st.integers(5, 60), st.just(True))
policies = st.builds(
    RolloutPolicy,
    st.sampled_from(
        [
            (Wave("all", 100),),
            (Wave("canary"), Wave("100%", 100)),
            (Wave("10%", 10), Wave("50%", 50), Wave("100%", 100)),
            (Wave("canary"), Wave("25%", 25), Wave("100%", 100)),
        ]
    ),
    max_concurrent=st.none() | amounts,
    soak_s=st.sampled_from([0.0, 300.0, 1800.0]),
    progress_deadline_s=st.sampled_from([1200.0, 7200.0]),
    max_failures=st.none() | st.builds(Amount, st.integers(0, 3)),
    on_failure=st.sampled_from(["revert", "pause"]),
)
fleets = st.builds(
    Setting,
    policies,
    clusters=st.integers(1, 40),
    seed=st.integers(0, 10_000),
    version=st.sampled_from(["good", "good", "good", *BEHAVIOURS]),
    offline=st.sampled_from([0.0, 0.1, 0.5]),
    outage_s=st.sampled_from([3600.0, 100_000.0]),
    blinks=st.sampled_from([0.0, 3.0]),
    fail=st.sampled_from([0.0, 0.0, 0.05, 0.3]),
    lost=st.sampled_from([0.0, 0.3]),
    canary=st.integers(1, 5),
    windowed=st.sampled_from([0.0, 0.4]),
    carried=st.sampled_from([0.0, 0.1]),
    restarts=st.sampled_from([0.0, 0.3]),
    tick_s=st.just(30.0),
    most_s=st.just(10 * 86_400.0),
)


def moving(state: RolloutState) -> int:
    return sum(one.step == "moving" for one in state.places.values())


def check_failures(scene: Field, before: RolloutState | None, found: Advanced) -> None:
    """Never past maxFailures + in flight; but for versions that come to nothing only after they succeeded."""
    budget = scene.policy.concurrent(0, len(scene.want))
    for wave in {one.wave for one in found.state.places.values()}:
        failed = [one for one in found.state.places.values() if one.wave == wave and one.step == "failed"]
        assert len(failed) <= scene.policy.failures(wave, len(scene.want)) + budget + len(found.state.excused)


def check_step(scene: Field, before: RolloutState | None, found: Advanced) -> None:
    """What must hold after every step, whatever came before."""
    policy, state = scene.policy, found.state
    limited = policy.max_concurrent
    budget = len(scene.want) if limited is None else max(1, limited.of(len(scene.want), up=True))
    assert moving(state) <= budget
    if before is not None and (before.number, before.phase) == (state.number, "rolling") and state.wave > before.wave:
        for wave in range(before.wave, min(state.wave, len(policy.waves))):
            placed = [n for n, one in before.places.items() if one.wave == wave and one.step != "waiting"]
            ended = [state.places[n].step for n in placed if n in state.places]
            if state.phase == "rolling" and placed and not state.excused:
                assert ended.count("done") >= min(1, policy.successes(wave, len(placed)))
    assert found.give.keys() == scene.want.keys()
    for name, digest in found.give.items():
        place = state.places.get(name)
        allowed = {scene.want[name], scene.has.get(name, "")} | ({place.previous} if place else set())
        assert digest in allowed
        if digest == scene.want[name] != scene.has.get(name, ""):
            assert place is not None and place.target == digest and digest not in state.held
    if state.phase == "reverted":
        assert all(digest != NEW for digest in found.give.values())


def run(setting: Setting) -> Course:
    def watch(scene: Field, before: RolloutState | None, found: Advanced) -> None:
        check_step(scene, before, found)
        if setting.version not in ("leaks", "dies later"):
            check_failures(scene, before, found)

    return Simulation(setting, watch).run()


@settings(max_examples=80, deadline=None)
@given(fleets)
def test_the_laws_hold_at_every_step_and_nobody_is_lost(setting: Setting) -> None:
    course = run(setting)
    if course.state.phase == "reverted":
        assert set(course.has.values()) == {OLD}, "the exact entries from before"
        if setting.version != "cuts off":
            assert set(course.running.values()) == {OLD}
    if course.state.phase == "complete" and setting.version == "good":
        assert set(course.has.values()) == {NEW}, "whoever was away has it in the end"
    assert set(course.has.values()) <= {OLD, NEW}


@settings(max_examples=20, deadline=None)
@given(fleets)
def test_the_same_inputs_give_the_same_course(setting: Setting) -> None:
    assert Simulation(setting).run() == Simulation(setting).run()


@settings(max_examples=20, deadline=None)
@given(fleets.filter(lambda one: one.version == "good" and one.fail == 0 and one.windowed == 0))
def test_a_hub_that_dies_after_every_step_brings_a_good_version_as_far(setting: Setting) -> None:
    steady = replace(setting, restarts=0.0, blinks=0.0, carried=0.0)
    assert run(steady).state.phase == run(replace(steady, restarts=1.0)).state.phase


@pytest.mark.parametrize("version", BEHAVIOURS)
def test_a_bad_version_never_leaves_the_canary(version: str) -> None:
    course = run(Setting(CANARY, clusters=200, version=version))  # type: ignore[arg-type]
    assert course.state.phase == "reverted"
    assert len(course.started) <= 10
    assert set(course.has.values()) == {OLD}


def test_two_power_cuts_during_the_soak_revert_nothing() -> None:
    cuts = ((1500.0, 1.0), (2700.0, 1.0))
    course = run(Setting(CANARY, clusters=60, power_cuts=cuts))
    assert course.state.phase == "complete" and not course.state.why


def test_many_back_from_one_outage_never_exceed_the_budget() -> None:
    policy = replace(CANARY, max_concurrent=Amount(50))
    course = run(Setting(policy, clusters=600, offline=0.84, outage_s=60.0 * 60, canary=60, seed=1, tick_s=30.0))
    assert course.most_in_flight <= 50
    assert set(course.has.values()) == {NEW}


def test_sites_that_wait_for_saturday_hold_no_place() -> None:
    policy = replace(CANARY, max_concurrent=Amount(2), waves=(Wave("all", 100),))
    course = run(Setting(policy, clusters=20, windowed=0.5, seed=3, tick_s=30.0))
    assert course.state.phase == "complete"
    monday = [row for row in course.rows if row.at_s < 86_400]
    simulated = Simulation(Setting(policy, clusters=20, windowed=0.5, seed=3))
    free = sum(not edge.windows for edge in simulated.edges.values())
    assert max(row.done for row in monday) >= free - 2, "those without windows are through on the first day"


def test_who_joins_when_all_is_done_comes_in_the_standing_wave() -> None:
    seen: set[int] = set()

    def watch(scene: Field, before: RolloutState | None, found: Advanced) -> None:
        check_step(scene, before, found)
        seen.update(one.wave for one in found.state.places.values() if one.step == "moving")

    setting = Setting(CANARY, clusters=30, offline=0.3, outage_s=5 * 86_400.0, canary=3, seed=2, tick_s=30.0)
    course = Simulation(setting, watch).run()
    assert LATE in seen and set(course.has.values()) == {NEW}
