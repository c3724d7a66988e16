"""Thirty days of two hundred sites on a virtual clock: cuts of minutes to weeks, reboots, lost answers, bad versions.

The agents, their state on disk, the signed overlays, the reports and the hub's store are real; the platforms are
simulated, and every site is asked for the newest version at once: rollouts have a simulation of their own.
"""

from __future__ import annotations

import os
import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.fetch import Received
from agent.outbox import pending
from agent.speak import Voice, speak
from gitops.store.sqlite import SqliteStore
from tests.agent.simulated_site import Edge, model
from tests.gitops.lossy_line import Line, join

SITES = 200
PUSHES = 40
DAYS = 30
BAD = {13: "dies", 27: "never"}
STEP_MS = DAYS * 86_400_000 // PUSHES
FATES = ("arrives", "arrives", "arrives", "lost", "answer lost", "twice", "late")


@dataclass
class Site:
    """One site, its line to the hub, and what must have arrived of it in the end."""

    name: str
    edge: Edge
    line: Line
    voice: Voice = field(default_factory=lambda: Voice(60_000, "test"))
    cut_until: int = 0
    counted: dict[int, int] = field(default_factory=dict)
    reboots: int = 0

    def look(self, received: Received | None = None) -> bool:
        outcome = self.edge.look(received)
        self._count()
        return outcome.settled

    def speak(self) -> None:
        assert self.edge.site is not None
        speak(self.edge.site, self.voice, self.line, self.edge.instant)  # type: ignore[arg-type]  # stands in for a courier
        self.line.carry()

    def settle(self, received: Received | None = None) -> None:
        """Let the site come to rest with what came; it speaks meanwhile where it is not cut off."""
        settled = self.look(received)
        for _ in range(60):
            if settled:
                break
            settled = self.look()
        self.speak()

    def reboot(self) -> None:
        self.edge.reboot()
        self.voice = Voice(60_000, "test")
        self.line.forget()
        self.reboots += 1

    def _count(self) -> None:
        assert self.edge.site is not None
        for event in pending(self.edge.site.state):
            self.counted[event.number] = event.count


def version(push: int) -> str:
    return f"{push + 1}.0.0"


@pytest.mark.timeout(600)
def test_thirty_days_end_with_every_site_right_and_every_event_accounted_for() -> None:
    seed = int(os.environ.get("EDGEFERRY_SEED", "2026"))
    chance = random.Random(seed)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # thirty days of flushes wear no disk out
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        store = SqliteStore(Path(directory, "hub.sqlite"))
        sites = [_site(Path(directory), store, number) for number in range(SITES)]
        for push in range(PUSHES):
            for site in sites:
                _interval(site, push, chance)
        for site in sites:
            site.cut_until, site.line.fate = 0, "arrives"
            site.settle(_overlay(site, PUSHES - 1))
            for _ in range(3):
                site.look()
                site.speak()
            site.line.arrive_late()
            _check(site, store, seed)
        assert sum(site.reboots for site in sites) > SITES
        store.close()


def _site(root: Path, store: SqliteStore, number: int) -> Site:
    name = f"site-{number:03d}"
    edge = Edge(root / name, probation_s=1.0, start_deadline_s=3.0, tick_ms=700)
    edge.world.behaviour = {version(push): kind for push, kind in BAD.items()}
    edge.start()
    join(store, name)
    return Site(name, edge, Line(store, name))


def _interval(site: Site, push: int, chance: random.Random) -> None:
    """One push, and what happens at a site until the next one."""
    if site.cut_until <= push and chance.random() < 0.15:
        site.cut_until = push + 1 + int(chance.paretovariate(0.8))  # most for hours, some for weeks
    cut = site.cut_until > push
    site.line.fate = "lost" if cut else chance.choice(FATES)
    if chance.random() < 0.12:
        site.reboot()
        site.settle()
    if not cut:
        site.settle(_overlay(site, push))
    site.edge.uptime_ms += STEP_MS
    if chance.random() < 0.05:
        site.line.arrive_late()


def _overlay(site: Site, push: int) -> Received:
    site.edge.sequence = push
    return site.edge.release(model(version=version(push)))


def _check(site: Site, store: SqliteStore, seed: int) -> None:
    where = f"{site.name}, EDGEFERRY_SEED={seed}"
    assert site.edge.serves("model", "digits") == version(PUSHES - 1), where
    assert site.edge.site is not None
    assert not pending(site.edge.site.state), where
    arrived = [(one.event.number, one.event.count) for one in store.events(site.name, 0, 100_000)]
    assert [number for number, _ in arrived] == list(range(1, len(arrived) + 1)), where
    assert dict(arrived) == site.counted, where
    stored = store.report(site.name)
    assert stored is not None, where
    (entry,) = stored.report.entries
    assert (entry.version, entry.health, entry.digest) == (version(PUSHES - 1), "current", entry.wanted), where
    site.edge.site.state.close()
