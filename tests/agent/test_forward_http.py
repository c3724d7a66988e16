"""Framing: what goes on, what is refused. The smuggling table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.forward_http import Body, Refused, read_request_head, read_response_head, refusal

POST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\n"

SMUGGLED = {
    "both lengths": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4",
    "the same length twice": POST + b"Content-Length: 3\r\nContent-Length: 3",
    "a list of lengths": POST + b"Content-Length: 3, 3",
    "a signed length": POST + b"Content-Length: +3",
    "a negative length": POST + b"Content-Length: -1",
    "a hexadecimal length": POST + b"Content-Length: 0x10",
    "an empty length": POST + b"Content-Length:",
    "a length beyond every integer": POST + b"Content-Length: " + b"9" * 40,
    "a length with an underscore": POST + b"Content-Length: 1_0",
    "a length in other digits": POST + "Content-Length: ٣".encode(),
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "chunked after identity": POST + b"Transfer-Encoding: identity, chunked",
    "an unknown coding": POST + b"Transfer-Encoding: xchunked",
    "a coding with a vertical tab": POST + b"Transfer-Encoding: \x0bchunked",
    "a folded field": POST + b"Transfer-Encoding:\r\n chunked",
    "a folded first field": b"GET / HTTP/1.1\r\n Host: a",
    "a space before the colon": POST + b"Content-Length : 3",
    "a space before the name": POST + b" Content-Length: 3",
    "no colon": POST + b"Content-Length",
    "no name": POST + b": 3",
    "a bare line feed": POST + b"X: 1\nContent-Length: 3",
    "a bare carriage return": POST + b"X: 1\rContent-Length: 3",
    "a NUL in a value": POST + b"X: 1\x002",
    "a NUL in a name": POST + b"X\x00: 1",
    "coding in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked",
    "no host": b"GET / HTTP/1.1\r\nX: 1",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: a",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: a",
    "a tab for a space": b"GET\t/ HTTP/1.1\r\nHost: a",
    "another site's target": b"GET http://b/ HTTP/1.1\r\nHost: a",
    "a tunnel": b"CONNECT b:443 HTTP/1.1\r\nHost: b:443",
    "a control character in the target": b"GET /\x01 HTTP/1.1\r\nHost: a",
    "no version": b"GET /\r\nHost: a",
    "a version of three parts": b"GET / HTTP/1.1.1\r\nHost: a",
    "a long method": b"G" * 41 + b" / HTTP/1.1\r\nHost: a",
    "a connection that hides the length": POST + b"Content-Length: 3\r\nConnection: content-length",
    "a connection that hides the coding": POST + b"Transfer-Encoding: chunked\r\nConnection: close, Transfer-Encoding",
    "a connection that hides the host": POST + b"Connection: host",
    "nothing at all": b"",
}


@pytest.mark.parametrize("head", SMUGGLED.values(), ids=SMUGGLED.keys())
def test_what_can_be_read_in_two_ways_is_refused(head: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read_request_head(head)
    assert refused.value.status in (400, 501)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/2.0\r\nHost: a", 505),
        (b"PRI * HTTP/2.0\r\n", 505),
        (POST + b"Expect: 200-ok", 417),
        (POST + b"Transfer-Encoding: gzip", 501),
        (POST + b"\r\n".join(b"X-%d: 1" % n for n in range(100)), 431),
    ],
)
def test_what_is_not_spoken_here_is_told_so(head: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        read_request_head(head)
    assert refused.value.status == status


def test_fields_of_one_hop_end_here_and_all_others_go_on_as_they_are() -> None:
    head = read_request_head(
        b"POST /x?y=%20 HTTP/1.1\r\nHOST: a\r\nConnection: keep-alive, X-Mine\r\nKeep-Alive: timeout=5\r\nX-Mine: 1\r\n"
        b"Proxy-Connection: x\r\nTE: trailers\r\nUpgrade: h2c\r\nAuthorization: Bearer s\r\nContent-Length: 5\r\n"
        b"X:\t v \t"
    )
    assert head.forward == (
        b"POST /x?y=%20 HTTP/1.1\r\nHOST: a\r\nAuthorization: Bearer s\r\nContent-Length: 5\r\nX:\t v \t\r\n\r\n"
    )
    assert (head.framing, head.close, head.upgrade, head.repeatable) == (5, False, False, False)


def test_an_upgrade_goes_on_unless_a_body_comes_with_it() -> None:
    ask = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket"
    assert read_request_head(ask).upgrade
    assert read_request_head(ask).forward.endswith(b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    with_body = read_request_head(ask + b"\r\nContent-Length: 3")
    assert not with_body.upgrade
    assert b"Upgrade" not in with_body.forward


def test_http_1_0_closes_and_needs_no_host() -> None:
    head = read_request_head(b"GET / HTTP/1.0\r\nConnection: keep-alive")
    assert head.close
    assert not head.modern
    assert head.forward == b"GET / HTTP/1.0\r\n\r\n"


def test_the_first_answer_with_no_body_by_its_nature_has_none() -> None:
    length = b"HTTP/1.1 %d X\r\nContent-Length: 5"
    assert read_response_head(length % 200, b"GET").framing == 5
    assert read_response_head(length % 200, b"HEAD").framing == 0
    assert read_response_head(length % 304, b"GET").framing == 0
    assert read_response_head(length % 204, b"GET").framing == 0
    assert read_response_head(length % 100, b"GET").interim


def test_an_answer_without_length_lasts_until_the_connection_closes() -> None:
    head = read_response_head(b"HTTP/1.1 200", b"GET")
    assert (head.framing, head.keep) == ("until-close", False)
    assert head.forward == b"HTTP/1.1 200 \r\n"


@pytest.mark.parametrize(
    ("head", "keep"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive", True),
    ],
)
def test_a_backend_says_whether_it_keeps_the_connection(head: bytes, keep: bool) -> None:
    assert read_response_head(head, b"GET").keep is keep


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: x",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\nX: 1",
        b"HTTP/1.1 99 OK",
        b"HTTP/1.1 600 OK",
        b"HTTP/2 200",
        b"ICY 200 OK",
        b"HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 3",
    ],
)
def test_a_backend_that_could_be_read_in_two_ways_is_a_bad_gateway(head: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read_response_head(head, b"GET")
    assert refused.value.status == 502


CHUNKED = b"5\r\nhello\r\n00a;x=y\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n"


@given(st.lists(st.integers(1, len(CHUNKED)), max_size=len(CHUNKED)))
def test_a_chunked_body_ends_at_the_same_byte_however_it_arrives(cuts: list[int]) -> None:
    stream = CHUNKED + b"GET /next"
    body, taken = Body("chunked"), 0
    borders = sorted({*cuts, len(stream)})
    for start, end in zip([0, *borders], borders, strict=False):
        if not body.done:
            taken += body.feed(stream[start:end])
    assert body.done
    assert taken == len(CHUNKED)


@pytest.mark.parametrize(
    "data",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello!\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"0x5\r\nhello\r\n",
        b"-5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"\r\nhello\r\n",
        b"ffffffffffffffff\r\n",
        b"fffffffffffff\r\n",
        b"5;" + b"x" * 300,
        b"5;\x00\r\n",
        b"5;a\rb\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\n" + b"X: 1234567890\r\n" * 1000 + b"\r\n",
    ],
)
def test_a_chunk_that_can_be_read_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        Body("chunked").feed(data)


@given(st.integers(0, 100), st.binary(max_size=120))
def test_a_body_takes_its_length_and_no_more(length: int, data: bytes) -> None:
    body = Body(length)
    assert body.feed(data) == min(length, len(data))
    assert body.done is (len(data) >= length)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (read_request_head, lambda data: read_response_head(data, b"GET")):
        try:
            read(data)
        except Refused:
            pass


@given(st.binary(max_size=200))
def test_what_goes_on_is_read_the_same_way_again(data: bytes) -> None:
    try:
        head = read_request_head(POST + data)
    except Refused:
        return
    again = read_request_head(head.forward.removesuffix(b"\r\n\r\n"))
    assert again.framing == head.framing
    assert again.forward == head.forward


def test_a_refusal_is_json_and_ends_the_connection() -> None:
    answer = refusal(503, 'model/"x" is not up')
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b'{"error": "model/\'x\' is not up"}\n')
