"""Readiness and self-tests against real HTTP servers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agent.inference import NotAnswering, Probe, SelfTestFailed, compare, probe, readiness_paths, self_test


@contextmanager
def serving(answer: Callable[[str, str, bytes], tuple[int, bytes]]) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, data = answer(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silent() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def at(port: int, *paths: str) -> Probe:
    return Probe(port, paths)


@pytest.mark.parametrize(("status", "ready"), [(200, True), (204, True), (301, False), (400, False), (503, False)])
def test_readiness_is_the_status(status: int, ready: bool) -> None:
    with serving(lambda *_: (status, b"")) as port:
        assert probe([at(port, "/v2/health/ready")]) == (ready,)


def test_a_server_without_the_first_path_is_asked_for_the_second() -> None:
    with serving(lambda _, path, __: (200 if path == "/v2/models/m/ready" else 404, b"")) as port:
        assert probe([at(port, *readiness_paths("v2", "", "m"))]) == (True,)
        assert probe([at(port, *readiness_paths("v2", "", "n"))]) == (False,)


def test_the_answers_come_in_the_order_of_the_questions() -> None:
    with serving(lambda *_: (200, b"")) as good, serving(lambda *_: (503, b"")) as bad:
        asked = [at(bad, "/"), at(good, "/"), at(unused_port(), "/"), at(good, "/"), at(good)]
        assert probe(asked) == (False, True, False, True, True)


def test_many_silent_servers_take_one_deadline_together() -> None:
    with silent() as port, serving(lambda *_: (200, b"")) as good:
        assert probe([at(port, "/")] * 20 + [at(good, "/")], timeout_s=0.2) == (False,) * 20 + (True,)


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2 hello\r\n", b"HTTP/1.1 abc nonsense\r\n", b""])
def test_what_is_not_http_is_not_ready(said: bytes) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def talk() -> None:
            connection, _ = listener.accept()
            connection.sendall(said)
            connection.close()

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        assert probe([at(listener.getsockname()[1], "/")]) == (False,)
        thread.join()


def test_readiness_paths_follow_the_protocol() -> None:
    assert readiness_paths("http", "/up", "m") == ("/up",)
    assert readiness_paths("http", "", "m") == ("/",)
    assert readiness_paths("", "", "m") == ()


SAME = [
    ({"a": 1}, {"a": 1, "b": 2}),
    ({"a": [1.0, 2]}, {"a": [1.0009, 2.0]}),
    ({}, {"anything": None}),
    ({"a": {"b": None}}, {"a": {"b": None, "c": 1}}),
    (float("nan"), float("nan")),
    (float("inf"), float("inf")),
]
DIFFERENT = [
    ({"a": 1}, {}, "a is missing"),
    ({"a": 1}, [], "the answer is [], wanted an object"),
    ({"a": [1, 2]}, {"a": [1]}, "a has 1 items, wanted 2"),
    ({"a": [{"b": 1}]}, {"a": [{"b": 1.002}]}, "a[0].b is 1.002, wanted 1 within 0.001"),
    ({"a": True}, {"a": 1}, "a is 1, wanted true"),
    ({"a": 1}, {"a": True}, "a is true, wanted 1"),
    ({"a": "1"}, {"a": 1}, 'a is 1, wanted "1"'),
    ({"a": [1]}, {"a": {"0": 1}}, 'a is {"0": 1}, wanted a list'),
    (1.0, float("nan"), "the answer is NaN, wanted 1.0 within 0.001"),
    ({"a": 0}, {"a": None}, "a is null, wanted 0"),
]


@pytest.mark.parametrize(("wanted", "got"), SAME)
def test_more_than_wanted_is_the_same(wanted: Any, got: Any) -> None:
    assert compare(wanted, got, 0.001) == ""


@pytest.mark.parametrize(("wanted", "got", "said"), DIFFERENT)
def test_a_difference_says_where(wanted: Any, got: Any, said: str) -> None:
    assert compare(wanted, got, 0.001) == said


def test_a_right_answer_passes_and_the_question_arrives_as_it_is() -> None:
    asked: list[tuple[str, str, bytes]] = []

    def answer(*request: Any) -> tuple[int, bytes]:
        asked.append(request)
        return 200, b'{"outputs": [{"data": [2]}], "id": "x"}'

    with serving(answer) as port:
        self_test(f"http://127.0.0.1:{port}", "digits", b'{"inputs": []}', b'{"outputs": [{"data": [2]}]}', "0")
    assert asked == [("POST", "/v2/models/digits/infer", b'{"inputs": []}')]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b'{"outputs": [{"data": [3]}]}', r"outputs\[0\].data\[0\] is 3, wanted 2"),
        (400, b'{"error": "bad shape"}', "status 400: .*bad shape"),
        (500, b"", "status 500"),
        (200, b"<html>", "the answer is not JSON"),
        (200, b"[" * 100_000, "the answer is not JSON"),
    ],
)
def test_a_wrong_answer_fails(status: int, body: bytes, said: str) -> None:
    with serving(lambda *_: (status, body)) as port, pytest.raises(SelfTestFailed, match=said):
        self_test(f"http://127.0.0.1:{port}", "m", b"{}", b'{"outputs": [{"data": [2]}]}', "0")


@pytest.mark.parametrize(
    ("question", "answer", "tolerance"),
    [(b"{", b"{}", "0"), (b"{}", b"", "0"), (b"{}", b"{}", "nan"), (b"{}", b"{}", "x")],
)
def test_an_unreadable_self_test_fails_before_anybody_is_asked(question: bytes, answer: bytes, tolerance: str) -> None:
    with pytest.raises(SelfTestFailed):
        self_test(f"http://127.0.0.1:{unused_port()}", "m", question, answer, tolerance)


def test_silence_fails_and_an_absent_server_is_asked_again() -> None:
    with silent() as port, pytest.raises(SelfTestFailed, match=r"no answer within 0\.1 s"):
        self_test(f"http://127.0.0.1:{port}", "m", b"{}", b"{}", "0", timeout_s=0.1)
    with pytest.raises(NotAnswering):
        self_test(f"http://127.0.0.1:{unused_port()}", "m", b"{}", b"{}", "0")


def test_a_tolerance_is_a_decimal_number() -> None:
    body = json.dumps({"x": 0.50009}).encode()
    with serving(lambda *_: (200, body)) as port:
        self_test(f"http://127.0.0.1:{port}", "m", b"{}", b'{"x": 0.5}', "0.0001")
        with pytest.raises(SelfTestFailed):
            self_test(f"http://127.0.0.1:{port}", "m", b"{}", b'{"x": 0.5}', "0.00001")
