"""kill -9 of a real agent process at random moments, while releases come: it always finds its way."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.fetch import Received
from agent.outbox import pending
from agent.state import State
from tests.agent.simulated_site import Edge, World, model, workload

ROOT = Path(__file__).parents[2]


class Site:
    def __init__(self, tmp_path: Path) -> None:
        self.edge = Edge(tmp_path / "site")
        self.overlays = tmp_path / "overlays"
        self.overlays.mkdir()
        self.log = tmp_path / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def publish(self, overlay: Received) -> None:
        root = self.overlays / overlay.revision
        for path, data in overlay.files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        beside = self.overlays / "new"
        beside.write_text(overlay.revision)
        beside.rename(self.overlays / "now")

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.agent.agent_process", str(self.edge.root), str(self.overlays)]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)

    def end(self, how: signal.Signals = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(30)

    def serves(self, kind: str, name: str) -> str:
        self.edge.world = World(self.edge.root / "world.json")
        return self.edge.serves(kind, name)

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            assert self.process is not None and self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.02)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    yield one
    if one.process is not None and one.process.poll() is None:
        one.end()


def test_an_agent_that_is_killed_again_and_again_ends_at_what_is_asked_for(site: Site) -> None:
    chance = random.Random(2026)
    site.edge.world.behaviour = {"6.6.6": "dies"}
    site.edge.world.save()
    site.publish(site.edge.release(model(), workload(uses=[("digits", "*", "restart")])))
    versions = ["2.0.0", "6.6.6", "3.0.0", "6.6.6", "4.0.0"]
    for version in versions:
        for _ in range(3):
            site.start()
            site.until(lambda: bool(site.log.stat().st_size) or (site.edge.root / "state.sqlite").exists())
            _wait(chance.uniform(0.0, 0.9))
            site.end()
        site.publish(site.edge.release(model(version=version), workload(uses=[("digits", "*", "restart")])))
    site.start()
    site.until(lambda: site.serves("model", "digits") == "4.0.0" and site.serves("workload", "reader") == "1.0.0")
    site.until(lambda: len(World(site.edge.root / "world.json").instances["model/digits"]) == 1)
    assert site.end(signal.SIGTERM) == 0
    assert site.serves("model", "digits") == "4.0.0", "what serves goes on after the agent has ended"
    state = State.read(site.edge.root)
    numbers = [one.number for one in pending(state)]
    assert numbers == list(range(1, len(numbers) + 1)), "every event once, in order"


def test_sigterm_ends_the_agent_cleanly_and_the_next_one_restarts_nothing(site: Site) -> None:
    site.publish(site.edge.release(model()))
    site.start()
    site.until(lambda: site.serves("model", "digits") == "1.0.0")
    assert site.end(signal.SIGTERM) == 0
    before = World(site.edge.root / "world.json").log
    site.start()
    site.until(lambda: "committed" in site.log.read_text())
    site.end(signal.SIGTERM)
    log = World(site.edge.root / "world.json").log
    assert [line for line in log[len(before) :] if not line.startswith("Announce")] == []


def test_a_second_agent_is_refused(site: Site) -> None:
    site.publish(site.edge.release(model()))
    site.start()
    site.until(lambda: site.serves("model", "digits") == "1.0.0")
    second = subprocess.run(
        [sys.executable, "-m", "tests.agent.agent_process", str(site.edge.root), str(site.overlays)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode != 0 and "EF4050" in second.stderr


def _wait(seconds: float) -> None:
    """Let the process run: the moment of the kill is what is random here."""
    read, write = os.pipe()
    with os.fdopen(read), os.fdopen(write, "w"):
        import select

        select.select([read], [], [], seconds)
