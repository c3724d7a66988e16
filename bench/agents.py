"""What thousands of connected agents cost one hub, and how fast news reaches them.

Each agent proves itself by a certificate of its own and holds one long poll over TLS. The hub and the agents run in
processes of their own. The reference is a bare TLS connection of the same loop, which nobody asks anything.

    python -m bench.agents [--agents N]
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import selectors
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pygit2

from agent.wire.release import NAME
from bench.figure import figure
from bench.poll import connect, prepare
from gitops.artifacts import ArtifactStore
from gitops.fleet import FleetRepository
from gitops.serve.app import create_app
from gitops.serve.server import Server, Tls
from gitops.serve.view import HubState, HubView, TrustFiles, git_objects
from gitops.store.opening import open_store

_WAIT_S: Final = 300
_BARE: Final = 500
_PIECE: Final = 65536


def main() -> None:
    """Print agents-memory and agents-news, or play one of the servers for them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--play", choices=["hub", "bare"], help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if options.play is not None:
        (play_hub if options.play == "hub" else play_bare)(options.root)
        return
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        commit = prepare(root, options.agents)
        with _play(root, "bare") as server:
            bare_kb = _memory_kb(server, _connected(root, server, min(_BARE, options.agents)))
        with _play(root, "hub") as server:
            request = f'GET /v1/overlay?wait={_WAIT_S} HTTP/1.1\r\nHost: hub\r\nIf-None-Match: "{commit}"\r\n\r\n'
            agents = _connected(root, server, options.agents, request.encode())
            server.ask("settle")
            agents_kb = _memory_kb(server, agents)
            cpu_before = float(server.ask("cpu"))
            waits_ms = _news(server, agents)
            cpu_ms = (float(server.ask("cpu")) - cpu_before) * 1000 / options.agents
    figure("agents-memory", round(agents_kb, 1), "KB", 50, {"bare TLS connection": round(bare_kb, 1)})
    references = {"median": round(waits_ms[len(waits_ms) // 2], 1), "ms CPU of the hub per agent": round(cpu_ms, 3)}
    figure("agents-news-p99", round(waits_ms[int(len(waits_ms) * 0.99)], 1), "ms", 10_000, references)


class _Played:
    """A server in a process of its own, asked by lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._asked, self._said = process.stdin, process.stdout
        self.pid, self.port = process.pid, int(self._said.readline())
        self.idle_kb = _resident_kb(process.pid)

    def ask(self, what: str) -> str:
        """Have it do something, and return what it says."""
        self._asked.write(f"{what}\n")
        self._asked.flush()
        return self._said.readline().strip()


@contextmanager
def _play(root: Path, part: str) -> Iterator[_Played]:
    command = [sys.executable, "-m", "bench.agents", "--play", part, "--root", str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield _Played(process)
        assert process.stdin is not None
        process.stdin.close()


def play_hub(root: Path) -> None:
    """Serve the hub; ``news`` publishes another overlay for every cluster."""
    fleet, store = FleetRepository.open(root / "fleet.git"), open_store(root / "hub.sqlite")
    view = HubView(
        fleet="fleet",
        clusters=fleet,
        objects=git_objects(root / "fleet.git"),
        store=store,
        artifacts=ArtifactStore.open(root / "artifacts"),
        trust=lambda: TrustFiles(1, b"", b""),
        state=HubState,
        wake=lambda reason: None,
    )
    app = create_app(view)
    server = Server(app, tls=Tls(root / "hub.pem", root / "hub.key", root / "ca.pem"))
    server.start()
    print(server.port, flush=True)
    for line in sys.stdin:
        if line.strip() == "news":
            _publish(root / "fleet.git")
            app.notifier.published(None)
        elif line.strip() == "settle":
            deadline = time.monotonic() + 60
            before = -1
            while time.monotonic() < deadline and len(app.notifier.waiting()) != before:
                before = len(app.notifier.waiting())
                time.sleep(0.5)
        print(time.process_time(), flush=True)
    server.stop()
    store.close()


def play_bare(root: Path) -> None:
    """Hold TLS connections."""

    async def serve() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(root / "hub.pem", root / "hub.key")
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(root / "ca.pem")
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=context, backlog=4096)
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)

    asyncio.run(serve())


def _publish(path: Path) -> None:
    repository = pygit2.Repository(str(path))
    builder = repository.TreeBuilder()
    builder.insert(NAME, repository.create_blob(b'{"n":2}\n'), pygit2.enums.FileMode.BLOB)
    who = pygit2.Signature("Edgeferry", "edgeferry@localhost", 1, 0)
    commit = str(repository.create_commit(None, who, who, "overlay\n", builder.write(), []))
    refs = path / "packed-refs"
    lines = [line if line.startswith("#") else f"{commit} {line[41:]}" for line in refs.read_text().splitlines()]
    beside = path / "packed-refs.new"
    beside.write_text("\n".join(lines) + "\n")
    beside.rename(refs)


def _connected(root: Path, server: _Played, count: int, request: bytes = b"") -> list[ssl.SSLSocket]:
    agents = []
    for n in range(count):
        agents.append(connect(root, server.port, f"c{n:05}"))
        agents[-1].sendall(request)
    return agents


def _memory_kb(server: _Played, agents: list[ssl.SSLSocket]) -> float:
    return (_resident_kb(server.pid) - server.idle_kb) / len(agents)


def _resident_kb(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


def _news(server: _Played, agents: list[ssl.SSLSocket]) -> list[float]:
    """Return how long after the publication each agent had its overlay, ms, sorted."""
    waiting = selectors.EpollSelector()
    for one in agents:
        waiting.register(one, selectors.EVENT_READ)
    start = time.monotonic()
    waits: list[float] = []
    server.ask("news")
    while len(waits) < len(agents):
        for key, _ in waiting.select():
            agent = key.fileobj
            assert isinstance(agent, ssl.SSLSocket)
            answer = agent.recv(_PIECE)
            assert answer, "the hub ended a connection"
            if b"HTTP/1.1" in answer:
                assert b" 200 " in answer[:20], answer[:200]
                waits.append((time.monotonic() - start) * 1000)
                waiting.unregister(agent)
    return sorted(waits)


if __name__ == "__main__":
    main()
