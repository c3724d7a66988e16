"""The long poll: news at once, nothing new after the wait, and only to who may know."""

from __future__ import annotations

import base64
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agent.wire.overlay import MEDIA_TYPE, Limits, unpack
from agent.wire.release import NAME

URL = "/v1/overlay"


def poll(hub: Any, cluster: str, known: str = "", wait: str = "", **more: Any) -> Any:
    headers = {"If-None-Match": f'"{known}"'} if known else {}
    path = URL + (f"?wait={wait}" if wait else "")
    return hub.ask("GET", path, bearer=hub.credentials[cluster], headers=headers, **more)


def until_waiting(hub: Any, cluster: str) -> None:
    deadline = time.monotonic() + 20
    while cluster not in hub.notifier.waiting():
        assert time.monotonic() < deadline, "nobody waits"
        threading.Event().wait(0.005)


def test_an_overlay_comes_as_it_was_published(hub: Any) -> None:
    hub.join("milan-01")
    commit = hub.publish("milan-01", {"models/digits/service.yaml": b"kind: Service\n", "kustomization.yaml": b"{}\n"})
    answer = poll(hub, "milan-01")
    assert (answer.status, answer.headers["content-type"], answer.headers["etag"]) == (200, MEDIA_TYPE, f'"{commit}"')
    files = unpack(answer.body, Limits(), "overlay")
    assert files["models/digits/service.yaml"] == b"kind: Service\n"
    assert set(files) == {"models/digits/service.yaml", "kustomization.yaml", NAME}


def test_what_the_agent_knows_is_not_sent_again(hub: Any) -> None:
    hub.join("milan-01")
    commit = hub.publish("milan-01")
    answer = poll(hub, "milan-01", commit)
    assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", f'"{commit}"')
    assert poll(hub, "milan-01", "0" * 40).status == 200


def test_nothing_new_is_said_after_the_wait(hub: Any) -> None:
    hub.join("milan-01")
    commit = hub.publish("milan-01")
    assert poll(hub, "milan-01", commit, wait="0.2").status == 304


def test_a_publication_ends_the_wait(hub: Any) -> None:
    hub.join("milan-01")
    hub.join("turin-01")
    first, other = hub.publish("milan-01"), hub.publish("turin-01")
    with ThreadPoolExecutor(2) as pool:
        waits = pool.submit(poll, hub, "milan-01", first, "250")
        still = pool.submit(poll, hub, "turin-01", other, "250")
        until_waiting(hub, "milan-01")
        until_waiting(hub, "turin-01")
        second = hub.publish("milan-01", {"a": b"new"}, sequence=2)
        assert waits.result(20).headers["etag"] == f'"{second}"'
        assert not still.done()
        hub.publish("turin-01", {"a": b"new"}, sequence=2)
        assert still.result(20).status == 200


def test_a_cluster_without_an_overlay_may_wait_for_its_first(hub: Any) -> None:
    hub.join("milan-01")
    answer = poll(hub, "milan-01")
    assert (answer.status, answer.json["code"]) == (404, "EF3107")
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(poll, hub, "milan-01", "", "250")
        until_waiting(hub, "milan-01")
        hub.publish("milan-01")
        assert waits.result(20).status == 200


def test_one_connection_serves_many_polls(hub: Any) -> None:
    hub.join("milan-01")
    commit = hub.publish("milan-01")
    connection = hub.connect()
    for _ in range(50):
        assert poll(hub, "milan-01", commit, connection=connection).status == 304
        assert connection.sock is not None
    connection.close()


def test_an_answer_with_nothing_new_is_small(hub: Any) -> None:
    hub.join("milan-01")
    commit = hub.publish("milan-01")
    answer = poll(hub, "milan-01", commit)
    assert {name.lower() for name in answer.headers} == {"etag"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic bWlsYW4tMDE6d3Jvbmc="},
        {"Authorization": "Digest x"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("path", [URL, "/v1/reports", "/git/milan-01/info/refs", "/v2/", "/v2/m/blobs/x", "/v1/status"])
def test_who_is_unknown_learns_nothing(hub: Any, path: str, headers: dict[str, str]) -> None:
    hub.join("milan-01")
    hub.publish("milan-01")
    answer = hub.ask("POST" if path == "/v1/reports" else "GET", path, headers=headers)
    assert answer.status == 401
    assert "www-authenticate" in answer.headers
    assert b"milan" not in answer.body


def test_basic_credentials_count_only_with_their_own_cluster(hub: Any) -> None:
    hub.join("milan-01")
    hub.join("turin-01")
    hub.publish("milan-01")
    for user, status in (("milan-01", 200), ("turin-01", 401), ("", 401)):
        shown = base64.b64encode(f"{user}:{hub.credentials['milan-01']}".encode()).decode()
        assert hub.ask("GET", URL, headers={"Authorization": f"Basic {shown}"}).status == status


def test_a_revoked_credential_ends_its_waiting_poll(hub: Any) -> None:
    hub.join("milan-01")
    commit = hub.publish("milan-01")
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(poll, hub, "milan-01", commit, "250")
        until_waiting(hub, "milan-01")
        hub.store.revoke("milan-01", "ann", hub.now)
        assert waits.result(20).status == 401
    assert poll(hub, "milan-01").status == 401


def test_a_client_that_leaves_is_not_waited_for(hub: Any) -> None:
    hub.join("milan-01")
    commit = hub.publish("milan-01")
    connection = hub.connect()
    headers = {"If-None-Match": f'"{commit}"', "Authorization": f"Bearer {hub.credentials['milan-01']}"}
    connection.request("GET", URL + "?wait=250", headers=headers)
    until_waiting(hub, "milan-01")
    connection.close()
    deadline = time.monotonic() + 20
    while hub.notifier.waiting():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_stopping_the_hub_answers_who_waits(make_hub: Any) -> None:
    hub = make_hub()
    hub.join("milan-01")
    commit = hub.publish("milan-01")
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(poll, hub, "milan-01", commit, "250")
        until_waiting(hub, "milan-01")
        hub.server.stop()
        assert waits.result(20).status == 304


@pytest.mark.parametrize("query", ["?wait=x", "?wait=-1", "?wait=1e9", "?wait=", "?wait=99999999"])
def test_a_wait_that_is_no_number_is_refused(hub: Any, query: str) -> None:
    hub.join("milan-01")
    hub.publish("milan-01")
    assert hub.ask("GET", URL + query, bearer=hub.credentials["milan-01"]).json["code"] == "EF3104"


def test_polls_write_nothing(hub: Any) -> None:
    hub.join("milan-01")
    commit = hub.publish("milan-01")
    poll(hub, "milan-01", commit)
    before = {path.name: path.stat().st_size for path in hub.root.glob("hub.sqlite*")}
    connection = hub.connect()
    for _ in range(100):
        poll(hub, "milan-01", commit, connection=connection)
    connection.close()
    assert {path.name: path.stat().st_size for path in hub.root.glob("hub.sqlite*")} == before
    assert hub.store.registrations()[0].seen_at == hub.now


def raw_poll(hub: Any, commit: str, query: str = "", more: str = "", version: str = "1.1") -> bytes:
    return (
        f'GET {URL}{query} HTTP/{version}\r\nhost: x\r\nif-none-match: "{commit}"\r\n'
        f"authorization: Bearer {hub.credentials['milan-01']}\r\n{more}\r\n"
    ).encode()


def talk(hub: Any, *requests: bytes) -> bytes:
    """Send requests in one go, the last of which asks to close, and return all answers."""
    with socket.create_connection(("127.0.0.1", hub.port), timeout=30) as connection:
        connection.sendall(b"".join(requests))
        return b"".join(iter(lambda: connection.recv(65536), b""))


CLOSE = "connection: close\r\n"


def test_a_request_behind_a_waiting_poll_ends_the_wait(hub: Any) -> None:
    hub.join("milan-01")
    commit = hub.publish("milan-01")
    other = f"GET /healthz HTTP/1.1\r\nhost: x\r\n{CLOSE}\r\n".encode()
    answers = talk(hub, raw_poll(hub, commit, "?wait=250"), raw_poll(hub, commit, "?wait=250"), other)
    assert answers.count(b"304 Not Modified") == 2
    assert answers.endswith(b'{"status":"ok"}')


def test_a_request_behind_an_overlay_that_is_being_packed_is_not_answered_out_of_turn(hub: Any) -> None:
    hub.join("milan-01")
    hub.publish("milan-01", {"a": b"b"})
    answers = talk(hub, raw_poll(hub, "0" * 40), raw_poll(hub, "0" * 40))
    assert answers.startswith(b"HTTP/1.1 200 OK")
    assert answers.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answers


def test_a_poll_behind_another_request_is_told_to_wait_its_turn(hub: Any) -> None:
    hub.join("milan-01")
    commit = hub.publish("milan-01")
    answers = talk(hub, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", raw_poll(hub, commit, more=CLOSE))
    assert answers.index(b"200 OK") < answers.index(b"400 Bad Request")
    assert b"EF3104" in answers


@pytest.mark.parametrize(
    ("more", "status"),
    [
        pytest.param("content-length: 2\r\n" + CLOSE + "\r\n{}", b"400", id="with a body"),
        pytest.param("transfer-encoding: chunked\r\n" + CLOSE + "\r\n0\r\n", b"400", id="with chunks"),
        pytest.param(CLOSE, b"304", id="that closes"),
    ],
)
def test_a_poll(hub: Any, more: str, status: bytes) -> None:
    hub.join("milan-01")
    commit = hub.publish("milan-01")
    assert talk(hub, raw_poll(hub, commit, more=more)).startswith(b"HTTP/1.1 " + status)


def test_an_old_client_is_answered_and_left(hub: Any) -> None:
    hub.join("milan-01")
    commit = hub.publish("milan-01")
    assert talk(hub, raw_poll(hub, commit, version="1.0")).startswith(b"HTTP/1.1 304")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_a_poll_is_a_get(hub: Any, method: str) -> None:
    hub.join("milan-01")
    assert hub.ask(method, URL, bearer=hub.credentials["milan-01"]).status == 405


def test_a_credential_counts_the_moment_it_was_given_elsewhere(hub: Any) -> None:
    hub.join("milan-01")
    hub.publish("milan-01")
    assert poll(hub, "milan-01").status == 200
    hub.join("turin-01")
    hub.publish("turin-01")
    assert poll(hub, "turin-01").status == 200


def test_an_overlay_that_cannot_be_read_is_a_fault_of_the_hub(hub: Any) -> None:
    hub.join("milan-01")
    hub.commits["milan-01"] = "0" * 40
    answer = poll(hub, "milan-01", "1" * 40)
    assert (answer.status, answer.json["code"]) == (500, "EF3112")
    assert hub.ask("GET", "/healthz").status == 200


def test_an_idle_connection_is_closed_after_a_while(make_hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gitops.serve.server.KEEP_ALIVE_S", 0.3)
    hub = make_hub()
    hub.join("milan-01")
    commit = hub.publish("milan-01")
    assert talk(hub, raw_poll(hub, commit), raw_poll(hub, commit)).count(b"304 Not Modified") == 2
