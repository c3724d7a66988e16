"""One simulated site: a platform whose processes crash, hang and are cut off, and an agent that is killed anywhere.

The faults here cannot be provoked otherwise: a power cut between two lines. The world outlives the agent and is kept in
a file, so that agents in processes of their own can share it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent import durable, outbox
from agent.actions import (
    Action,
    Announce,
    ModelPoint,
    Observed,
    Refresh,
    Remove,
    Repair,
    Retire,
    Seen,
    Staged,
    Start,
    Switch,
    Test,
)
from agent.clock import Instant
from agent.config import Config
from agent.fetch import Received
from agent.reconcile import Outcome, Site, cycle, open_site, standing
from agent.report import entry_reports
from agent.state import State
from agent.wire.canonical import digest
from agent.wire.errors import Retry, Stop
from agent.wire.release import (
    NAME,
    SIGNATURE_NAME,
    Artifact,
    Entry,
    ModelUse,
    Release,
    SelfTest,
    encode_release,
    with_digest,
)
from agent.wire.report import Health
from agent.wire.signature import RELEASE, SigningKey
from agent.wire.trust import Trust, paths, sign_trust

FLEET = "f1ee7"
EPOCH = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Killed(BaseException):
    """The agent's process is gone: nothing may catch this."""


class Broken(Stop):
    code = "EF9901"


class Busy(Retry):
    code = "EF9902"
    delay_s = 0.5


class World:
    """What is at the site besides the agent. Behaviour goes by version: ``good`` where nothing else is said.

    Behaviours: ``good``, ``dead`` (crashes at start), ``dies`` (crashes once it serves), ``slow`` (ready at the third
    look), ``never`` (is never ready), ``wrong`` (fails the self-test), ``refused`` (cannot be switched to).
    """

    def __init__(self, path: Path, *, beside: bool = True) -> None:
        self.path = path
        self.beside = beside
        self.instances: dict[str, dict[str, dict[str, Any]]] = {}
        self.serving: dict[str, str] = {}
        self.announced: dict[str, list[list[str]]] = {}
        self.content: list[str] = []
        self.behaviour: dict[str, str] = {}
        self.log: list[str] = []
        if path.exists():
            for name, value in json.loads(path.read_text()).items():
                setattr(self, name, value)

    def save(self) -> None:
        names = ("beside", "instances", "serving", "announced", "content", "behaviour", "log")
        durable.write(self.path, json.dumps({name: getattr(self, name) for name in names}).encode())

    def reboot(self) -> None:
        """Every process is gone; what was routed stays routed."""
        for instances in self.instances.values():
            for one in instances.values():
                one["alive"] = False
        self.save()

    def of(self, version: str) -> str:
        return self.behaviour.get(version, "good")


@dataclass
class SimulatedPlatform:
    """Executes plans on a world.

    Attributes:
        strike: called before and after every effect; may raise ``Killed``.
        fault: raised by every look and every action while it is set.
    """

    world: World
    strike: Callable[[str], None] = lambda _: None
    fault: Exception | None = None
    name: str = "host"

    def refuses(self, entry: Entry) -> str:
        return "" if entry.delivery != "chart" else "it runs no charts"

    def facts(self) -> Mapping[str, str]:
        return {"arch": "amd64", "os": "linux", "platform": "host"}

    def close(self) -> None:
        pass

    def observe(self, known: Sequence[Staged]) -> Observed:
        if self.fault is not None:
            raise self.fault
        world, seen = self.world, []
        for key in sorted(world.instances):
            kind, name = key.split("/")
            for entry_digest, one in sorted(world.instances[key].items()):
                serving = world.serving.get(key) == entry_digest
                health, message = self._health(one, serving)
                seen.append(
                    Seen(
                        kind,
                        name,
                        entry_digest,
                        serving,
                        health,
                        drift=one["drift"] or ("its process is gone" if serving and not one["alive"] else ""),
                        url=f"http://127.0.0.1/{name}" if serving else "",
                        message=message,
                    )
                )
        announced = {
            namespace: tuple(ModelPoint(*point) for point in points) for namespace, points in world.announced.items()
        }
        return Observed(tuple(seen), announced)

    def execute(self, action: Action) -> None:
        what = type(action).__name__
        self.strike(f"before {what}")
        if self.fault is not None:
            raise self.fault
        self._do(action)
        self.world.log.append(_line(action))
        self.world.save()
        self.strike(f"after {what}")

    def _do(self, action: Action) -> None:
        world = self.world
        match action:
            case Start(staged):
                if world.beside:
                    self._up(staged)
            case Test(staged):
                if world.of(staged.entry.version) == "wrong":
                    raise Broken(f"{staged.entry.version} answers wrongly")
            case Switch(staged):
                if world.of(staged.entry.version) == "refused":
                    raise Broken(f"{staged.entry.version} cannot be applied")
                if not world.beside:
                    world.instances[_key(staged)] = {}
                self._up(staged)
                world.serving[_key(staged)] = staged.digest
            case Retire(staged):
                world.instances.get(_key(staged), {}).pop(staged.digest, None)
                if world.serving.get(_key(staged)) == staged.digest:
                    del world.serving[_key(staged)]
            case Repair(staged):
                world.instances.get(_key(staged), {}).pop(staged.digest, None)
                self._up(staged)
                world.serving[_key(staged)] = staged.digest
            case Remove(kind, name):
                world.instances.pop(f"{kind}/{name}", None)
                world.serving.pop(f"{kind}/{name}", None)
            case Announce(namespace, points):
                world.announced[namespace] = [[one.name, one.version, one.url, one.path] for one in points]
                if not points:
                    del world.announced[namespace]
            case Refresh():
                pass
            case _:
                raise AssertionError(action)

    def _up(self, staged: Staged) -> None:
        assert staged.digest in self.world.content, "an entry is brought up without its bytes"
        instances = self.world.instances.setdefault(_key(staged), {})
        one = instances.get(staged.digest)
        if one is None or not one["alive"]:
            alive = self.world.of(staged.entry.version) != "dead"
            version = staged.entry.version
            instances[staged.digest] = {"alive": alive, "looks": 0, "drift": "", "version": version, "served": 0}

    def _health(self, one: dict[str, Any], serving: bool) -> tuple[Health, str]:
        one["looks"] += 1
        one["served"] += serving
        behaviour = self.world.of(one["version"])
        if behaviour == "dies" and one["served"] > 2:
            one["alive"] = False
        if not one["alive"]:
            return "degraded", "its process ended with 1"
        if behaviour == "never" or (behaviour == "slow" and one["looks"] < 3):
            return "progressing", "it is not ready yet"
        return "current", ""


@dataclass
class SimulatedBytes:
    """Entries' bytes; they are there at once, unless ``fault`` says no."""

    world: World
    fault: Exception | None = None
    broken: set[str] = field(default_factory=set)
    brought: list[str] = field(default_factory=list)

    def present(self, entry: Entry, files: Mapping[str, bytes]) -> Staged | None:
        return Staged(entry, files) if entry.digest in self.world.content else None

    def stage(self, entry: Entry, files: Mapping[str, bytes], progress: Callable[[int], None]) -> Staged:
        if self.fault is not None:
            raise self.fault
        if entry.version in self.broken:
            raise Broken(f"{entry.version} is not what it should be")
        progress(1)
        if entry.digest not in self.world.content:
            self.world.content.append(entry.digest)
            self.brought.append(entry.digest)
            self.world.save()
        return Staged(entry, files)

    def doubt(self, entry: Entry) -> None:
        self.world.content = [one for one in self.world.content if one != entry.digest]

    def collect(self, keep: Collection[Entry]) -> None:
        self.world.content = [one for one in self.world.content if one in {entry.digest for entry in keep}]
        self.world.save()


@dataclass
class Edge:
    """A joined site on ``root``, its agent, and the hub's side of it.

    Attributes:
        uptime_ms: moves on with every cycle, by ``tick_ms``.
        epoch: what the clock showed when the site booted.
        trusted: the clock is not behind its floor.
    """

    root: Path
    beside: bool = True
    probation_s: float = 2.0
    start_deadline_s: float = 10.0
    uptime_ms: int = 1_000_000
    boot: str = "boot-1"
    tick_ms: int = 200
    sequence: int = 0
    epoch: datetime = EPOCH
    trusted: bool = True
    model_keys: tuple[str, ...] = ()
    trust: int = 1

    def __post_init__(self) -> None:
        self.root.mkdir(exist_ok=True)
        self.config = Config(
            "milan-01", FLEET, probation_s=self.probation_s, start_deadline_s=self.start_deadline_s, look_s=5.0
        )
        self.signer, self.root_key = _key_of(self.root, "release"), _key_of(self.root, "root")
        trust = Trust(FLEET, 1, (self.root_key.public,), (self.signer.public,), self.model_keys)
        (self.root / "trust").mkdir(exist_ok=True)
        for path, data in zip(paths(1), sign_trust(trust, (self.root_key,)), strict=True):
            (self.root / path).write_bytes(data)
        self.world = World(self.root / "world.json", beside=self.beside)
        self.platform = SimulatedPlatform(self.world)
        self.bytes = SimulatedBytes(self.world)
        self.woken = threading.Event()
        self.site: Site | None = None

    @property
    def instant(self) -> Instant:
        return Instant(
            self.epoch + timedelta(milliseconds=self.uptime_ms), self.uptime_ms, self.boot, trusted=self.trusted
        )

    @property
    def now(self) -> datetime:
        return self.instant.now

    @now.setter
    def now(self, wall: datetime) -> None:
        """Set the site's clock; the time since boot goes on."""
        self.epoch = wall - timedelta(milliseconds=self.uptime_ms)

    def start(self) -> None:
        """Start the agent; one that ran before was killed."""
        if self.site is not None:
            self.site.staging.close()
            self.site.state.close()
        state = State.open(self.root)
        self.site = open_site(
            self.root, self.config, "", state, self.platform, self.bytes, self.woken.set, self.instant
        )

    def reboot(self) -> None:
        self.world.reboot()
        self.boot = f"boot-{int(self.boot.split('-')[1]) + 1}"
        self.start()

    def look(self, received: Received | None = None) -> Outcome:
        """Do one cycle; time moves on, and what is being staged is waited for."""
        if self.site is None:
            self.start()
        assert self.site is not None
        self.uptime_ms += self.tick_ms
        outcome = cycle(self.site, received, self.instant)
        deadline = time.monotonic() + 20
        while any((it := self.site.staging.progress(one)) and not it.fault for one in self.site.staging.underway):
            self.woken.wait(0.01)
            assert time.monotonic() < deadline
        return outcome

    def settle(self, received: Received | None = None, most: int = 120) -> Outcome:
        """Do cycles until nothing is on its way."""
        outcome = self.look(received)
        for _ in range(most):
            if outcome.settled and not self.site.staging.underway:
                break
            outcome = self.look()
        else:
            raise AssertionError(f"does not settle: {outcome.plan}\n{self.site.book.states}\n{self.site.faults}")
        return self.look()

    def release(self, *entries: tuple[Entry, Mapping[str, bytes]], **changes: Any) -> Received:
        """Return a signed overlay with the next sequence."""
        self.sequence += 1
        files = {path: data for _, own in entries for path, data in own.items()}
        release = Release(
            FLEET,
            "milan-01",
            self.sequence,
            EPOCH,
            self.trust,
            tuple(entry for entry, _ in entries),
            {path: digest(data) for path, data in files.items()},
            **changes,
        )
        data, _ = encode_release(release)
        files |= {NAME: data, SIGNATURE_NAME: self.signer.sign(data, RELEASE)}
        if self.trust > 1:
            following = Trust(FLEET, self.trust, (self.root_key.public,), (self.signer.public,), self.model_keys)
            files |= dict(zip(paths(self.trust), sign_trust(following, (self.root_key,)), strict=True))
        return Received(files, f"r{self.sequence}", "folder")

    def serves(self, kind: str, name: str) -> str:
        """Return the version that consumers reach, seen from outside; empty where nothing answers."""
        key = f"{kind}/{name}"
        one = self.world.instances.get(key, {}).get(self.world.serving.get(key, ""))
        return one["version"] if one is not None and one["alive"] else ""

    def reports(self) -> dict[str, Any]:
        assert self.site is not None
        return {f"{one.kind}/{one.name}": one for one in entry_reports(standing(self.site))}

    def events(self) -> list[tuple[str, str, str]]:
        assert self.site is not None
        return [(one.kind, one.object, one.version) for one in outbox.pending(self.site.state)]


def model(
    name: str = "digits", version: str = "1.0.0", *, placement: str = "p", test: bool = False, **changes: Any
) -> tuple[Entry, dict[str, bytes]]:
    """Return a model's entry with its files."""
    files: dict[str, bytes] = {f"models/{name}/note": version.encode()}
    self_test = None
    if test:
        files |= {f"models/{name}/in": b"1", f"models/{name}/out": b"1"}
        self_test = SelfTest(f"models/{name}/in", f"models/{name}/out")
    artifact = Artifact(digest(f"{name} {version}".encode()), 100, "application/octet-stream", "hub://x", "model")
    entry = Entry("model", name, version, "server", artifacts=(artifact,), placement=placement, self_test=self_test)
    return with_digest(replace(entry, **changes), files), files


def workload(
    name: str = "reader", version: str = "1.0.0", uses: Iterable[tuple[str, str, str]] = (), **changes: Any
) -> tuple[Entry, dict[str, bytes]]:
    """Return a workload's entry with its files; ``uses`` has model, range, onChange."""
    files = {f"workloads/{name}/note": version.encode()}
    models = tuple(ModelUse(one, wish, on_change=change) for one, wish, change in uses)
    return with_digest(replace(Entry("workload", name, version, "manifests", models=models), **changes), files), files


def _line(action: Action) -> str:
    match action:
        case Start(staged) | Test(staged) | Switch(staged) | Retire(staged) | Repair(staged):
            return f"{type(action).__name__} {staged.entry.name} {staged.entry.version}"
        case Refresh(staged, how):
            return f"Refresh {staged.entry.name} {how}"
        case Remove(_, name):
            return f"Remove {name}"
        case Announce(namespace, points):
            return f"Announce {namespace} " + " ".join(f"{one.name}={one.version}" for one in points)
    raise AssertionError(action)


def _key(staged: Staged) -> str:
    return f"{staged.entry.kind}/{staged.entry.name}"


def _key_of(root: Path, name: str) -> SigningKey:
    path = root / f"{name}.key"
    if not path.exists():
        path.write_bytes(SigningKey.generate().dump())
    return SigningKey.load(path.read_bytes(), name)
