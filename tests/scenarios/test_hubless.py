"""A fleet without a hub: `edgeferry publish` writes, agents read by Git or a folder, artifacts from a directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitops.demo.documents import version
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


@pytest.mark.parametrize("way", ["git", "folder"])
def test_models_reach_a_site_by_plain_git_and_folders(fleet: Fleet, way: str) -> None:
    fleet.init()
    publish(fleet)
    for file in ("1.json", "1.json.sig"):
        data = run(["git", "show", f"main:trust/{file}"], cwd=fleet.root / "fleet.git")
        (fleet.root / file).write_text(data)
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
