"""A person at a site: hold, roll back, look, leave; with a real agent and a real model that is asked all the time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitops.demo.documents import cluster, placement, version
from gitops.demo.fleet import Fleet
from gitops.demo.processes import BIN, run
from gitops.demo.reap import belonging
from gitops.demo.seen import Client

SITE = "milan-01"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(tmp_path / "fleet")
    found.open()
    try:
        yield found
    finally:
        found.close()


def at_site(fleet: Fleet, *arguments: str) -> Any:
    state = str(fleet.host(SITE).state)
    return json.loads(run([str(BIN / "edgeferry-agent"), *arguments, "--state", state, "--output", "json"]))


@pytest.mark.timeout(180)
def test_hold_roll_back_and_leave(fleet: Fleet) -> None:
    fleet.init(empty=True)
    fleet.commit("One site", cluster(SITE, line="welding") | placement("digits", model="digits"))
    fleet.start_hub()
    fleet.join(SITE, "--set", "probation_s=0.5", "--set", "look_s=0.3")
    fleet.expect({SITE: "1.0.0"})
    client = Client(fleet, SITE)

    at_site(fleet, "hold", "--why", "calibrating")
    fleet.commit("digits 2.0.0", dict(version("digits", "2.0.0")))
    fleet.until("the hub sees that it is held", lambda: fleet.seen(SITE)["entries"][0]["code"] == "EF4421")
    fleet.expect({SITE: "1.0.0"})
    at_site(fleet, "hold", "--off")
    fleet.expect({SITE: "2.0.0"})

    fleet.until("2.0.0 is committed", lambda: fleet.events(SITE)[-1]["kind"] == "committed")
    at_site(fleet, "rollback", "digits", "--why", "misses scratches")
    fleet.expect({SITE: "1.0.0"})
    fleet.until("the hub sees that it went back", lambda: fleet.seen(SITE)["entries"][0]["code"] == "EF4422")
    assert {one["verdict"] for one in at_site(fleet, "doctor")} == {"ok", "warning"}
    at_site(fleet, "rollback", "digits", "--undo")
    fleet.expect({SITE: "2.0.0"})
    asked, failed = client.stop()
    assert asked > 10 and not failed

    fleet.sites[SITE].stop()
    left = at_site(fleet, "leave", "--delete", "--yes")
    assert left["removed"] == ["model/digits"]
    fleet.until("nothing runs", lambda: not belonging(fleet.host(SITE).state))
    assert not (fleet.host(SITE).state / "key").exists()
