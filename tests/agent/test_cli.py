"""The commands, as people call them, on a real host site that takes its overlay from a folder."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.wire.release import Artifact
from agent.wire.trust import paths
from tests.agent.simulated_site import Edge, model

BIN = Path(sys.executable).parent / "edgeferry-agent"


def call(*arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGEFERRY_")}
    done = subprocess.run(
        [str(BIN), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=kept | environment,
        stdin=subprocess.DEVNULL,
        timeout=100,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


class Site:
    def __init__(self, root: Path) -> None:
        self.hub = Edge(root / "hub")
        self.state, self.overlay, self.files = root / "state", root / "overlay", root / "files"
        self.files.mkdir()
        self.overlay.mkdir()

    def publish(self, version: str | None, text: bytes = b"weights") -> None:
        entries = []
        if version is not None:
            path = self.files / version
            path.write_bytes(text)
            digest = "sha256:" + hashlib.sha256(text).hexdigest()
            artifact = Artifact(digest, len(text), "application/octet-stream", f"file://{path}", "weights.bin")
            entries.append(model(version=version, delivery="file", artifacts=(artifact,)))
        received = self.hub.release(*entries)
        for old in sorted(self.overlay.rglob("*"), reverse=True):
            old.unlink() if old.is_file() else old.rmdir()
        trust = {path: (self.hub.root / path).read_bytes() for path in paths(1)}
        for name, data in {**received.files, **trust}.items():
            (self.overlay / name).parent.mkdir(parents=True, exist_ok=True)
            (self.overlay / name).write_bytes(data)

    def join(self) -> None:
        roots = f'file_roots=["{self.files}"]'
        trust = str(self.hub.root / "trust" / "1.json")
        more = ["--set", roots, "--set", "probation_s=0.2", "--set", "wait_s=0.2"]
        call("join", "--folder", str(self.overlay), "--trust", trust, "--cluster", "milan-01", *self.at, *more)

    @property
    def at(self) -> list[str]:
        return ["--state", str(self.state)]

    def status(self) -> dict[str, object]:
        value: dict[str, object] = json.loads(call("status", *self.at, "-o", "json").stdout)
        return value

    def serves(self) -> bytes:
        link = self.state / "models" / "digits" / "current"
        return link.read_bytes() if link.exists() else b""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield Site(tmp_path)


def test_the_help_shows_every_command_and_an_example_of_each() -> None:
    top = call("--help").stdout
    for command in ("join", "run", "once", "plan", "status"):
        assert f"\n  {command} " in top
        shown = call(command, "--help").stdout
        assert f"edgeferry-agent {command}" in shown.split("Examples:")[1]


@pytest.mark.parametrize("command", ["run", "once", "plan", "status"])
def test_before_a_join_a_command_says_so_in_one_line(command: str, tmp_path: Path) -> None:
    done = call(command, "--state", str(tmp_path), code=1)
    assert done.stderr.count("\n") == 1 and "EF4001" in done.stderr


def test_a_usage_error_exits_2(tmp_path: Path) -> None:
    call("join", "--cluster", "milan-01", "--state", str(tmp_path), code=2)
    call("status", "--nonsense", code=2)


def test_a_token_never_stands_on_a_command_line(tmp_path: Path) -> None:
    assert "--token " not in call("join", "--help").stdout
    done = call("join", "--cluster", "a", "--hub", "http://127.0.0.1:9", "--state", str(tmp_path / "s"), code=1,
                EDGEFERRY_TOKEN="very-secret")  # fmt: skip
    assert "EF4020" in done.stderr and "very-secret" not in done.stderr + done.stdout


def test_plan_says_what_would_happen_and_once_does_it(site: Site) -> None:
    site.publish("1.0.0")
    site.join()
    shown = json.loads(call("plan", *site.at, "-o", "json").stdout)
    assert [(one["action"], one["object"]) for one in shown["actions"]] == [("stage", "model/digits")]
    assert not (site.state / "state.sqlite").exists() and not (site.state / "entries").exists() and not site.serves()
    call("once", "--until-current", "--timeout", "60", *site.at)
    assert site.serves() == b"weights"
    assert call("plan", *site.at).stdout == "nothing to do\n"


def test_status_works_from_the_disk_alone(site: Site) -> None:
    site.publish("1.0.0")
    site.join()
    assert site.status()["entries"] == []
    call("once", "--until-current", *site.at)
    (entry,) = site.status()["entries"]  # type: ignore[misc]  # a list
    assert (entry["name"], entry["version"], entry["health"]) == ("digits", "1.0.0", "current")
    assert entry["healthySince"] and entry["wanted"] == entry["digest"]
    text = call("status", *site.at).stdout
    assert "digits" in text and "1.0.0" in text and "release 1" in text
    site.publish(None)
    call("once", "--until-current", *site.at)
    assert site.status()["entries"] == [] and site.serves() == b""


def test_once_says_in_one_line_what_is_not_current(site: Site) -> None:
    site.publish("1.0.0")
    site.join()
    (site.files / "1.0.0").write_bytes(b"others")
    done = call("once", "--until-current", "--timeout", "2", *site.at, code=1)
    assert "EF4056" in done.stderr and "model/digits" in done.stderr


def test_run_follows_the_folder_until_sigterm_and_leaves_what_serves(site: Site, tmp_path: Path) -> None:
    site.publish("1.0.0")
    site.join()
    with (tmp_path / "log").open("wb") as log:
        agent = subprocess.Popen([str(BIN), "run", *site.at], stderr=log, stdout=log)
    try:
        _until(lambda: site.serves() == b"weights", tmp_path / "log")
        refused = call("run", *site.at, code=1)
        assert "EF4050" in refused.stderr
        assert "an agent runs here" in call("plan", *site.at).stderr
        site.publish("2.0.0", b"better")
        _until(lambda: site.serves() == b"better", tmp_path / "log")
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(30) == 0
    finally:
        agent.kill()
        agent.wait()
    assert site.serves() == b"better"
    lines = (tmp_path / "log").read_text()
    assert "release 2 is in force" in lines and "switched model/digits 2.0.0" in lines


def _until(holds: object, log: Path) -> None:
    deadline = time.monotonic() + 60
    while not holds():  # type: ignore[operator]  # a function
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_status_says_how_much_of_a_version_is_here() -> None:
    from agent.cli_status import status_text

    entry = {"kind": "model", "name": "reader", "version": "2.0.0", "digest": "sha256:a", "wanted": "sha256:b"}
    entry |= {"health": "current", "healthySince": "", "code": "", "message": "", "url": ""}
    entry |= {"stagedBytes": 41_000_000, "sizeBytes": 90_000_000}
    found = {"cluster": "milan-01", "platform": "host", "release": None, "fault": "", "entries": [entry]}
    shown = status_text(found | {"contact": {"at": "", "why": ""}, "orders": {}, "hold": "", "asOf": ""})
    assert "model/reader: 41.0 MB of 90.0 MB of the wanted version are here" in shown
