"""One fleet on this machine, as people would set it up: git, `edgeferry`, `edgeferry-agent`, nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from gitops.demo.documents import runtime
from gitops.demo.places import Place
from gitops.demo.processes import BIN, Background, Reaper, run
from gitops.demo.reap import belonging
from gitops.demo.relay import Relay
from gitops.demo.sites import HostSite, Site, get

T = TypeVar("T")
DIGITS: Final = Path(__file__).parent / "digits"
QUESTION: Final = (DIGITS / "question.json").read_bytes()
ANSWERS: Final[dict[str, dict[str, float]]] = json.loads((DIGITS / "answers.json").read_text())


_ALL: Final = ("--events", "10000")


class Wrong(AssertionError):
    """What was seen from outside is not what should be."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a site answered to the question.

    Attributes:
        version: the version that gives such an answer; empty for none that is known.
        text: for people.
    """

    version: str
    text: str


@dataclass(slots=True)
class Fleet:
    """A model repository, a hub and its sites below one directory.

    Attributes:
        root: everything is below it; it must be empty or new.
        place: where the hub runs, and the hosts.
        runtime_image: inference server for pods, by digest; empty where there are only hosts.
        settle: makes the site of a cluster's name; None: each is a bare host.
        links: site → what can be cut between it and the hub.
    """

    root: Path
    place: Place = field(default_factory=Place)
    runtime_image: str = ""
    settle: Callable[[Fleet, str], Site] | None = None
    sites: dict[str, Site] = field(default_factory=dict)
    hub: Background | None = None
    hub_url: str = ""
    links: dict[str, Relay] = field(default_factory=dict)
    _reaper: Reaper | None = None

    @property
    def repository(self) -> Path:
        """The work tree of the person who edits the model repository."""
        return self.root / "models"

    @property
    def origin(self) -> Path:
        """The model repository on its Git server: bare, what the hub watches."""
        return self.root / "models.git"

    @property
    def hub_state(self) -> Path:
        """The hub's state directory."""
        return self.root / "hub"

    @property
    def hub_ca(self) -> Path:
        """Certificate of the hub's own authority, where it serves TLS by that."""
        return self.hub_state / "keys" / "ca.pem"

    def open(self) -> None:
        """Make the directory and see to it that nothing outlives this process."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._reaper = Reaper(self.root)

    def close(self) -> None:
        """Stop everything: agents, hub, and what the agents started."""
        for site in self.sites.values():
            site.stop()
        for link in self.links.values():
            link.close()
        if self.hub is not None:
            self.hub.stop()
        if self._reaper is not None:
            self._reaper.close()

    def init(self, *, empty: bool = False) -> None:
        """Make the model repository from the template; ``empty`` leaves out its clusters, placements and workloads."""
        run([str(BIN / "edgeferry"), "init", str(self.repository)])
        if empty:
            for folder in ("clusters", "placements", "workloads"):
                shutil.rmtree(self.repository / folder, ignore_errors=True)
        if self.runtime_image:
            (self.repository / "runtimes" / "onnx.yaml").write_text(runtime(self.runtime_image))
        if not (self.repository / ".git").exists():
            self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "Ada")
        self.git("config", "user.email", "ada@example.org")
        run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(self.origin)])
        self.git("remote", "add", "origin", str(self.origin))
        self.commit("Start from the template")

    def git(self, *arguments: str) -> str:
        """Run git in the model repository."""
        return run(["git", *arguments], cwd=self.repository)

    def edgeferry(self, *arguments: str) -> str:
        """Run `edgeferry` and return what it printed."""
        return run([str(BIN / "edgeferry"), *arguments], cwd=self.root)

    def commit(self, message: str, files: Mapping[str, str | bytes | None] | None = None) -> str:
        """Write or remove files, commit everything, push, and return the commit's id."""
        for path, content in (files or {}).items():
            target = self.repository / path
            if content is None:
                shutil.rmtree(target) if target.is_dir() else target.unlink()
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        self.git("push", "--quiet", "origin", "main")
        return self.git("rev-parse", "HEAD").strip()

    def start_hub(self, *options: str) -> None:
        """Start `edgeferry hub serve` on the model repository and wait until it answers."""
        options = (*self.place.hub, *options)
        with self.place.network():
            listen = f"{self.place.address}:{free_port(self.place.address)}"
        self.hub_url = f"{'https' if '--tls-name' in options else 'http'}://{listen}"
        command = [
            *self.place.words,
            str(BIN / "edgeferry"),
            "hub",
            "serve",
            "--state",
            str(self.hub_state),
            "--source",
            str(self.origin),
        ]
        self.hub = Background([*command, "--listen", listen, *options], self.root / "hub.log", self._mark())
        self.until("the hub answers", lambda: self._get("/healthz") is not None)

    def join_line(self, name: str, *options: str) -> tuple[str, list[str]]:
        """Return the token of a fresh join line, and its command."""
        state = ("--state", str(self.hub_state), "--hub-url", self.hub_url)
        token, *command = self.edgeferry("cluster", "token", name, *state, *options).split()
        return token.removeprefix("EDGEFERRY_TOKEN="), command

    def join(self, name: str, *options: str, line: tuple[str, list[str]] | None = None) -> None:
        """Register a site with a token, as the printed line says, and start its agent.

        Args:
            name: of the cluster.
            options: of `edgeferry-agent join`; without a --platform it is a bare host with ports of its own.
            line: a join line that was printed before; None for a fresh one.
        """
        if self.settle is not None and not options:
            self.sites[name] = self.settle(self, name)
            return
        token, printed = line or self.join_line(name)
        state = self.root / "sites" / name
        state.mkdir(parents=True, exist_ok=True)
        first = 20000 + (hash_of(str(state)) % 200) * 50
        ports = ("--first-port", str(first), "--last-port", str(first + 49))
        if name in self.links:
            printed[printed.index("--hub") + 1] = self.links[name].url
        command = [*self.place.words, str(BIN / printed[0]), *printed[1:], "--state", str(state), *options]
        run([*command, *(() if "--platform" in options else ports)], extra={"EDGEFERRY_TOKEN": token})
        self.sites[name] = HostSite(name, state, self.place)
        self.start_agent(name)

    def link(self, name: str) -> Relay:
        """Have a site that has not joined yet reach the hub over a link that can be cut."""
        relay = self.links[name] = Relay(int(self.hub_url.rpartition(":")[2]))
        relay.open()
        return relay

    def host(self, name: str) -> HostSite:
        """Return a site that is a bare host."""
        site = self.sites[name]
        assert isinstance(site, HostSite)
        return site

    def start_agent(self, name: str) -> None:
        """Start a host's agent."""
        site = self.host(name)
        command = [*site.place.words, str(BIN / "edgeferry-agent"), "run", "--state", str(site.state)]
        site.agent = Background(command, self.root / f"{name}.log", self._mark())

    def lose_power(self, name: str) -> None:
        """Kill everything that runs at a host, its agent too, as a power cut does; its disk stays."""
        site = self.host(name)
        for _ in range(3):  # what is just being started is found the next time
            for pid in belonging(site.state):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if site.agent is not None:
            site.agent.stop(how=signal.SIGKILL)
        self.until(f"nothing runs at {name}", lambda: not belonging(site.state))

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events of a site that the hub has, in the order in which they came."""
        shown = json.loads(self.edgeferry("cluster", "show", name, *_ALL, "--state", str(self.hub_state), "-o", "json"))
        found: list[dict[str, Any]] = shown["events"]
        return found

    def seen(self, name: str) -> dict[str, Any]:
        """Return what the hub says of one site."""
        found: dict[str, Any] = next(one for one in self.status()["clusters"] if one["name"] == name)
        return found

    def status(self) -> dict[str, Any]:
        """Return what the hub says of the fleet."""
        token = (self.hub_state / "operator.token").read_text().strip()
        value = self._get("/v1/status", {"Authorization": f"Bearer {token}"})
        if value is None:
            raise Wrong("the hub does not answer")
        found: dict[str, Any] = json.loads(value)
        return found

    def ask(self, site: str, model: str = "digits", question: bytes = QUESTION) -> Answer | None:
        """Ask a site's model the question by a real inference request; None where nothing answers."""
        url = self.sites[site].url(model)
        with self.sites[site].place.network():
            return None if not url else ask(url, model, question)

    def versions(self, model: str = "digits") -> dict[str, str]:
        """Return site → version that answers; empty where none does."""
        answers = {name: self.ask(name, model) for name in self.sites}
        return {name: "" if answer is None else answer.version for name, answer in answers.items()}

    def expect(self, wanted: Mapping[str, str], model: str = "digits", within_s: float = 60.0) -> None:
        """Wait until exactly these sites answer with exactly these versions; "" for no answer.

        Raises:
            Wrong: they do not within the time.
        """
        self.until(
            f"{model}: {dict(wanted)}",
            lambda: self.versions(model) == dict(wanted),
            within_s,
            lambda: str(self.versions(model)),
        )

    def until(
        self, what: str, holds: Callable[[], object], within_s: float = 60.0, seen: Callable[[], str] | None = None
    ) -> None:
        """Wait until something holds.

        Raises:
            Wrong: it does not within the time; the message has what was seen and the ends of the logs.
        """
        deadline = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > deadline:
                logs = {"hub": "" if self.hub is None else self.hub.tail()}
                logs |= {site.name: site.log() for site in self.sites.values()}
                tails = "\n".join(f"--- {name}\n{tail}" for name, tail in logs.items())
                raise Wrong(f"not within {within_s:g} s: {what}{'; seen ' + seen() if seen else ''}\n{tails}")
            time.sleep(0.02)

    def fetch(self, site: str, name: str, body: bytes | None = None) -> bytes | None:
        """Return what a workload of a site answers to GET, or to POST of a body; None where nothing does."""
        url = self.sites[site].url(name)
        headers = {} if body is None else {"Content-Type": "application/json"}
        with self.sites[site].place.network():
            return get(url, headers, body) if url else None

    def _get(self, path: str, headers: Mapping[str, str] | None = None) -> bytes | None:
        with self.place.network():
            return get(f"{self.hub_url}{path}", headers, ca=self.hub_ca)

    def _mark(self) -> dict[str, str]:
        return {"EDGEFERRY_DEMO": str(self.root)}


def ask(url: str, model: str, question: bytes = QUESTION) -> Answer | None:
    """Ask one V2 inference question; None where nothing answers."""
    data = get(f"{url}/v2/models/{model}/infer", {"Content-Type": "application/json"}, question)
    if data is None:
        return None
    outputs = {one["name"]: one["data"] for one in json.loads(data)["outputs"]}
    digit, confidence = outputs["label"][0], round(max(outputs["probabilities"]), 3)
    version = next((v for v, told in ANSWERS.items() if told == {"digit": digit, "confidence": confidence}), "")
    return Answer(version, f"“{digit}” ({confidence:.0%})")


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def hash_of(text: str) -> int:
    """Return a number that differs between directories, so that fleets side by side use other ports."""
    return sum(byte * (n + 1) for n, byte in enumerate(os.fsencode(text)))
