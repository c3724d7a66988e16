"""What the forwarder ends for taking too long; the clock is the loop's, and is moved by hand."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from agent.forward_backend import Relay
from agent.forward_client import ANSWER_S, HEAD_S, IDLE_S, LINGER_S, STALL_S, Client
from agent.forward_routes import Route
from agent.forward_wire import Loop

PORT = 1


class Line:
    """A client's end of a connection to a forwarder without a process."""

    def __init__(self, hold_ms: int = 0) -> None:
        self.backend = socket.create_server(("127.0.0.1", 0))
        self.time_s = 1000.0
        self.loop = Loop(lambda: self.time_s)
        self.relay = Relay(self.loop)
        self.relay.route_by({PORT: Route("model/m", PORT, self.backend.getsockname()[1], True, hold_ms)})
        self.end, inner = socket.socketpair()
        inner.setblocking(False)
        self.end.settimeout(30)
        self.client = Client(self.relay, _Tcp(inner.family, inner.type, 0, inner.detach()), PORT)

    def say(self, data: bytes) -> None:
        self.end.sendall(data)
        self.loop.turn(0)

    def after(self, seconds: float) -> bytes | None:
        """Let time pass; return what came, empty for an end, None for nothing."""
        self.time_s += seconds
        self.loop.turn(0)
        self.relay.sweep()
        self.end.setblocking(False)
        try:
            return self.end.recv(65536)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""

    def accept(self) -> socket.socket:
        connection, _ = self.backend.accept()
        self.loop.turn(0)
        return connection

    def close(self) -> None:
        self.client.vanish()
        self.end.close()
        self.backend.close()


class _Tcp(socket.socket):
    """A Unix socket that takes TCP's options, as there is no TCP socketpair."""

    def setsockopt(self, level: int, *rest: object) -> None:  # type: ignore[override]  # only what a Wire asks for
        if level != socket.IPPROTO_TCP:
            super().setsockopt(level, *rest)  # type: ignore[arg-type]  # passed through


@pytest.fixture
def line() -> Iterator[Line]:
    one = Line()
    yield one
    one.close()


def test_a_head_that_drips_in_is_given_up_though_it_never_pauses(line: Line) -> None:
    line.say(b"GET / HTTP/1.1\r\n")
    for _ in range(9):
        assert line.after(HEAD_S / 10) is None
        line.say(b"X: 1\r\n")
    answer = line.after(HEAD_S / 9)
    assert answer is not None
    assert answer.startswith(b"HTTP/1.1 408")


def test_an_idle_connection_is_kept_and_then_closed_without_a_word(line: Line) -> None:
    assert line.after(IDLE_S - 1) is None
    assert line.after(2) == b""


def test_a_body_that_stops_is_given_up(line: Line) -> None:
    line.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
    backend = line.accept()
    assert line.after(STALL_S - 1) is None
    answer = line.after(2)
    assert answer is not None
    assert answer.startswith(b"HTTP/1.1 408")
    assert line.relay.busy == {}
    backend.close()


def test_a_backend_may_think_for_long_and_not_for_ever(line: Line) -> None:
    line.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nfull")
    backend = line.accept()
    assert line.after(ANSWER_S - 1) is None
    answer = line.after(2)
    assert answer is not None
    assert answer.startswith(b"HTTP/1.1 504")
    assert line.relay.busy == {}
    backend.close()


def test_a_client_that_was_told_to_go_has_a_moment_and_no_more(line: Line) -> None:
    line.say(b"rubbish\r\n\r\n")
    assert line.client.state == "linger"
    line.say(b"still talking")
    assert line.client.state == "linger"
    line.after(LINGER_S + 1)
    assert line.client.state == "gone"
    assert line.relay.clients == set()


def test_a_held_request_is_refused_when_the_time_is_over() -> None:
    line = Line(hold_ms=5000)
    line.relay.route_by({PORT: Route("model/m", PORT, 0, True, 5000)})
    line.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    line.relay.kick()
    assert line.relay.waiting() == 1
    line.time_s += 6
    line.loop.turn(0)
    line.relay.kick()
    assert line.end.recv(65536).startswith(b"HTTP/1.1 503")
    line.close()
