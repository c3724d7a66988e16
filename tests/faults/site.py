"""A real hub, a real agent, a cheap model server, and what is seen of them from outside."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from gitops.demo.documents import cluster, document, placement
from gitops.demo.fleet import Fleet
from gitops.demo.processes import BIN, run
from gitops.demo.relay import Relay
from gitops.demo.sites import get

SITE: Final = "milan-01"
MODEL: Final = "answer"
QUICK: Final = {"probation_s": 0.8, "look_s": 0.3, "report_s": 5, "wait_s": 2, "drain_s": 0.2, "start_deadline_s": 20}
WITHIN_S: Final = 90.0
DISK_MIB: Final = 112

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"

_SERVER: Final = """
import os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
model = open(sys.argv[2], "rb").read().split(b"\\n", 1)[0]
time.sleep(0.3)
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(model)))
        self.end_headers()
        self.wfile.write(model)
    def log_message(self, *_):
        pass
HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


@dataclass
class World:
    """One fleet with one site.

    Attributes:
        root: an empty directory.
        small: the site's disk is a small one of its own, so that it can be filled and made read-only.
    """

    root: Path
    small: bool = False
    number: int = 0
    guests: int = 0
    boots: int = 0
    heads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.root / "fleet")
        self.link = Relay(1)
        self.foreign = Path()

    def open(self) -> None:
        """Bring up the hub and the site, with the first version serving."""
        fleet = self.fleet
        fleet.open()
        fleet.init(empty=True)
        runtime = {"host": {"command": ["python3", "-S", "-E", "-c", _SERVER, "{port}", "{model}"]}, "protocol": "http"}
        model = {"delivery": "server", "runtime": "plain"}
        files: dict[str, str | bytes | None] = dict(cluster(SITE, line="welding"))
        files |= {"runtimes/plain.yaml": document("Runtime", "plain", runtime)}
        files |= {f"models/{MODEL}/model.yaml": document("Model", MODEL, model)}
        fleet.commit("A model and a site", files | self._version())
        self.start_hub()
        self.link = fleet.link(SITE)
        state = fleet.root / "sites" / SITE
        if self.small:
            state.mkdir(parents=True)
            run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "edgeferry-faults", str(state)])
        settings = [word for name, value in QUICK.items() for word in ("--set", f"{name}={value}")]
        fleet.join(SITE, *settings)
        self.foreign = state / "models" / "notes.txt"
        self.foreign.parent.mkdir(exist_ok=True)
        self.foreign.write_text("not ours")
        self.until("the first version is committed", lambda: self.phase == "idle" and self.answer == self.wanted)

    def close(self) -> None:
        """End and unmount everything."""
        self.fleet.close()
        if self.small:
            subprocess.run(["umount", "-l", str(self.state)], check=False, capture_output=True)

    @property
    def state(self) -> Path:
        """The agent's state directory."""
        return self.fleet.root / "sites" / SITE

    @property
    def wanted(self) -> str:
        """What the newest version answers."""
        return f"version {self.number}"

    @property
    def answer(self) -> str:
        """What consumers are answered now; empty for nothing."""
        data = get(self.fleet.sites[SITE].url(MODEL))
        return "" if data is None else data.decode()

    @property
    def phase(self) -> str:
        """The phase of the model in the agent's journal, read from outside; empty for no record."""
        try:
            with closing(sqlite3.connect(f"file:{self.state}/state.sqlite?mode=ro", uri=True, timeout=5)) as db:
                found = db.execute("SELECT state FROM journal WHERE name = ?", (MODEL,)).fetchone()
        except sqlite3.Error:
            return "unreadable"
        return "" if found is None else str(json.loads(found[0])["phase"])

    @property
    def partial_bytes(self) -> int:
        """How much of an artifact is on its way."""
        found = (self.state / "content" / "partial").glob("*")
        return sum(path.stat().st_size for path in found if not path.name.endswith(".mark"))

    def start_hub(self) -> None:
        """Start the hub, at the same address where it ran before."""
        if self.fleet.hub is None:
            self.fleet.start_hub("--poll", "1")
            return
        hub = self.fleet.hub
        self.fleet.hub = type(hub)(hub.process.args, hub.log, {"EDGEFERRY_DEMO": str(self.fleet.root)})  # type: ignore[arg-type]  # as it was started
        self.until("the hub answers", lambda: get(f"{self.fleet.hub_url}/healthz") is not None)

    def stop_hub(self, how: int = signal.SIGKILL) -> None:
        """End the hub."""
        assert self.fleet.hub is not None
        self.fleet.hub.stop(how=how)

    def boot(self) -> None:
        """Start the agent as after a reboot: in a mount namespace where the kernel's boot id is another one."""
        self.boots += 1
        path = self.root / f"boot-{self.boots}"
        path.write_text(f"{self.boots:08d}-0000-4000-8000-000000000000\n")
        namespace = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))
        mount = f'mount --bind "$0" {_BOOT_ID} && exec "$@"'
        host = self.fleet.host(SITE)
        host.place = replace(host.place, words=(*namespace, "sh", "-c", mount, str(path)))
        self.fleet.start_agent(SITE)

    def push(self) -> None:
        """Push a new version."""
        self.heads.append(self.fleet.commit(f"version {self.number + 1}", self._version()))

    def remove(self) -> None:
        """Push that the model is not placed any more."""
        self.fleet.commit("Nowhere", {"placements/here.yaml": None})

    def place(self) -> None:
        """Push that the model is placed here again."""
        self.fleet.commit("Here", dict(self._placement()))

    def until(self, what: str, holds: Callable[[], object], within_s: float = WITHIN_S) -> None:
        """Wait until something holds."""
        self.fleet.until(what, holds, within_s, lambda: f"{self.phase!r} {self.answer!r}, {self.wanted!r} is wanted")

    def _version(self) -> dict[str, str | bytes | None]:
        self.number += 1
        data = f"version {self.number}\n".encode() + os.urandom(120_000)
        files: dict[str, str | bytes | None] = {f"models/{MODEL}/versions/{self.number}.0.0/model.bin": data}
        return files | self._placement()

    def _placement(self) -> dict[str, str]:
        return placement("here", model=MODEL, clusters=[{"names": [SITE]}])


def with_suppressed(do: Callable[[], object]) -> None:
    """Do something that may find its process gone."""
    try:
        do()
    except ProcessLookupError:
        return


class Watcher:
    """Asks the model all the time from a thread of its own, and keeps what was answered."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._done = threading.Event()
        self.answers: list[str] = []
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def stop(self) -> list[str]:
        """Return every answer; empty for none."""
        self._done.set()
        self._thread.join(15)
        return self.answers

    def _ask(self) -> None:
        while not self._done.is_set():
            self.answers.append(self._world.answer)
            self._done.wait(0.05)


def agent_command(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the agent to its end."""
    command = [str(BIN / "edgeferry-agent"), *arguments, "--state", str(state)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
