"""A site that no network reaches: files are carried there and back, by the commands that people type."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitops.demo.documents import cluster, document, placement, version
from gitops.demo.fleet import Fleet, hash_of
from gitops.demo.processes import BIN, run
from gitops.demo.sites import HostSite

SITE = "island-01"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(tmp_path / "fleet")
    found.open()
    try:
        yield found
    finally:
        found.close()


def agent(fleet: Fleet, *arguments: str) -> Any:
    state = str(fleet.root / "site")
    return json.loads(run([str(BIN / "edgeferry-agent"), *arguments, "--state", state, "-o", "json"], cwd=fleet.root))


def hub(fleet: Fleet, *arguments: str) -> Any:
    return json.loads(fleet.edgeferry(*arguments, "--state", str(fleet.hub_state), "-o", "json"))


def export(fleet: Fleet, *more: str) -> Any:
    return hub(fleet, "export", SITE, "--out", "stick.tar", *more)


def joined(fleet: Fleet) -> None:
    fleet.init(empty=True)
    fleet.commit("A site", cluster(SITE, line="welding") | placement("digits", model="digits"))
    fleet.start_hub("--poll", "0.5")
    for name in ("1.json", "1.json.sig"):
        fleet.until("trust is published", lambda: fleet.status()["head"])
        data = run(["git", "show", f"main:trust/{name}"], cwd=fleet.hub_state / "fleet.git")
        (fleet.root / name).write_text(data)
    first = 40000 + (hash_of(str(fleet.root)) % 100) * 20
    ports = ("--first-port", str(first), "--last-port", str(first + 19), "--set", "probation_s=0.5")
    key = agent(fleet, "join", "--carried", "--trust", "1.json", "--cluster", SITE, *ports)["key"]
    text = document("Cluster", SITE, {"key": key}, {"line": "welding"})
    fleet.commit("Its key", {f"clusters/{SITE}.yaml": text})
    fleet.until("a release for the key", lambda: fleet.seen(SITE)["published"] == 2)
    fleet.sites[SITE] = HostSite(SITE, fleet.root / "site", fleet.place)


def carry_back(fleet: Fleet) -> Any:
    agent(fleet, "export-report", "--out", "back.report")
    return hub(fleet, "import-report", "back.report")


@pytest.mark.timeout(180)
def test_there_and_back_with_only_what_lacks(fleet: Fleet) -> None:
    joined(fleet)
    first = export(fleet)
    assert first["blobs"] > 0 and first["alreadyThere"] == 0
    assert agent(fleet, "import", "stick.tar")["news"]
    agent(fleet, "once", "--until-current", "--timeout", "60")
    fleet.expect({SITE: "1.0.0"})
    assert carry_back(fleet)["events"] > 2
    told = fleet.seen(SITE)
    assert [one["version"] for one in told["entries"]] == ["1.0.0"] and told["sequence"] == 2

    again = export(fleet)
    assert (again["blobs"], again["alreadyThere"]) == (0, 1), "it has the model already"
    fleet.commit("digits 2.0.0", dict(version("digits", "2.0.0")))
    fleet.until("2.0.0 is published", lambda: fleet.seen(SITE)["published"] == 3)
    export(fleet)
    shutil.copy(fleet.root / "back.report", fleet.root / "old.report")
    assert agent(fleet, "import", "stick.tar")["acknowledged"] > 2
    agent(fleet, "once", "--until-current", "--timeout", "60")
    fleet.expect({SITE: "2.0.0"})
    carry_back(fleet)
    hub(fleet, "import-report", "old.report")
    hub(fleet, "import-report", "back.report")
    events = fleet.events(SITE)
    assert [one["number"] for one in events] == list(range(1, len(events) + 1)), "each once, in order"
    assert [one["version"] for one in fleet.seen(SITE)["entries"]] == ["2.0.0"], "the older report changes nothing"


@pytest.mark.timeout(180)
def test_damaged_and_foreign_files_change_nothing_and_a_whole_one_goes_on(fleet: Fleet) -> None:
    joined(fleet)
    export(fleet)
    stick = fleet.root / "stick.tar"
    whole = stick.read_bytes()

    def refused(data: bytes, code: str, *arguments: str) -> None:
        stick.write_bytes(data)
        with pytest.raises(RuntimeError, match=code):
            agent(fleet, *(arguments or ("import", "stick.tar")))

    refused(whole[: len(whole) // 2], "EF4")
    refused(b"no tar at all", "EF4441")
    model = whole.rindex(b"blobs/sha256/") + 600
    refused(whole[:model] + bytes([whole[model] ^ 1]) + whole[model + 1 :], "EF4441")
    refused(whole.replace(b'"number":0', b'"number":9'), "EF2004")
    stick.write_bytes(whole)
    agent(fleet, "import", "stick.tar")
    agent(fleet, "once", "--until-current", "--timeout", "60")
    fleet.expect({SITE: "1.0.0"})
    agent(fleet, "export-report", "--out", "back.report")
    data = json.loads((fleet.root / "back.report").read_bytes())
    data["report"] = data["report"][:40] + ("A" if data["report"][40] != "A" else "B") + data["report"][41:]
    (fleet.root / "back.report").write_text(json.dumps(data))
    with pytest.raises(RuntimeError, match=r"EF2001|EF2004|EF3333"):
        hub(fleet, "import-report", "back.report")
