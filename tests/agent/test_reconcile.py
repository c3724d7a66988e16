"""The agent's whole cycle on a simulated site: what serves, what is said of it, and what is never done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.wire.release import Entry
from tests.agent.simulated_site import Broken, Busy, Edge, model, workload


@pytest.fixture(params=[True, False], ids=["beside", "in-place"])
def edge(request: pytest.FixtureRequest, tmp_path: Path) -> Edge:
    return Edge(tmp_path, beside=request.param)


def actions(edge: Edge) -> list[str]:
    """Return what was done since the last call, announcements left out."""
    done = [line for line in edge.world.log if not line.startswith("Announce")]
    edge.world.log.clear()
    return done


def test_a_first_model_is_started_tested_switched_and_committed_in_that_order(edge: Edge) -> None:
    edge.settle(edge.release(model(test=True)))
    assert [line.split()[0] for line in actions(edge)] == (
        ["Start", "Test", "Switch"] if edge.beside else ["Start", "Switch", "Test"]
    )
    assert edge.serves("model", "digits") == "1.0.0"
    assert [kind for kind, _, _ in edge.events()] == ["accepted", "staged", "switched", "committed"]
    report = edge.reports()["model/digits"]
    assert (report.health, report.digest, report.wanted) == ("current", model(test=True)[0].digest, report.digest)
    assert report.healthy_since is not None


def test_an_update_keeps_the_old_one_up_until_the_new_one_is_committed(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    actions(edge)
    edge.settle(edge.release(model(version="2.0.0")))
    assert actions(edge) == ["Start digits 2.0.0", "Switch digits 2.0.0", "Retire digits 1.0.0"]
    assert edge.serves("model", "digits") == "2.0.0"


def test_a_quiet_cycle_does_nothing_and_writes_nothing(edge: Edge) -> None:
    edge.settle(edge.release(model(), workload(uses=[("digits", "*", "restart")])))
    actions(edge)
    before = {path: path.stat().st_mtime_ns for path in edge.root.rglob("*") if path.is_file()}
    for _ in range(5):
        outcome = edge.look()
        assert outcome.settled and not outcome.plan.steps
    assert {path: path.stat().st_mtime_ns for path in edge.root.rglob("*") if path.is_file()} == before
    assert not actions(edge)


@pytest.mark.parametrize("behaviour", ["dead", "never", "wrong", "refused", "dies"])
def test_a_bad_version_never_replaces_a_good_one_for_good_and_is_not_tried_again(edge: Edge, behaviour: str) -> None:
    edge.settle(edge.release(model(test=True)))
    edge.world.behaviour["2.0.0"] = behaviour
    edge.settle(edge.release(model(version="2.0.0", test=True)))
    assert edge.serves("model", "digits") == "1.0.0"
    report = edge.reports()["model/digits"]
    assert report.health == "current" and report.version == "1.0.0" and report.code
    assert report.wanted == model(version="2.0.0", test=True)[0].digest
    actions(edge)
    for _ in range(20):
        edge.look()
    assert not actions(edge)
    assert "failed" in [kind for kind, _, _ in edge.events()]
    edge.settle(edge.release(model(version="3.0.0", test=True)))
    assert edge.serves("model", "digits") == "3.0.0" and not edge.reports()["model/digits"].code


def test_what_fails_in_probation_returns_at_once_and_says_so(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    edge.world.behaviour["2.0.0"] = "dies"
    edge.settle(edge.release(model(version="2.0.0")))
    assert [event for event in edge.events() if event[0] in ("failed", "returned")] == [
        ("failed", "model/digits", "2.0.0"),
        ("returned", "model/digits", "1.0.0"),
    ]
    assert edge.reports()["model/digits"].code == "EF4062"


def test_a_first_version_that_fails_is_retired_and_remembered(edge: Edge) -> None:
    edge.world.behaviour["1.0.0"] = "dies"
    edge.settle(edge.release(model()))
    report = edge.reports()["model/digits"]
    assert (report.health, report.digest, report.code) == ("degraded", "", "EF4062")
    assert edge.serves("model", "digits") == ""
    edge.settle(edge.release(model(version="1.0.1")))
    assert edge.serves("model", "digits") == "1.0.1"


def test_bytes_that_are_refused_leave_the_old_version_alone(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    actions(edge)
    edge.bytes.broken.add("2.0.0")
    edge.settle(edge.release(model(version="2.0.0")))
    assert not actions(edge) and edge.serves("model", "digits") == "1.0.0"
    assert edge.reports()["model/digits"].code == Broken.code


def test_bytes_that_do_not_come_now_are_waited_for_and_the_old_version_is_kept_up(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    actions(edge)
    edge.bytes.fault = Busy("no link")
    edge.look(edge.release(model(version="2.0.0")))
    edge.look()
    assert edge.reports()["model/digits"].code == Busy.code
    edge.world.instances["model/digits"][model()[0].digest]["alive"] = False
    edge.look()
    assert actions(edge) == ["Repair digits 1.0.0"]


def test_a_signed_empty_release_removes_all_workloads_first(edge: Edge) -> None:
    edge.settle(edge.release(model(), workload(uses=[("digits", "*", "none")])))
    actions(edge)
    edge.settle(edge.release())
    assert actions(edge) == ["Remove reader", "Remove digits"]
    assert not edge.world.instances and not edge.world.announced and not edge.reports()
    assert not edge.world.content, "the bytes of what is gone go too"


def test_an_overlay_that_is_refused_changes_nothing_and_is_said(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    actions(edge)
    good = edge.release(model(version="2.0.0"))
    edge.settle(replace(good, files={**good.files, "models/digits/note": b"changed on the way"}))
    assert edge.site is not None and edge.site.force.fault is not None
    assert edge.site.force.fault.code == "EF2003"
    assert edge.serves("model", "digits") == "1.0.0" and not actions(edge)
    edge.settle(good)
    assert edge.site.force.fault is None and edge.serves("model", "digits") == "2.0.0"


def test_an_older_release_is_ignored_and_counted(edge: Edge) -> None:
    old = edge.release(model())
    edge.settle(edge.release(model(version="2.0.0")))
    actions(edge)
    edge.settle(old)
    assert edge.site is not None and edge.site.force.ignored == 1 and edge.site.force.fault is None
    assert edge.serves("model", "digits") == "2.0.0" and not actions(edge)


def test_retire_keep_stops_managing_and_leaves_everything(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    actions(edge)
    edge.settle(edge.release(retire="keep"))
    edge.world.instances["model/digits"][model()[0].digest]["drift"] = "somebody else's now"
    edge.look()
    assert not actions(edge) and edge.serves("model", "digits") == "1.0.0"


def test_retire_delete_removes_everything(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    edge.settle(edge.release(model(), retire="delete"))
    assert edge.serves("model", "digits") == "" and not edge.world.instances


def test_a_renamed_placement_restarts_nothing(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    actions(edge)
    edge.settle(edge.release(model(placement="another")))
    assert not actions(edge)


def test_drift_is_corrected_and_a_dead_process_brought_back(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    actions(edge)
    edge.world.instances["model/digits"][model()[0].digest]["drift"] = "replicas is 0, not 1"
    edge.look()
    assert actions(edge) == ["Repair digits 1.0.0"]
    assert ("repaired", "model/digits", "1.0.0") in edge.events()


def test_what_dies_again_and_again_is_brought_back_ever_more_rarely(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    actions(edge)
    edge.tick_ms = 1000
    for _ in range(60):
        for one in edge.world.instances["model/digits"].values():
            one["alive"] = False
        edge.look()
    assert 4 <= len(actions(edge)) <= 8


def test_an_entry_that_requires_what_we_do_not_know_stays_as_it_is_and_the_others_go_on(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    edge.settle(edge.release(model(version="2.0.0", requires=("telepathy",)), model("other")))
    assert edge.serves("model", "digits") == "1.0.0" and edge.serves("model", "other") == "1.0.0"
    report = edge.reports()["model/digits"]
    assert report.code == "EF4060" and "telepathy" in report.message and report.health == "current"


def test_a_delivery_that_the_platform_refuses_is_said_and_the_others_go_on(edge: Edge) -> None:
    edge.settle(edge.release(model("chart", delivery="chart"), model()))
    assert edge.serves("model", "digits") == "1.0.0"
    report = edge.reports()["model/chart"]
    assert (report.health, report.code) == ("degraded", "EF4061")


def test_a_fault_of_one_entry_stops_no_other(edge: Edge) -> None:
    edge.world.behaviour["6.6.6"] = "refused"
    edge.settle(edge.release(model("a", "6.6.6"), model("b"), model("c")))
    assert [edge.serves("model", name) for name in "abc"] == ["", "1.0.0", "1.0.0"]


def test_a_platform_that_cannot_look_leaves_everything_and_says_unknown(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    actions(edge)
    edge.platform.fault = Busy("the API server is away")
    outcome = edge.look(edge.release())
    assert not actions(edge) and not outcome.settled
    assert edge.reports()["model/digits"].health == "unknown"
    edge.platform.fault = None
    edge.settle()
    assert actions(edge) == ["Remove digits"]


def test_a_newer_version_need_not_wait_for_the_probation_of_the_one_before(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    edge.look(edge.release(model(version="2.0.0")))
    edge.look()
    assert edge.serves("model", "digits") == "2.0.0"
    edge.look(edge.release(model(version="3.0.0")))
    edge.look()
    assert edge.serves("model", "digits") == "3.0.0"
    assert edge.site is not None and edge.site.book.states["model", "digits"].running == model()[0].digest
    edge.settle()
    assert list(edge.world.instances["model/digits"]) == [model(version="3.0.0")[0].digest]


def test_a_newer_version_that_fails_within_a_probation_leaves_the_one_in_probation(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    edge.look(edge.release(model(version="2.0.0")))
    edge.look()
    edge.world.behaviour["3.0.0"] = "dead"
    edge.settle(edge.release(model(version="3.0.0")))
    assert edge.serves("model", "digits") == ("2.0.0" if edge.beside else "1.0.0")


def test_going_back_to_what_is_committed_ends_a_probation_at_once(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    edge.look(edge.release(model(version="2.0.0")))
    edge.look()
    edge.look(edge.release(model()))
    edge.look()
    assert edge.serves("model", "digits") == "1.0.0"
    edge.settle()
    state = edge.site.book.states["model", "digits"] if edge.site else None
    assert state is not None and not state.failed and state.phase == "idle"


def test_a_reboot_in_probation_is_no_failure_and_the_checks_run_again(edge: Edge) -> None:
    edge.settle(edge.release(model(test=True)))
    edge.look(edge.release(model(version="2.0.0", test=True)))
    edge.look()
    actions(edge)
    edge.reboot()
    edge.settle()
    assert edge.serves("model", "digits") == "2.0.0"
    assert "Test digits 2.0.0" in actions(edge)
    assert not edge.reports()["model/digits"].code


def test_three_boots_before_the_commit_return_to_the_old_version(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    edge.look(edge.release(model(version="2.0.0")))
    edge.look()
    for _ in range(3):
        edge.reboot()
        edge.look()
    edge.settle()
    assert edge.serves("model", "digits") == "1.0.0"
    assert edge.reports()["model/digits"].code == "EF4064"


def test_a_reboot_brings_back_what_ran_without_the_hub(edge: Edge) -> None:
    edge.settle(edge.release(model(), workload()))
    edge.bytes.fault = Busy("no link")
    edge.reboot()
    edge.settle()
    assert edge.serves("model", "digits") == "1.0.0" and edge.serves("workload", "reader") == "1.0.0"


def test_a_lost_database_takes_over_what_runs_and_restarts_nothing(edge: Edge) -> None:
    overlay = edge.release(model())
    edge.settle(overlay)
    assert edge.site is not None
    edge.site.state.close()
    for path in edge.root.glob("state.sqlite*"):
        path.unlink()
    actions(edge)
    edge.site = None
    edge.settle(overlay)
    assert not actions(edge) and edge.serves("model", "digits") == "1.0.0"


def test_what_was_lost_on_the_disk_is_taken_from_the_same_release_again(edge: Edge) -> None:
    overlay = edge.release(model())
    edge.settle(overlay)
    for path in edge.root.glob("entries/*"):
        path.write_bytes(b"{}")
    edge.start()
    assert edge.site is not None and edge.site.force.revision == ""
    edge.settle(overlay)
    assert edge.serves("model", "digits") == "1.0.0" and edge.site.force.revision == overlay.revision


def uses(wish: str, change: str = "restart") -> list[tuple[str, str, str]]:
    return [("digits", wish, change)]


def test_a_workload_comes_after_its_model(edge: Edge) -> None:
    edge.settle(edge.release(workload(uses=uses(">=1")), model()))
    lines = actions(edge)
    assert lines.index("Switch digits 1.0.0") < lines.index("Start reader 1.0.0")


def test_a_workload_waits_for_a_model_that_is_not_healthy(edge: Edge) -> None:
    edge.world.behaviour["1.0.0"] = "never"
    edge.look(edge.release(workload(version="7.0.0", uses=uses(">=1")), model()))
    edge.look()
    assert edge.serves("workload", "reader") == ""
    assert edge.reports()["workload/reader"].code == "EF4066"


def test_a_model_waits_while_a_workload_that_runs_does_not_take_it(edge: Edge) -> None:
    edge.settle(edge.release(model(), workload(uses=uses("<2"))))
    edge.settle(edge.release(model(version="2.0.0"), workload(uses=uses("<2"))))
    assert edge.serves("model", "digits") == "1.0.0"
    assert edge.reports()["model/digits"].code == "EF4067"


def test_a_model_and_the_workload_that_takes_it_move_together(edge: Edge) -> None:
    edge.settle(edge.release(model(), workload(uses=uses("<2"))))
    actions(edge)
    edge.settle(edge.release(model(version="2.0.0"), workload(version="2.0.0", uses=uses(">=2"))))
    lines = actions(edge)
    assert lines.index("Switch digits 2.0.0") < lines.index("Start reader 2.0.0")
    assert edge.serves("model", "digits") == "2.0.0" and edge.serves("workload", "reader") == "2.0.0"


def test_a_model_that_returns_takes_its_workload_back_with_it(edge: Edge) -> None:
    edge.settle(edge.release(model(), workload(uses=uses("<2"))))
    edge.world.behaviour["2.0.0-m"] = "dies"
    edge.settle(edge.release(model(version="2.0.0-m"), workload(version="2.0.0", uses=uses(">=2.0.0-0"))))
    assert edge.serves("model", "digits") == "1.0.0" and edge.serves("workload", "reader") == "1.0.0"
    assert edge.site is not None and not edge.site.book.states["workload", "reader"].failed


@pytest.mark.parametrize("change", ["restart", "reload", "none"])
def test_a_switched_model_refreshes_the_workloads_that_asked_for_it(edge: Edge, change: str) -> None:
    edge.settle(edge.release(model(), workload(uses=uses("*", change))))
    actions(edge)
    edge.settle(edge.release(model(version="2.0.0"), workload(uses=uses("*", change))))
    refreshes = [line for line in actions(edge) if line.startswith("Refresh")]
    assert refreshes == ([] if change == "none" else [f"Refresh reader {change}"])


def test_consumers_are_told_where_the_models_are_before_the_workload_starts(edge: Edge) -> None:
    edge.settle(edge.release(model(), workload(uses=uses("*"), namespace="shop")))
    lines = edge.world.log
    assert lines.index("Announce shop digits=1.0.0") < lines.index("Start reader 1.0.0")
    edge.settle(edge.release(model(version="2.0.0"), workload(uses=uses("*"), namespace="shop")))
    assert edge.world.announced["shop"][0][:2] == ["digits", "2.0.0"]


def test_a_model_goes_only_after_the_workload_that_leaves_it(edge: Edge) -> None:
    edge.settle(edge.release(model(), workload(uses=uses("*"))))
    actions(edge)
    edge.settle(edge.release(workload(version="2.0.0")))
    lines = actions(edge)
    assert lines.index("Switch reader 2.0.0") < lines.index("Remove digits")


def test_the_order_of_a_releases_entries_changes_nothing(tmp_path: Path) -> None:
    logs = []
    entries = [model(), model("b"), workload(uses=uses("*"))]
    for name, order in (("one", entries), ("two", entries[::-1])):
        edge = Edge(tmp_path / name)
        edge.settle(edge.release(*order))
        logs.append(edge.world.log)
    assert logs[0] == logs[1]


def test_an_entry_without_a_self_test_is_not_asked(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    assert not [line for line in actions(edge) if line.startswith("Test")]
    assert isinstance(model()[0], Entry)


def test_time_without_an_agent_is_not_held_against_a_version_in_probation(edge: Edge) -> None:
    edge.look(edge.release(model()))
    while edge.serves("model", "digits") != "1.0.0":
        edge.look()
    edge.uptime_ms += 3_600_000
    edge.start()
    edge.settle()
    assert edge.serves("model", "digits") == "1.0.0"
    assert [kind for kind, _, _ in edge.events()] == ["accepted", "staged", "switched", "committed"]
