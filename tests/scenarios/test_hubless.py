"""A fleet without a hub: `edgeferry publish` writes, agents read by Git or a folder, artifacts from a directory."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitops.demo.documents import cluster, model, placement, version
from gitops.demo.fleet import Fleet, ask, hash_of
from gitops.demo.processes import BIN, run
from gitops.demo.sites import HostSite


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(tmp_path / "fleet")
    found.open()
    try:
        yield found
    finally:
        found.close()


def publish(fleet: Fleet) -> None:
    fleet.edgeferry("publish", str(fleet.origin), "--fleet", "fleet.git", "--keys", "keys")


def agent(fleet: Fleet, name: str, *arguments: str) -> dict[str, Any]:
    """Run the agent once, with relative paths as a person types them."""
    command = [str(BIN / "edgeferry-agent"), arguments[0], "--state", name, "--output", "json", *arguments[1:]]
    found: dict[str, Any] = json.loads(run(command, cwd=fleet.root))
    return found


def bring_trust(fleet: Fleet) -> None:
    """Write the fleet's trust as a person brings it to a site."""
    for file in ("1.json", "1.json.sig"):
        data = run(["git", "show", f"main:trust/{file}"], cwd=fleet.root / "fleet.git")
        (fleet.root / file).write_text(data)


@pytest.mark.parametrize("way", ["git", "folder"])
def test_models_reach_a_site_by_plain_git_and_folders(fleet: Fleet, way: str) -> None:
    fleet.init()
    publish(fleet)
    bring_trust(fleet)
    checkout = ["git", "clone", "--quiet", "fleet.git", "checkout"]
    run(checkout, cwd=fleet.root)
    where = ("--git", "fleet.git") if way == "git" else ("--folder", "checkout")
    first = 30000 + (hash_of(str(fleet.root)) % 100) * 20
    ports = ("--first-port", str(first), "--last-port", str(first + 19))
    quick = (*ports, "--set", "probation_s=0.5")
    agent(fleet, "site", "join", *where, "--trust", "1.json", "--cluster", "milan-01", "--store", "artifacts", *quick)
    site = fleet.sites["milan-01"] = HostSite("milan-01", fleet.root / "site")
    agent(fleet, "site", "once", "--until-current", "--timeout", "60")
    answer = ask(site.url("digits"), "digits")
    assert answer is not None and answer.version == "1.0.0"

    fleet.commit("digits 2.0.0", dict(version("digits", "2.0.0")))
    publish(fleet)
    shutil.rmtree(fleet.root / "checkout")
    run(checkout, cwd=fleet.root)
    agent(fleet, "site", "once", "--until-current", "--timeout", "60")
    answer = ask(site.url("digits"), "digits")
    assert answer is not None and answer.version == "2.0.0"
    assert (site.state / "report" / "report.json").is_file()


def test_a_changed_byte_in_a_delivered_file_heals(fleet: Fleet) -> None:
    fleet.init(empty=True)
    weights = {**model("weights", "file"), **version("weights", "1.0.0"), **cluster("milan-01")}
    fleet.commit("weights", {**weights, **placement("weights", model="weights")})
    publish(fleet)
    bring_trust(fleet)
    agent(
        fleet, "site", "join", "--git", "fleet.git", "--trust", "1.json", "--cluster", "milan-01",
        "--store", "artifacts", "--set", "probation_s=0.1",
    )  # fmt: skip
    agent(fleet, "site", "once", "--until-current", "--timeout", "60")
    current = fleet.root / "site" / "models" / "weights" / "current"
    right = current.read_bytes()
    for _ in range(2):
        current.resolve().chmod(0o644)
        current.write_bytes(bytes([right[0] ^ 1]) + right[1:])
        agent(fleet, "site", "once", "--until-current", "--timeout", "60")
        assert current.read_bytes() == right
    shutil.rmtree(fleet.root / "artifacts")
    current.write_bytes(b"x" + right[1:])
    command = [str(BIN / "edgeferry-agent"), "once", "--state", "site", "--until-current", "--timeout", "3"]
    failed = subprocess.run(command, cwd=fleet.root, capture_output=True, text=True)
    assert failed.returncode == 1, "without its source it stays degraded"
    assert "degraded" in run([str(BIN / "edgeferry-agent"), "status", "--state", "site"], cwd=fleet.root)
