"""The forwarder as a process: clients and backends are real sockets."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent.forward_routes import CONTROL, ROUTES, Route, Routes, decode_routes, encode_routes
from agent.wire.errors import Malformed

MIB = 1 << 20


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Forwarding:
    """A running forwarder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.generation = 0
        self.routes: dict[int, Route] = {}
        self.write()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent.forward", str(directory)],
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )
        while True:
            with contextlib.suppress(OSError):
                self.order("status")
                return
            assert self.process.poll() is None, self.process.communicate()[1]

    def write(self) -> None:
        self.generation += 1
        data = encode_routes(Routes(self.generation, "127.0.0.1", tuple(self.routes.values())))
        (self.directory / "new").write_bytes(data)
        (self.directory / "new").replace(self.directory / ROUTES)

    def order(self, what: str) -> dict[str, object]:
        directory = os.open(self.directory, os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX) as control:
                control.settimeout(10)
                control.connect(f"/proc/self/fd/{directory}/{CONTROL}")
                control.sendall(what.encode() + b"\n")
                return dict(json.loads(control.makefile("rb").read()))
        finally:
            os.close(directory)

    def route(self, backend: int, *, port: int = 0, resend: bool = True, hold_ms: int = 0) -> int:
        port = port or free_port()
        self.routes[port] = Route(f"model/m{port}", port, backend, resend, hold_ms)
        self.write()
        said = self.order("reload")
        assert (said["generation"], said["fault"], said["faults"]) == (self.generation, "", {})
        return port

    def rss_bytes(self) -> int:
        line = next(
            line for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines() if "VmHWM" in line
        )
        return int(line.split()[1]) * 1024


@pytest.fixture
def forwarding(tmp_path: Path) -> Iterator[Forwarding]:
    one = Forwarding(tmp_path)
    yield one
    one.process.kill()
    one.process.communicate()


Script = Callable[[socket.socket], None]


@contextlib.contextmanager
def scripted(script: Script, port: int = 0) -> Iterator[int]:
    """A backend that plays ``script`` on every connection, then closes it."""
    listener = socket.create_server(("127.0.0.1", port))

    def play(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(30)
            script(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=play, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def read_head(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise OSError("closed")
        data += byte
    return data


@contextlib.contextmanager
def named(name: str, version: str = "HTTP/1.1") -> Iterator[int]:
    """A backend that answers with its name, the method and the length of the body it got."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = version

        def do_GET(self) -> None:
            got = 0
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    got += len(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
            left = int(self.headers.get("Content-Length") or 0)
            while left:
                part = len(self.rfile.read(min(left, MIB)))
                got, left = got + part, left - part
            data = f"{name} {self.command} {got}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_POST = do_HEAD = do_PUT = do_GET

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        request_queue_size = 256

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def ask(port: int, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, "/x", body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def raw(port: int, data: bytes, *, half_close: bool = False) -> bytes:
    """Everything that comes back until the forwarder closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                answer += part
        return answer


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_every_kind_of_request_reaches_the_backend(forwarding: Forwarding, version: str) -> None:
    with named("a", version) as backend:
        port = forwarding.route(backend)
        assert ask(port) == (200, b"a GET 0")
        assert ask(port, "HEAD") == (200, b"")
        assert ask(port, "POST", b"x" * 10) == (200, b"a POST 10")
        assert ask(port, "PUT", b"") == (200, b"a PUT 0")


def test_one_connection_serves_many_requests_and_one_to_the_backend_is_enough(forwarding: Forwarding) -> None:
    opened = []

    def script(connection: socket.socket) -> None:
        opened.append(1)
        while True:
            read_head(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with scripted(script) as backend:
        port = forwarding.route(backend)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for _ in range(50):
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"ok"
        connection.close()
        for _ in range(50):
            assert ask(port) == (200, b"ok")
    assert len(opened) == 1


def test_a_chunked_request_and_a_chunked_answer_pass(forwarding: Forwarding) -> None:
    with named("a") as backend:
        port = forwarding.route(backend)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/", iter([b"x" * 1000] * 7), encode_chunked=True)
        assert connection.getresponse().read() == b"a POST 7000"
        connection.close()

    def script(connection: socket.socket) -> None:
        while True:
            read_head(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            connection.sendall(b"2\r\nde\r\n0\r\n\r\n")

    with scripted(script) as backend:
        port = forwarding.route(backend)
        assert [ask(port) for _ in range(3)] == [(200, b"abcde")] * 3


def test_an_answer_without_length_ends_with_the_connection(forwarding: Forwarding) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 100_000)

    with scripted(script) as backend:
        answer = raw(forwarding.route(backend), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    head, body = answer.split(b"\r\n\r\n", 1)
    assert b"Connection: close" in head
    assert body == b"x" * 100_000


def test_100_continue_comes_from_the_backend(forwarding: Forwarding) -> None:
    def script(connection: socket.socket) -> None:
        assert b"Expect: 100-continue" in read_head(connection)
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert connection.recv(5) == b"hello"
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with scripted(script) as backend:
        port = forwarding.route(backend)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            assert read_head(connection) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"hello")
            assert read_head(connection).startswith(b"HTTP/1.1 200 OK")


def test_an_early_answer_arrives_though_the_body_was_never_finished(forwarding: Forwarding) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        connection.recv(65536)

    with scripted(script) as backend:
        answer = raw(forwarding.route(backend), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nxxx")
    assert answer.endswith(b"\r\n\r\nbig")


def test_pipelined_requests_are_answered_in_order_even_when_the_client_sends_no_more(forwarding: Forwarding) -> None:
    with named("a") as backend:
        port = forwarding.route(backend)
        requests = b"".join(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % n + b"x" * n for n in range(1, 40)
        )
        answer = raw(port, requests, half_close=True)
    assert [int(part.split(b"HTTP")[0]) for part in answer.split(b"a POST ")[1:]] == list(range(1, 40))


def test_an_upgraded_connection_is_a_tunnel(forwarding: Forwarding) -> None:
    def script(connection: socket.socket) -> None:
        assert b"Upgrade: echo" in read_head(connection)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhi ")
        while data := connection.recv(65536):
            connection.sendall(data)
        connection.sendall(b"bye")

    with scripted(script) as backend:
        port = forwarding.route(backend)
        answer = raw(
            port,
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n" + b"z" * 300_000,
            half_close=True,
        )
    head, stream = answer.split(b"\r\n\r\n", 1)
    assert b"Upgrade: echo" in head
    assert stream == b"hi " + b"z" * 300_000 + b"bye"


def test_a_protocol_change_that_nobody_asked_for_is_a_bad_gateway(forwarding: Forwarding) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
        connection.recv(1)

    with scripted(script) as backend:
        assert ask(forwarding.route(backend))[0] == 502


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
    ],
)
def test_a_smuggled_request_is_refused_and_the_connection_ends(forwarding: Forwarding, request_: bytes) -> None:
    with named("a") as backend:
        port = forwarding.route(backend)
        answer = raw(port, request_ + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400")
        assert answer.count(b"HTTP/1.1") == 1
        assert ask(port)[0] == 200


def test_a_head_beyond_its_limit_is_refused(forwarding: Forwarding) -> None:
    with named("a") as backend:
        port = forwarding.route(backend)
        assert raw(port, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200_000).startswith(b"HTTP/1.1 431")
        assert raw(port, b"GET /" + b"x" * 200_000).startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"rubbish\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    ],
    ids=["nothing", "two lengths", "no HTTP", "a giant head"],
)
def test_a_broken_backend_is_a_bad_gateway_and_never_more(forwarding: Forwarding, said: bytes) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(said)

    with scripted(script) as backend, named("good") as good:
        port = forwarding.route(backend)
        status, body = ask(port)
        assert status == 502
        assert json.loads(body)["error"]
        forwarding.route(good, port=port)
        assert ask(port) == (200, b"good GET 0")


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello world\r\n0\r\n\r\n",
    ],
    ids=["short", "no last chunk", "a wrong chunk"],
)
def test_a_cut_answer_never_looks_whole(forwarding: Forwarding, said: bytes) -> None:
    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(said)

    with scripted(script) as backend:
        port = forwarding.route(backend)
        with pytest.raises((http.client.HTTPException, OSError)):
            ask(port)


def test_nothing_behind_a_port_is_503(forwarding: Forwarding) -> None:
    assert ask(forwarding.route(0))[0] == 503
    assert ask(forwarding.route(free_port()))[0] == 503


def test_a_request_waits_for_a_backend_that_does_not_listen_yet(forwarding: Forwarding) -> None:
    backend = free_port()
    port = forwarding.route(backend, hold_ms=60_000)
    answers: list[tuple[int, bytes]] = []
    askers = [threading.Thread(target=lambda n=n: answers.append(ask(port, "POST", b"x" * n))) for n in (10, 300_000)]
    for asker in askers:
        asker.start()
    while forwarding.order("status")["waiting"] != 2:
        pass

    def script(connection: socket.socket) -> None:
        head = read_head(connection)
        left = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while left:
            left -= len(connection.recv(left))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with scripted(script, backend):
        for asker in askers:
            asker.join()
    assert answers == [(200, b"ok")] * 2


def test_a_held_request_waits_for_its_backend(forwarding: Forwarding) -> None:
    port = forwarding.route(0, hold_ms=60_000)
    answers: list[tuple[int, bytes]] = []
    askers = [threading.Thread(target=lambda n=n: answers.append(ask(port, "POST", b"x" * n))) for n in (10, 300_000)]
    for asker in askers:
        asker.start()
    with named("late") as backend:
        forwarding.route(backend, port=port)
        for asker in askers:
            asker.join()
    assert sorted(answers) == [(200, b"late POST 10"), (200, b"late POST 300000")]


def test_an_idle_connection_that_the_backend_closed_is_no_failure_for_a_question(forwarding: Forwarding) -> None:
    """It closes without an answer when the second request is already there: the worst moment."""
    served = []

    def script(connection: socket.socket) -> None:
        read_head(connection)
        served.append(1)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        read_head(connection)

    with scripted(script) as backend:
        port = forwarding.route(backend, resend=True)
        assert [ask(port, "POST", b"x" * 1000) for _ in range(20)] == [(200, b"ok")] * 20
        assert len(served) == 20
        careful = forwarding.route(backend, resend=False)
        assert ask(careful, "GET") == (200, b"ok")
        assert ask(careful, "POST", b"x")[0] in (200, 502)


def test_what_must_not_be_asked_twice_is_never_asked_twice(forwarding: Forwarding) -> None:
    asked = []

    def script(connection: socket.socket) -> None:
        while True:
            asked.append(read_head(connection).split()[0])
            if asked[-1] == b"POST":
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with scripted(script) as backend:
        port = forwarding.route(backend, resend=False)
        assert ask(port, "GET") == (200, b"ok")
        assert ask(port, "POST")[0] == 502
    assert asked == [b"GET", b"POST"]


def test_a_question_that_ends_its_backend_is_not_asked_again_and_again(forwarding: Forwarding) -> None:
    asked = []

    def script(connection: socket.socket) -> None:
        asked.append(read_head(connection))

    with scripted(script) as backend:
        port = forwarding.route(backend, resend=True)
        assert ask(port, "POST")[0] == 502
        assert ask(port, "GET")[0] == 502
    assert len(asked) == 2


def test_after_a_switch_kept_connections_go_to_the_new_backend_and_flights_end_at_the_old(
    forwarding: Forwarding,
) -> None:
    started, finish = threading.Event(), threading.Event()

    def script(connection: socket.socket) -> None:
        while True:
            head = read_head(connection)
            if b"/slow" in head:
                started.set()
                finish.wait(30)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")

    with scripted(script) as old, named("new") as new:
        port = forwarding.route(old)
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        kept.request("GET", "/")
        assert kept.getresponse().read() == b"old"
        slow = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        slow.request("GET", "/slow")
        started.wait(30)
        forwarding.route(new, port=port)
        kept.request("GET", "/")
        assert kept.getresponse().read() == b"new GET 0"
        assert forwarding.order("status")["busy"] == {str(old): 1}
        finish.set()
        assert slow.getresponse().read() == b"old"
        assert forwarding.order("status")["busy"] == {}
        slow.request("GET", "/slow")
        assert slow.getresponse().read() == b"new GET 0"
        kept.close()
        slow.close()


def test_clients_that_ask_all_the_time_see_no_failed_request_over_many_switches(forwarding: Forwarding) -> None:
    failures: list[object] = []
    answered = threading.Semaphore(0)
    ended = threading.Event()

    def hammer(keep: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not ended.is_set():
            try:
                connection.request("POST", "/", b"x" * 2000)
                response = connection.getresponse()
                body = response.read()
                if response.status != 200 or not body.endswith(b"POST 2000"):
                    failures.append((response.status, body))
            except (OSError, http.client.HTTPException) as error:
                failures.append(error)
                connection.close()
            if not keep:
                connection.close()
            answered.release()
        connection.close()

    with named("first") as first:
        port = forwarding.route(first)
        hammers = [threading.Thread(target=hammer, args=(keep,)) for keep in (True, True, False)]
        for one in hammers:
            one.start()
        with contextlib.ExitStack() as stack:
            for number in range(20):
                backend = stack.enter_context(named(f"b{number}"))
                forwarding.route(backend, port=port)
                for _ in range(30):
                    assert answered.acquire(timeout=30)
            ended.set()
            for one in hammers:
                one.join()
    assert failures == []


def test_a_body_of_100_mib_streams_both_ways_in_bounded_memory(forwarding: Forwarding) -> None:
    total = 100 * MIB

    def script(connection: socket.socket) -> None:
        read_head(connection)
        left = total
        while left:
            left -= len(connection.recv(min(left, MIB)))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        block = bytes(MIB)
        for _ in range(100):
            connection.sendall(block)

    with scripted(script) as backend:
        port = forwarding.route(backend)
        before = forwarding.rss_bytes()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/", (bytes(MIB) for _ in range(100)), {"Content-Length": str(total)})
        response = connection.getresponse()
        got = 0
        while part := response.read(MIB):
            got += len(part)
        connection.close()
    assert got == total
    assert forwarding.rss_bytes() - before < 6 * MIB


def test_a_client_that_does_not_read_holds_up_only_its_own_backend(forwarding: Forwarding) -> None:
    done = threading.Event()

    def script(connection: socket.socket) -> None:
        head = read_head(connection)
        if b"/big" in head:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (100 * MIB))
            with contextlib.suppress(OSError):
                for _ in range(100):
                    connection.sendall(bytes(MIB))
            done.set()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with scripted(script) as backend:
        port = forwarding.route(backend)
        with socket.create_connection(("127.0.0.1", port)) as lazy:
            lazy.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            assert lazy.recv(10) == b"HTTP/1.1 2"
            assert [ask(port) for _ in range(20)] == [(200, b"ok")] * 20
            assert not done.is_set()
        assert done.wait(30), "the backend is told that the client went away"
    assert forwarding.rss_bytes() < 20 * MIB


def test_it_stays_small(forwarding: Forwarding) -> None:
    with named("a") as backend:
        port = forwarding.route(backend)
        for _ in range(200):
            assert ask(port)[0] == 200
    assert forwarding.rss_bytes() < 20 * MIB


def test_a_hundred_clients_at_once_are_all_served(forwarding: Forwarding) -> None:
    answers: list[tuple[int, bytes]] = []
    with named("a") as backend:
        port = forwarding.route(backend)
        askers = [threading.Thread(target=lambda: answers.append(ask(port, "POST", b"x" * 5000))) for _ in range(100)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
    assert answers == [(200, b"a POST 5000")] * 100


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"[]",
        b"{",
        b'{"format":9,"generation":1,"listen":"","routes":[]}',
        b'{"format":1,"generation":2,"listen":"127.0.0.1","routes":[{"name":"x","port":0,"backend":1}]}',
        b'{"format":1,"generation":2,"listen":"127.0.0.1","routes":[{"name":"x","port":70000,"backend":1}]}',
        b'{"format":1,"generation":2,"listen":"127.0.0.1","routes":[{"name":"x","port":80,"backend":"evil.example"}]}',
    ],
)
def test_forged_routes_change_nothing(forwarding: Forwarding, forged: bytes) -> None:
    with named("a") as backend:
        port = forwarding.route(backend)
        generation = forwarding.generation
        (forwarding.directory / ROUTES).write_bytes(forged)
        said = forwarding.order("reload")
        assert said["generation"] == generation
        assert said["fault"]
        assert ask(port) == (200, b"a GET 0")


def test_a_route_never_leads_to_a_stable_port() -> None:
    with pytest.raises(Malformed):
        decode_routes(encode_routes(Routes(1, "127.0.0.1", (Route("a", 1000, 1001), Route("b", 1001, 0)))))
    with pytest.raises(Malformed):
        decode_routes(encode_routes(Routes(1, "127.0.0.1", (Route("a", 1000, 0), Route("b", 1000, 0)))))


def test_a_port_that_somebody_else_has_is_told_and_the_others_work(forwarding: Forwarding) -> None:
    with named("a") as backend, socket.create_server(("127.0.0.1", 0)) as taken:
        forwarding.routes[9] = Route("model/t", taken.getsockname()[1], backend)
        forwarding.write()
        said = forwarding.order("reload")
        assert list(said["faults"]) == [str(taken.getsockname()[1])]  # type: ignore[call-overload]  # JSON
        del forwarding.routes[9]
        assert ask(forwarding.route(backend)) == (200, b"a GET 0")


def test_a_removed_route_closes_its_port(forwarding: Forwarding) -> None:
    with named("a") as backend:
        port = forwarding.route(backend)
        assert ask(port)[0] == 200
        del forwarding.routes[port]
        forwarding.write()
        forwarding.order("reload")
        with pytest.raises(OSError):
            ask(port)


def test_there_is_one_forwarder_for_a_directory(forwarding: Forwarding) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "agent.forward", str(forwarding.directory)], capture_output=True, text=True, timeout=30
    )
    assert second.returncode == 1
    assert "another forwarder" in second.stderr


def test_told_to_stop_it_answers_what_is_in_flight_and_ends(forwarding: Forwarding) -> None:
    started, finish = threading.Event(), threading.Event()

    def script(connection: socket.socket) -> None:
        read_head(connection)
        started.set()
        finish.wait(30)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with scripted(script) as backend:
        port = forwarding.route(backend)
        answers: list[tuple[int, bytes]] = []
        asker = threading.Thread(target=lambda: answers.append(ask(port)))
        asker.start()
        started.wait(30)
        forwarding.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(OSError):
            while True:
                ask(port)
        finish.set()
        asker.join()
    assert answers == [(200, b"ok")]
    assert forwarding.process.wait(30) == 0


def test_a_directory_of_any_length_will_do(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    one = Forwarding(deep)
    assert one.order("stop")["pid"] == one.process.pid
    one.process.communicate(timeout=30)
