"""Windows: the switch waits for the site's own time, over both changes of the clocks; nothing else does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.steps import WaitsForWindow
from agent.wire.windows import DAYS, Window, opening
from tests.agent.simulated_site import Edge, model

ROME = "Europe/Rome"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "now", "state"),
    [
        (Window(("sat",), "02:00", "05:00", ROME), "2026-11-28T01:00", True),
        (Window(("sat",), "02:00", "05:00", ROME), "2026-11-28T00:59", False),
        (Window(("sat",), "02:00", "05:00", ROME), "2026-11-28T04:00", False),
        (Window(("sat",), "02:00", "05:00", ROME), "2026-06-06T00:00", True),
        (Window(("sat",), "22:00", "02:00", ROME), "2026-11-29T00:30", True),
        (Window(("sat",), "22:00", "02:00", ROME), "2026-11-28T00:30", False),
        (Window((), "23:00", "01:00"), "2026-11-25T00:30", True),
        (Window(("sun",), "02:00", "02:30", ROME), "2026-03-29T01:10", True),
        (Window(("sun",), "02:00", "02:30", ROME), "2026-10-25T01:20", True),
    ],
    ids=[
        "opens", "before", "closes", "in summer", "the next day is the opening's", "the day before is not",
        "every day", "an hour that does not exist", "an hour that comes twice",
    ],
)  # fmt: skip
def test_a_window_is_open(window: Window, now: str, state: bool) -> None:
    assert opening([window], at(now)).open is state


def test_without_windows_it_is_always_open() -> None:
    assert opening([], at("2026-01-01T00:00")).open


clocks = st.times().map(lambda t: f"{t:%H:%M}")
windows = st.builds(
    Window,
    st.lists(st.sampled_from(DAYS), max_size=3, unique=True).map(tuple),
    clocks,
    clocks,
    st.sampled_from(["UTC", ROME, "America/New_York", "Australia/Lord_Howe"]),
)
moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)).map(lambda t: t.replace(tzinfo=UTC, microsecond=0))  # noqa: DTZ001  # made UTC here


@given(st.lists(windows, min_size=1, max_size=3), moments)
def test_a_state_lasts_exactly_until_it_says_so(found: list[Window], now: datetime) -> None:
    one = opening(found, now)
    assert one.since <= now and (one.open or one.until is not None)
    if one.until is None:
        return  # together they cover the whole week
    assert now < one.until
    assert opening(found, one.until - timedelta(seconds=1)).open is one.open
    assert opening(found, one.until).open is not one.open


def later(edge: Edge) -> Window:
    """Return a window that opens in two hours."""
    now = edge.instant.now
    return Window((), f"{now + timedelta(hours=2):%H:%M}", f"{now + timedelta(hours=3):%H:%M}")


def test_the_switch_waits_and_what_runs_is_kept_up(tmp_path: Path) -> None:
    edge = Edge(tmp_path / "site")
    edge.settle(edge.release(model()))
    outcome = edge.settle(edge.release(model(version="2.0.0"), windows=(later(edge),)))
    assert edge.serves("model", "digits") == "1.0.0"
    assert any(isinstance(wait.fault, WaitsForWindow) for wait in outcome.plan.waits)
    assert edge.reports()["model/digits"].code == "EF3250"
    edge.uptime_ms += 2 * 3_600_000 + 60_000
    edge.settle()
    assert edge.serves("model", "digits") == "2.0.0"


def test_a_return_and_a_first_version_do_not_wait(tmp_path: Path) -> None:
    edge = Edge(tmp_path / "site")
    closed = later(edge)
    edge.settle(edge.release(model(), windows=(closed,)))
    assert edge.serves("model", "digits") == "1.0.0", "where nothing runs there is nothing to disturb"
    edge.settle(edge.release(model(version="2.0.0"), windows=(closed,), returns=("model/digits",)))
    assert edge.serves("model", "digits") == "2.0.0"


def test_what_is_no_longer_asked_for_goes_on_where_the_fleet_keeps_it(tmp_path: Path) -> None:
    edge = Edge(tmp_path / "site")
    edge.settle(edge.release(model()))
    edge.settle(edge.release(keep=True))
    assert edge.serves("model", "digits") == "1.0.0"
    edge.settle(edge.release())
    assert edge.serves("model", "digits") == ""


def test_what_failed_is_tried_again_once_for_each_order(tmp_path: Path) -> None:
    edge = Edge(tmp_path / "site")
    edge.settle(edge.release(model()))
    edge.world.behaviour["2.0.0"] = "dead"
    edge.settle(edge.release(model(version="2.0.0")))
    assert edge.reports()["model/digits"].failed
    edge.world.behaviour.clear()
    edge.settle(edge.release(model(version="2.0.0")))
    assert edge.serves("model", "digits") == "1.0.0"
    edge.settle(edge.release(model(version="2.0.0"), retries={"model/digits": "order-1"}))
    assert edge.serves("model", "digits") == "2.0.0"
