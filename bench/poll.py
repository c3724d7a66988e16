"""What an agent with nothing new costs: bytes on its link, and CPU of the hub.

The hub runs in a process of its own, over a fleet repository of 10,000 clusters; agents prove themselves by
certificate and keep their connections. Each poll is a real one: asked, held for its wait, answered with 304. The
reference is stock Git's own server, asked for one ref of the same repository.

    python -m bench.poll [--agents N] [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pygit2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from agent.wire.release import NAME
from bench.figure import figure
from gitops.artifacts import ArtifactStore
from gitops.fleet import FleetRepository
from gitops.serve.app import create_app
from gitops.serve.git_pack import DELIMITER, FLUSH, packet
from gitops.serve.identity import hash_secret
from gitops.serve.server import Server, Tls
from gitops.serve.view import HubState, HubView, TrustFiles, git_objects
from gitops.store import JoinToken
from gitops.store.sqlite import SqliteStore

_CLUSTERS: Final = 10_000
_WAIT_S: Final = 1
_GIT_POLLS: Final = 40
_PIECE: Final = 65536


def main() -> None:
    """Print poll-bytes and poll-cpu, or play one of the servers for them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--play", choices=["hub", "git"], help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play is not None:
        (play_hub if options.play == "hub" else play_git)(options.root)
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        commit = prepare(root, options.agents)
        with _play(root, "git") as (port, cpu_s):
            git_bytes, git_ms = _ask_git(port, cpu_s)
        with _play(root, "hub") as (port, cpu_s):
            polls_bytes, held_ms, at_once_ms = _ask_hub(root, port, cpu_s, commit, options.agents, options.rounds)
    figure("poll-bytes", polls_bytes, "B", 300, {"git http-backend": git_bytes})
    references = {"git http-backend": round(git_ms, 3), "answered at once": round(at_once_ms, 4)}
    figure("poll-cpu", round(held_ms, 4), "ms", 0.05, references)


def play_hub(root: Path) -> None:
    """Serve the hub until standard input ends; print the port, and the CPU time for every line that comes."""
    fleet = FleetRepository.open(root / "fleet.git")
    store = SqliteStore(root / "hub.sqlite")
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
    server = Server(create_app(view), tls=Tls(root / "hub.pem", root / "hub.key", root / "ca.pem"))
    server.start()
    _answer(server.port, time.process_time)
    server.stop()
    store.close()


def play_git(root: Path) -> None:
    """Serve the same repository by ``git http-backend``; only the CPU time of Git itself counts."""

    class Bridge(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            length = int(self.headers.get("content-length", "0"))
            environment = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("content-type", ""),
                "CONTENT_LENGTH": str(length),
                "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
                "REMOTE_ADDR": "127.0.0.1",
            }
            done = subprocess.run(
                ["git", "http-backend"], env=environment, input=self.rfile.read(length), capture_output=True, check=True
            )
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            self.wfile.write(b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body))

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            return

    def cpu_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    with ThreadingHTTPServer(("127.0.0.1", 0), Bridge) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _answer(server.server_address[1], cpu_s)
        server.shutdown()


def _answer(port: int, cpu_s: Callable[[], float]) -> None:
    print(port, flush=True)
    for _ in sys.stdin:
        print(cpu_s(), flush=True)


@contextmanager
def _play(root: Path, part: str) -> Iterator[tuple[int, Callable[[], float]]]:
    command = [sys.executable, "-m", "bench.poll", "--play", part, "--root", str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said, asked = process.stdout, process.stdin

        def cpu_s() -> float:
            asked.write("cpu\n")
            asked.flush()
            return float(said.readline())

        yield int(said.readline()), cpu_s
        asked.close()


def _ask_hub(
    root: Path, port: int, cpu_s: Callable[[], float], commit: str, agents: int, rounds: int
) -> tuple[int, float, float]:
    """Return bytes of one poll, and ms of CPU for a held and for an unheld one."""
    connections = [connect(root, port, f"c{n:05}") for n in range(agents)]
    sizes: set[int] = set()

    def rounds_of(wait: str, count: int) -> float:
        # Waits of 30 s and of 1 s are written alike but for a digit, which poll-bytes counts below.
        request = f'GET /v1/overlay?wait={wait} HTTP/1.1\r\nHost: hub.example:8443\r\nIf-None-Match: "{commit}"\r\n\r\n'
        before = cpu_s()
        for _ in range(count):
            for one in connections:
                one.sendall(request.encode())
            for one in connections:
                answer = one.recv(_PIECE)
                assert answer.startswith(b"HTTP/1.1 304"), answer
                sizes.add(len(request) + len(answer) + len("30") - len(wait))
        return (cpu_s() - before) * 1000 / count / agents

    rounds_of("0", 1)
    held_ms, at_once_ms = rounds_of(str(_WAIT_S), rounds), rounds_of("0", rounds)
    for one in connections:
        one.close()
    return max(sizes), held_ms, at_once_ms


def _ask_git(port: int, cpu_s: Callable[[], float]) -> tuple[int, float]:
    """Return bytes and ms of CPU of one look at one ref, as Git with protocol 2 and an exact refspec does it."""
    common = (
        "Host: hub.example:8443\r\nUser-Agent: git/2.39.5\r\n"
        "Accept-Encoding: deflate, gzip\r\nGit-Protocol: version=2\r\n"
    )
    capabilities = packet(b"command=ls-refs\n") + packet(b"agent=git/2.39.5") + packet(b"object-format=sha1")
    arguments = (b"peel\n", b"symrefs\n", b"ref-prefix refs/heads/cluster/c00000\n")
    body = capabilities + DELIMITER + b"".join(map(packet, arguments)) + FLUSH
    refs = (
        f"GET /fleet.git/info/refs?service=git-upload-pack HTTP/1.1\r\n{common}Accept: */*\r\nPragma: no-cache\r\n\r\n"
    )
    head = (
        f"POST /fleet.git/git-upload-pack HTTP/1.1\r\n{common}Content-Type: application/x-git-upload-pack-request\r\n"
        f"Accept: application/x-git-upload-pack-result\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    total = 0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        before = cpu_s()
        for _ in range(_GIT_POLLS):
            for request in (refs.encode(), head.encode() + body):
                connection.sendall(request)
                answer = _whole(connection)
                assert b"200 OK" in answer, answer
                total += len(request) + len(answer)
            assert b"refs/heads/cluster/c00000" in answer, answer
        return total // _GIT_POLLS, (cpu_s() - before) * 1000 / _GIT_POLLS


def _whole(connection: socket.socket) -> bytes:
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _piece(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    while len(body) < length:
        body += _piece(connection)
    return head + b"\r\n\r\n" + body


def _piece(connection: socket.socket) -> bytes:
    piece = connection.recv(_PIECE)
    if not piece:
        raise ConnectionError("the server ended the connection")
    return piece


def connect(root: Path, port: int, name: str) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(root / "ca.pem"))
    context.load_cert_chain(root / f"{name}.pem", root / f"{name}.key")
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")


def prepare(root: Path, agents: int) -> str:
    """Make the fleet repository, the registrations and the certificates; return the commit of every overlay."""
    repository = pygit2.init_repository(str(root / "fleet.git"), bare=True)
    builder = repository.TreeBuilder()
    builder.insert(NAME, repository.create_blob(b"{}\n"), pygit2.enums.FileMode.BLOB)
    who = pygit2.Signature("Edgeferry", "edgeferry@localhost", 0, 0)
    commit = str(repository.create_commit(None, who, who, "overlay\n", builder.write(), []))
    names = [f"refs/heads/cluster/c{n:05}" for n in range(_CLUSTERS)]
    lines = [f"{commit} {name}\n" for name in (*names, "refs/heads/main")]
    (root / "fleet.git/packed-refs").write_text("# pack-refs with: peeled fully-peeled sorted \n" + "".join(lines))
    authority = Ed25519PrivateKey.generate()
    (root / "ca.pem").write_bytes(_certificate("authority", authority, authority.public_key()))
    store, now = SqliteStore(root / "hub.sqlite"), datetime.now(UTC)
    for name in ("hub", *(f"c{n:05}" for n in range(agents))):
        key = Ed25519PrivateKey.generate()
        (root / f"{name}.pem").write_bytes(_certificate(name, authority, key.public_key()))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (root / f"{name}.key").write_bytes(pem)
        public = load_pem_private_key(pem, None).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        store.add_token(JoinToken(hash_secret(name), name, now + timedelta(hours=1)), "bench", now)
        store.join(hash_secret(name), name, public.decode(), (), now)
    store.close()
    return commit


def _certificate(name: str, by: Ed25519PrivateKey, public: Ed25519PublicKey) -> bytes:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(name == "authority", None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(by, None)
        .public_bytes(Encoding.PEM)
    )


if __name__ == "__main__":
    main()
