"""Without a hub, agents push reports to a repository on a Git server, and the publisher reads them from there."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.config import Config
from agent.proof import Fixed
from agent.report_git import GitPost, ReportsRefused
from agent.wire.report import Report, encode_report
from agent.wire.signature import REPORT, SigningKey
from gitops.demo.documents import document, model, placement, version
from gitops.demo.fleet import Fleet
from gitops.demo.processes import BIN, run
from gitops.report_refs import ReportsUnreadable, fetch_reports, hear

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class GitServer:
    """``git daemon``: anybody may read and push."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = ["git", "daemon", "--listen=127.0.0.1", f"--port={self.port}", "--export-all", "--reuseaddr"]
        command += ["--enable=receive-pack", f"--base-path={root}", str(root)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            assert self.process.poll() is None
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except ConnectionRefusedError:
                continue

    def make(self, name: str) -> str:
        run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(self.root / name)])
        return f"git://127.0.0.1:{self.port}/{name}"

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    (tmp_path / "server").mkdir()
    one = GitServer(tmp_path / "server")
    yield one
    one.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(tmp_path / "fleet")
    found.open()
    try:
        yield found
    finally:
        found.close()


def call(fleet: Fleet, program: str, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run([str(BIN / program), *arguments, "--output", "json"], cwd=fleet.root))
    return found


def test_facts_of_a_fleet_without_a_hub_decide_and_foreign_reports_do_not(fleet: Fleet, server: GitServer) -> None:
    reports, home = server.make("reports.git"), server.make("fleet.git")
    fleet.init(empty=True)
    arch = json.loads(run([str(BIN / "python3"), "-c", _ARCH]))
    weights = {**model("weights", "file", needs={"arch": [arch]}), **version("weights", "1.0.0")}
    cluster = {"clusters/milan-01.yaml": document("Cluster", "milan-01", {})}
    fleet.commit("weights", {**weights, **cluster, **placement("weights", model="weights")})
    fleets = ("--fleet", home, "--fleet-branches", "--keys", "keys", "--reports", reports)
    publish = ("publish", str(fleet.origin), *fleets)
    call(fleet, "edgeferry", *publish)
    for file in ("1.json", "1.json.sig"):
        (fleet.root / file).write_text(run(["git", "show", f"main:trust/{file}"], cwd=server.root / "fleet.git"))
    joined = call(
        fleet, "edgeferry-agent", "join", "--state", "site", "--git", home, "--trust", "1.json", "--cluster",
        "milan-01", "--store", "artifacts", "--reports", reports, "--set", "probation_s=0.1",
    )  # fmt: skip
    call(fleet, "edgeferry-agent", "once", "--state", "site")
    first = call(fleet, "edgeferry", *publish)
    assert "EF3023" in first["refusedReports"][0] and "no cluster with a key" in first["refusedReports"][0]
    assert first["moves"] == []
    fleet.commit("key", {"clusters/milan-01.yaml": document("Cluster", "milan-01", {"key": joined["key"]})})
    second = call(fleet, "edgeferry", *publish)
    assert [(one["name"], one["to"]) for one in second["moves"]] == [("weights", "1.0.0")]
    done = call(fleet, "edgeferry-agent", "once", "--state", "site", "--until-current", "--timeout", "60")
    assert done["entries"][0]["health"] == "current"
    assert call(fleet, "edgeferry", *publish)["head"] == ""
    branch = run(["git", "log", "--format=%P", "report/milan-01"], cwd=server.root / "reports.git")
    assert branch == "\n", "one commit without a parent, however often it was pushed"

    push(fleet.root / "site", reports, "milan-01", SigningKey.generate())
    forged = call(fleet, "edgeferry", *publish)
    assert "EF2004" in forged["refusedReports"][0] and forged["moves"] == []


def test_a_branch_of_another_cluster_or_of_no_report_is_refused_by_itself(tmp_path: Path, server: GitServer) -> None:
    url, keys = server.make("reports.git"), {name: SigningKey.generate() for name in ("a", "b", "c")}
    push(tmp_path, url, "a", keys["a"])
    push(tmp_path, url, "b", keys["b"], says="a")
    push(tmp_path, url, "c", keys["c"], data=b"{}")
    work = tmp_path / "work"
    run(["git", "clone", "--quiet", url, str(work)])
    for branch, files in (("report/empty", {"x": "y"}), ("report/large", {"report.json": "x" * (1 << 21)})):
        run(["git", "checkout", "--quiet", "--orphan", branch], cwd=work)
        for name, text in {**files, "report.json.sig": "s"}.items():
            (work / name).write_text(text)
        run(["git", "add", "--all"], cwd=work)
        run(["git", "-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "-m", "x"], cwd=work)
        run(["git", "push", "--quiet", "origin", branch], cwd=work)
    heard = hear(fetch_reports(url, tmp_path / "copy"), {name: key.public for name, key in keys.items()}, "f")
    assert set(heard.reports) == {"a"} and heard.highest == {"a": 7}
    assert sorted(one.where.rpartition("/")[2] for one in heard.refused) == ["b", "c", "empty", "large"]


def test_agents_that_push_at_the_same_time_all_arrive(tmp_path: Path, server: GitServer) -> None:
    url, keys = server.make("reports.git"), {f"site-{n}": SigningKey.generate() for n in range(6)}
    begin, failed = threading.Barrier(len(keys)), list[Exception]()

    def agent(name: str) -> None:
        (tmp_path / name).mkdir()
        post = GitPost(Config(name, "f", reports=url), Fixed(""), tmp_path / name)
        begin.wait()
        for number in range(1, 4):
            data = encode_report(Report("f", name, "i", number, NOW, sequence=number))
            try:
                post.send(data, keys[name].sign(data, REPORT))
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=agent, args=(name,)) for name in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    heard = hear(fetch_reports(url, tmp_path / "copy"), {name: key.public for name, key in keys.items()}, "f")
    assert heard.highest == dict.fromkeys(keys, 3) and not heard.refused
    assert [path.name for path in (tmp_path / "site-0").iterdir()] == ["report"], "nothing is left beside"


def test_a_server_that_refuses_or_is_gone_is_named(tmp_path: Path, server: GitServer) -> None:
    url = server.make("reports.git")
    hook = server.root / "reports.git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho no reports here\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(ReportsRefused, match="no reports here"):
        push(tmp_path, url, "a", SigningKey.generate())
    with pytest.raises(ReportsUnreadable):
        fetch_reports(f"{url}-not-there", tmp_path / "copy")


def push(root: Path, url: str, branch: str, key: SigningKey, says: str = "", data: bytes = b"") -> None:
    """Push what is signed with a key to a branch, as an agent does."""
    data = data or encode_report(Report("f", says or branch, "i", 1, NOW, sequence=7))
    GitPost(Config(branch, "f", reports=url), Fixed(""), root).send(data, key.sign(data, REPORT))


_ARCH = """
import json, platform
from agent.platforms.host_facts import ARCHITECTURES
print(json.dumps(ARCHITECTURES.get(platform.machine(), platform.machine())))
"""
