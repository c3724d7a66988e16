"""A site with a real host platform, whose runtimes are small HTTP servers in processes of their own."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from agent.actions import ModelPoint, Observed, Retire, Seen, Staged, Start, Switch
from agent.config import Config
from agent.platforms.host import HostPlatform
from agent.tree import fingerprint
from agent.wire.release import Artifact, Delivery, Entry, Kind, ModelUse, Runtime, SelfTest, with_digest

T = TypeVar("T")

RUNTIME = """
import json, os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, model = int(sys.argv[1]), json.load(open(sys.argv[2]))
mode = model.get("mode", "")
if mode == "exit":
    sys.exit("no such layer: conv9")
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
told = []
if mode != "deaf":
    signal.signal(signal.SIGHUP, lambda *_: told.append(json.load(open(os.environ["EDGEFERRY_MODELS"]))))
if mode == "loud":
    threading.Thread(target=lambda: [print("x" * 1000, flush=True) for _ in range(3000)], daemon=True).start()

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        if self.path.endswith("/ready"):
            hung = mode == "hangs" and os.path.exists(sys.argv[2] + ".hang")
            self.answer(503 if mode == "never" or hung else 200, {})
        elif self.path == "/die":
            os._exit(3)
        elif self.path == "/fork":
            if os.fork() == 0:
                os.setsid()
                time.sleep(600)
            self.answer(200, {})
        else:
            self.answer(200, {"pid": os.getpid(), "say": model["say"], "env": dict(os.environ), "told": told,
                              "argv": sys.argv, "cwd": os.getcwd()})
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if model.get("slow"):
            open(sys.argv[2] + ".asked", "w").close()
            while not os.path.exists(sys.argv[2] + ".go"):
                time.sleep(0.005)
        if mode == "dies-asked":
            os._exit(4)
        self.answer(200, {"model_name": "m", "outputs": [{"data": [model["say"], len(body)]}]})
    def answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_): pass

class Server(ThreadingHTTPServer):
    request_queue_size = 128
Server(("127.0.0.1", port), Handler).serve_forever()
"""

WORKER = """
import json, os, signal, sys, time
out = sys.argv[1]
with open(out, "a") as file:
    file.write(json.dumps({"pid": os.getpid(), "env": dict(os.environ)}) + "\\n")
while True:
    time.sleep(600)
"""

_calls = itertools.count()
_blocks = itertools.count()


def ports() -> tuple[int, int]:
    """A range of ports that no other test of this process uses, and hardly one of another."""
    first = 20000 + (os.getpid() * 997 + next(_blocks) * 40) % 12000
    return first, first + 39


def until(check: Callable[[], T | None]) -> T:
    """Poll until ``check`` returns something that is not None or False."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = check()
        if found is not None and found is not False:
            return found
        threading.Event().wait(0.01)
    raise AssertionError("it does not come true")


def ask(url: str, path: str = "/", body: bytes | None = None) -> Any:
    """Return the JSON answer; raises OSError for any status but 200."""
    host, port = url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        response = connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise OSError(response.status, data)
        return json.loads(data)
    finally:
        connection.close()


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@dataclass
class Site:
    """One state directory with a platform on it."""

    state: Path
    config: Config
    platform: HostPlatform = field(init=False)
    known: dict[str, Staged] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state.mkdir(exist_ok=True)
        (self.state / "runtime.py").write_text(RUNTIME)
        (self.state / "worker.py").write_text(WORKER)
        self.platform = HostPlatform(self.state, self.config)

    def again(self) -> None:
        """A new agent on the same state; the old one is simply gone."""
        self.platform.close()
        self.platform = HostPlatform(self.state, self.config)

    def entry(
        self,
        name: str,
        version: str,
        mode: str = "",
        *,
        kind: Kind = "model",
        delivery: Delivery = "server",
        switch: str = "auto",
        values: dict[str, str] | None = None,
        answer: str | None = None,
        uses: tuple[str, ...] = (),
        command: tuple[str, ...] | None = None,
        protocol: str = "v2",
        **model: object,
    ) -> Staged:
        folder = self.state / "content" / f"{kind}-{name}-{version}-{os.getpid()}-{next(_calls)}"
        folder.mkdir(parents=True)
        file = folder / "model.json"
        file.write_text(json.dumps({"say": version, "mode": mode, **model}))
        if command is None:
            command = (sys.executable, str(self.state / "runtime.py"), "{port}", "{model}")
        test = None
        files: dict[str, bytes] = {}
        if answer is not None:
            test = SelfTest(f"models/{name}/in.json", f"models/{name}/out.json", "0")
            files = {test.input: b"{}", test.output: json.dumps({"outputs": [{"data": [answer, 2]}]}).encode()}
        entry = Entry(
            kind=kind,
            name=name,
            version=version,
            delivery=delivery if kind == "model" else "manifests",
            artifacts=(Artifact("sha256:" + "1" * 64, 10, "application/octet-stream", "hub://x", file.name),),
            runtime=None if delivery == "file" else Runtime("test", "", 8080, protocol, "/ready", command),
            values={"mode": mode, **(values or {})},
            self_test=test,
            switch=switch,
            models=tuple(ModelUse(use) for use in uses),
        )
        staged = Staged(with_digest(entry, files), files, folder, file, fingerprint(file))
        self.known[staged.digest] = staged
        return staged

    def worker(self, name: str, version: str, *uses: str) -> Staged:
        """A workload without a port; every start adds a line to ``STATE/NAME.out``."""
        out = str(self.state / f"{name}.out")
        command = (sys.executable, str(self.state / "worker.py"), out)
        return self.entry(name, version, kind="workload", command=command, protocol="", uses=uses)

    def starts(self, name: str) -> list[dict[str, object]]:
        path = self.state / f"{name}.out"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def observe(self) -> Observed:
        return self.platform.observe(tuple(self.known.values()))

    def seen(self, staged: Staged) -> Seen | None:
        return next((one for one in self.observe().seen if one.digest == staged.digest), None)

    def until(self, staged: Staged, check: Callable[[Seen | None], bool]) -> Seen | None:
        """Look again and again until ``check`` likes what is seen of the entry."""

        def checked() -> tuple[Seen | None] | None:
            seen = self.seen(staged)
            return (seen,) if check(seen) else None

        return until(checked)[0]

    def until_current(self, staged: Staged) -> Seen:
        seen = self.until(staged, lambda seen: seen is not None and seen.health == "current")
        assert seen is not None
        return seen

    def until_gone(self, *pids: int) -> None:
        until(lambda: self.observe() and not any(alive(pid) for pid in pids))

    def up(self, staged: Staged, *points: ModelPoint) -> Seen:
        """Start, wait until ready, switch: what a plan does over several cycles."""
        self.platform.execute(Start(staged, points))
        self.until_current(staged)
        self.platform.execute(Switch(staged, None, points))
        seen = self.seen(staged)
        assert seen is not None
        return seen

    def replace(self, new: Staged, old: Staged) -> Seen:
        self.platform.execute(Start(new))
        self.until_current(new)
        self.platform.execute(Switch(new, old))
        self.platform.execute(Retire(old))
        seen = self.seen(new)
        assert seen is not None
        return seen
