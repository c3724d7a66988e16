"""Two hubs on one PostgreSQL: one decides, both serve; killed while it publishes, the other goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gitops.demo.documents import cluster, placement, version
from gitops.demo.fleet import Fleet, free_port
from gitops.demo.processes import BIN, Background, run
from gitops.demo.sites import get
from tests.gitops.store.conftest import postgres  # noqa: F401  # a fixture
from tests.gitops.store.postgres_server import Server

ROUNDS = 3


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "fleet")
    fleet.open()
    yield fleet
    fleet.close()


@pytest.mark.timeout(200)
def test_the_other_hub_goes_on_when_one_is_killed_while_it_publishes(
    fleet: Fleet,
    postgres: Server,  # noqa: F811  # the fixture
) -> None:
    url = postgres.fresh()
    fleet.init(empty=True)
    names = [f"c{n:02d}" for n in range(30)]
    files: dict[str, str | bytes | None] = {}
    for name in names:
        files |= cluster(name, line="welding")
    fleet.commit("Thirty clusters", files | version("digits", "2.0.0") | placement("digits", model="digits"))
    host = fleet.root / "fleet.git"
    run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(host)])
    options = ("--database", url, "--fleet", f"file://{host}", "--poll", "1")
    fleet.start_hub(*options)
    fleet.until("trust 1 is published", lambda: (host / "refs" / "heads" / "main").exists() or packed(host))
    assert fleet.hub is not None
    hubs: dict[str, Background] = {fleet.hub_url: fleet.hub}
    second = fleet.root / "hub-2"
    second.mkdir()
    shutil.copytree(fleet.hub_state / "keys", second / "keys")
    shutil.copy(fleet.hub_state / "operator.token", second / "operator.token")

    def start(state: Path, log: str) -> str:
        port = free_port()
        command = [str(BIN / "edgeferry"), "hub", "serve", "--state", str(state), "--source", str(fleet.origin)]
        hub = Background([*command, "--listen", f"127.0.0.1:{port}", *options], fleet.root / log)
        hubs[f"http://127.0.0.1:{port}"] = hub
        fleet.until("a further hub answers", lambda: get(f"http://127.0.0.1:{port}/readyz") is not None)
        return f"http://127.0.0.1:{port}"

    states = {fleet.hub_url: fleet.hub_state}
    states[start(second, "hub-2.log")] = second
    try:
        for number in range(ROUNDS):
            leader = next(one for one, hub in hubs.items() if decides(hub))
            process = hubs.pop(leader).process
            wanted = ("1.0.0", "2.0.0")[number % 2]
            head = fleet.commit(f"Number {number}", placement("digits", model="digits", version=wanted))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            fleet.until("the other hub has published it", partial(published, host, head))
            run(["git", "fsck", "--strict", "--no-dangling"], cwd=host)
            assert history_is_one_line(host)
            states[start(states[leader], f"hub-{number + 3}.log")] = states[leader]
    finally:
        for hub in hubs.values():
            hub.stop()
    releases = [run(["git", "show", f"{commit}:{path(host)}"], cwd=host) for commit in changes(host)]
    sequences = [json.loads(release)["sequence"] for release in releases]
    assert sequences == sorted(set(sequences)), "no sequence twice, none back"


def packed(host: Path) -> bool:
    return (host / "packed-refs").exists()


def decides(hub: Background) -> bool:
    return "this one serves" not in hub.log.read_text().split("this hub decides now")[-1]


def published(host: Path, head: str) -> bool:
    return head in run(["git", "log", "main"], cwd=host)


def history_is_one_line(host: Path) -> bool:
    return all(len(line.split()) <= 2 for line in run(["git", "log", "--format=%H %P", "main"], cwd=host).splitlines())


def path(host: Path) -> str:
    return next(
        line
        for line in run(["git", "ls-tree", "-r", "--name-only", "main", "clusters"], cwd=host).splitlines()
        if line.endswith("/c00/release.json")
    )


def changes(host: Path) -> list[str]:
    return run(["git", "log", "--reverse", "--format=%H", "main", "--", path(host)], cwd=host).split()
