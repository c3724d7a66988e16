"""Windows, deadlines and the floor, at sites whose clocks change, jump, and begin in 1970."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clock import STEADY_MS, Clock
from agent.state import State
from agent.wire.windows import Window
from tests.agent.simulated_site import Edge, model

KEY = ("model", "digits")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def waiting(root: Path, window: Window, now: str) -> Edge:
    """A site where 1.0.0 serves and 2.0.0 waits for the window."""
    edge = Edge(root, probation_s=0.4)
    edge.now = at("2026-01-02T00:00")
    edge.settle(edge.release(model()))
    edge.now = at(now)
    edge.look(edge.release(model(version="2.0.0"), windows=(window,)))
    for _ in range(8):
        edge.look()
    return edge


SUNDAY = ("sun",)
CHANGES = [
    pytest.param(Window(SUNDAY, "02:30", "04:00", "Europe/Rome"), "2026-03-29T01:29", "2026-03-29T01:31", id="forward"),
    pytest.param(Window(SUNDAY, "02:30", "03:30", "Europe/Rome"), "2026-10-25T00:29", "2026-10-25T00:31", id="back"),
    pytest.param(Window(("tue",), "01:00", "02:00", "UTC"), "2028-02-29T00:59", "2028-02-29T01:01", id="leap day"),
    pytest.param(Window(SUNDAY, "23:00", "01:00", "Asia/Tokyo"), "2026-05-31T13:59", "2026-05-31T14:01", id="Tokyo"),
    pytest.param(
        Window((), "23:59", "00:01", "America/New_York"), "2026-01-01T04:58", "2026-01-01T05:00", id="midnight"
    ),
]


@pytest.mark.parametrize(("window", "before", "within"), CHANGES)
def test_a_version_waits_for_the_window_of_the_sites_zone(
    tmp_path: Path, window: Window, before: str, within: str
) -> None:
    edge = waiting(tmp_path / "site", window, before)
    assert edge.serves(*KEY) == "1.0.0"
    assert edge.world.content, "it is staged meanwhile"
    edge.now = at(within)
    edge.settle()
    assert edge.serves(*KEY) == "2.0.0"


def test_where_the_clocks_go_back_a_window_is_never_shorter_than_written(tmp_path: Path) -> None:
    window = Window(SUNDAY, "02:00", "02:30", "Europe/Rome")
    edge = waiting(tmp_path / "site", window, "2026-10-24T23:59")
    assert edge.serves(*KEY) == "1.0.0"
    edge.now = at("2026-10-25T01:20")
    edge.settle()
    assert edge.serves(*KEY) == "2.0.0", "02:20 for the second time"


def test_in_1970_windows_stay_closed_and_what_runs_is_kept_up(tmp_path: Path) -> None:
    window = Window((), "00:00", "23:59", "UTC")
    edge = Edge(tmp_path / "site", probation_s=0.4)
    edge.settle(edge.release(model()))
    edge.trusted = False
    edge.reboot()
    edge.look(edge.release(model(version="2.0.0"), windows=(window,)))
    for _ in range(10):
        edge.look()
    assert edge.serves(*KEY) == "1.0.0", "repaired after the reboot, and not switched"
    assert edge.reports()["model/digits"].code == "EF3250"
    edge.trusted = True
    edge.now = at("2026-01-02T12:00")
    edge.settle()
    assert edge.serves(*KEY) == "2.0.0"


@pytest.mark.parametrize(
    "jump", [timedelta(days=-20_000), timedelta(hours=-1), timedelta(hours=1), timedelta(days=3650)]
)
@pytest.mark.parametrize("moment", range(1, 8))
def test_a_clock_that_jumps_fails_no_version(tmp_path: Path, jump: timedelta, moment: int) -> None:
    edge = Edge(tmp_path / "site", probation_s=1.0, start_deadline_s=5.0)
    edge.world.behaviour = {"2.0.0": "slow"}
    edge.now = at("2026-01-02T00:00")
    edge.settle(edge.release(model()))
    received = edge.release(model(version="2.0.0"))
    for number in range(8):
        if number == moment:
            edge.now += jump
        edge.look(received if number == 0 else None)
    edge.settle()
    assert edge.serves(*KEY) == "2.0.0"
    assert not [event for event in edge.events() if event[0] in ("failed", "returned")]


jumps = st.lists(st.tuples(st.integers(-(10**9), 10**9), st.integers(0, 3 * STEADY_MS)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(jumps)
def test_no_moment_is_before_the_floor_and_a_wild_jump_leaves_none(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]]
) -> None:
    state = State.open(tmp_path_factory.mktemp("clock"))
    clock, wall, uptime_ms = Clock(state), at("2026-01-02T00:00"), 0
    clock.published(at("2026-01-01T00:00"))
    for jump_s, lasted_ms in steps:
        floor = clock.floor
        wall += timedelta(seconds=jump_s)
        first = clock.instant(wall, uptime_ms, "boot")
        assert first.now >= floor and clock.floor == floor, "a jump alone moves no floor"
        assert first.trusted == (wall >= floor - timedelta(seconds=30))
        wall, uptime_ms = wall + timedelta(milliseconds=lasted_ms), uptime_ms + lasted_ms
        then = clock.instant(wall, uptime_ms, "boot")
        assert then.now >= at("2026-01-01T00:00")
        if lasted_ms < STEADY_MS and jump_s:
            assert clock.floor <= max(floor, at("2026-01-01T00:00"))
    state.close()
