"""A site that has heard nothing for longer than it may: it goes on and says so, or stops and comes back by itself."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from agent.offline import keep_contact
from agent.orders import Hold, Orders, write_orders
from agent.wire.release import MaxOffline, decode_release
from tests.agent.simulated_site import Edge, model

KEY = ("model", "digits")
HOURS_MS = 3_600_000


def site(root: Path, action: Literal["keep", "stop"]) -> Edge:
    """A site that was heard of just now, and may be cut off for three days."""
    edge = Edge(root, probation_s=0.4)
    edge.settle(edge.release(model(), max_offline=MaxOffline(72 * 3600, action)))
    hear(edge)
    return edge


def hear(edge: Edge) -> None:
    assert edge.site is not None
    keep_contact(edge.site.state, edge.instant.now, "")


def look(edge: Edge, hours: float = 0) -> None:
    edge.uptime_ms += int(hours * HOURS_MS)
    for _ in range(12):
        edge.look()


def late(edge: Edge) -> str:
    assert edge.site is not None
    return edge.site.late.code if edge.site.late is not None else ""


@pytest.mark.parametrize("action", ["keep", "stop"])
def test_within_the_time_nothing_happens(tmp_path: Path, action: Literal["keep", "stop"]) -> None:
    edge = site(tmp_path / "site", action)
    look(edge, 71)
    assert (edge.serves(*KEY), late(edge)) == ("1.0.0", "")


def test_kept_it_goes_on_is_repaired_and_says_so(tmp_path: Path) -> None:
    edge = site(tmp_path / "site", "keep")
    look(edge, 80)
    edge.reboot()
    look(edge)
    assert (edge.serves(*KEY), late(edge)) == ("1.0.0", "EF4445")


def test_stopped_it_stays_stopped_over_a_reboot_and_starts_again_when_it_hears(tmp_path: Path) -> None:
    edge = site(tmp_path / "site", "stop")
    brought = list(edge.bytes.brought)
    look(edge, 73)
    assert (edge.serves(*KEY), late(edge)) == ("", "EF4445")
    edge.reboot()
    look(edge)
    assert edge.serves(*KEY) == ""
    hear(edge)
    edge.settle()
    assert (edge.serves(*KEY), late(edge)) == ("1.0.0", "")
    assert edge.bytes.brought == brought, "nothing is fetched again"


def test_a_hold_does_not_keep_what_must_stop(tmp_path: Path) -> None:
    edge = site(tmp_path / "site", "stop")
    write_orders(edge.root, Orders(held={"*": Hold("", edge.instant.now)}))
    look(edge, 73)
    assert edge.serves(*KEY) == ""


def test_a_clock_that_is_behind_stops_nothing(tmp_path: Path) -> None:
    edge = site(tmp_path / "site", "stop")
    edge.now -= timedelta(days=20_000)
    look(edge, 100)
    assert edge.serves(*KEY) == "1.0.0"


def test_a_newer_release_that_is_carried_here_counts_as_heard(tmp_path: Path) -> None:
    edge = site(tmp_path / "site", "stop")
    look(edge, 73)
    edge.look(edge.release(model(version="2.0.0"), max_offline=MaxOffline(72 * 3600, "stop")))
    assert late(edge) == ""
    hear(edge)
    edge.settle()
    assert edge.serves(*KEY) == "2.0.0"


def test_a_release_without_a_limit_reads_as_none() -> None:
    golden = Path(__file__).parents[1] / "cases" / "formats" / "1" / "release.json"
    assert decode_release(golden.read_bytes()).max_offline is None
