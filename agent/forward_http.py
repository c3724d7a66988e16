"""HTTP/1.1 message framing for the forwarder: where a message begins and ends, and what of its head goes on.

Pure: bytes in, values out. It is stricter than a server need be, as a proxy and a server that read one message in two
ways are how requests are smuggled: whatever could be read in two ways is refused.

Source: RFC 9112 (framing), RFC 9110 7.6.1 (fields of one hop), 7.8 (upgrade).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

MAX_HEAD_BYTES: Final = 32 << 10
MAX_FIELDS: Final = 100
MAX_CHUNK_LINE_BYTES: Final = 256
MAX_TRAILER_BYTES: Final = 8 << 10
MAX_BODY_BYTES: Final = 1 << 50
"""So that no length overflows anybody behind us."""

_REMEMBERED_BYTES: Final = 2 << 10

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb"{1,40}) (/[\x21-\x7e\x80-\xff]*|\*) HTTP/1\.([01])")
_ANY_REQUEST_LINE: Final = re.compile(_TOKEN + rb"+ [^ ]+ HTTP/\d(?:\.\d)?")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?")
_FIELD: Final = re.compile(
    rb"(" + _TOKEN + rb"+):[ \t]*([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?[ \t]*"
)
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,13})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")

_ONE_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"upgrade",
    )
)
_NEVER_NAMED: Final = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))
_SAFE_TO_REPEAT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))

Framing = int | Literal["chunked", "until-close"]
"""A body's length in bytes, or how its end is found."""


class Refused(Exception):
    """A message that must not go on.

    Args:
        status: what the client gets.
        why: for people; never a part of the message.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request head that may go on.

    Attributes:
        modern: HTTP/1.1, not 1.0.
        close: the client's connection ends after the answer.
        upgrade: the client asks to leave HTTP.
        repeatable: the method means the same once or twice.
        forward: the head for the backend, complete.
    """

    method: bytes
    framing: Framing
    modern: bool
    close: bool
    upgrade: bool
    repeatable: bool
    forward: bytes


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """An answer's head.

    Attributes:
        interim: 100 to 199 but 101: another head follows.
        framing: of the body; 0 where there is none.
        keep: the backend's connection can serve another request.
        forward: the head for the client without the empty line at its end, so that a field can be added.
    """

    status: int
    interim: bool
    framing: Framing
    keep: bool
    forward: bytes


def read_request_head(data: bytes) -> RequestHead:
    """Read a request head.

    Args:
        data: from the request line to before the empty line, without its CRLF CRLF.

    Raises:
        Refused: 400, 417, 431, 501 or 505.
    """
    lines = data.split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(lines[0])
    if line is None:
        if _ANY_REQUEST_LINE.fullmatch(lines[0]) and not lines[0].endswith((b"HTTP/1.0", b"HTTP/1.1")):
            raise Refused(505, "this HTTP version is not spoken here")
        raise Refused(400, "the request line is malformed")
    method, modern = line[1], line[3] == b"1"
    fields = _fields(lines)
    if _count(fields, b"host") != 1 and (modern or _count(fields, b"host") > 1):
        raise Refused(400, "there must be one Host")
    framing = _framing(fields, modern)
    named = _named_by_connection(fields)
    expect = _values(fields, b"expect")
    if expect and (expect != [b"100-continue"] or not modern):
        raise Refused(417, "this expectation cannot be met")
    upgrade = modern and b"upgrade" in named and _count(fields, b"upgrade") == 1 and framing in (None, 0)
    kept = [raw for name, _, raw in fields if name not in _ONE_HOP and name not in named]
    if upgrade:
        kept += [b"Connection: upgrade", b"Upgrade: " + _values(fields, b"upgrade")[0]]
    return RequestHead(
        method=method,
        framing=framing or 0,
        modern=modern,
        close=b"close" in named or not modern,
        upgrade=upgrade,
        repeatable=method in _SAFE_TO_REPEAT,
        forward=b"\r\n".join([lines[0], *kept, b"", b""]),
    )


def read_response_head(data: bytes, method: bytes) -> ResponseHead:
    """Read an answer's head.

    Args:
        data: from the status line to before the empty line, without its CRLF CRLF.
        method: of the request.

    Raises:
        Refused: 502: the backend does not speak HTTP/1 as it should.
    """
    lines = data.split(b"\r\n")
    line = _STATUS_LINE.fullmatch(lines[0])
    if line is None:
        raise Refused(502, "the backend's status line is malformed")
    modern, status = line[1] == b"1", int(line[2])
    try:
        fields = _fields(lines)
        framing = _framing(fields, modern)
        named = _named_by_connection(fields)
    except Refused as refused:
        raise Refused(502, f"the backend's answer: {refused.why}") from None
    if status < 200 or status in (204, 304) or method == b"HEAD":
        framing = 0
    elif framing is None:
        framing = "until-close"
    kept = [raw for name, _, raw in fields if name not in _ONE_HOP and name not in named]
    if status == 101:
        kept += [b"Connection: upgrade", *(raw for name, _, raw in fields if name == b"upgrade")]
    keep = framing != "until-close" and b"close" not in named and (modern or b"keep-alive" in named)
    reason = line[3] or b""
    return ResponseHead(
        status=status,
        interim=status < 200 and status != 101,
        framing=framing,
        keep=keep,
        forward=b"\r\n".join([b"HTTP/1.1 " + line[2] + b" " + reason, *kept, b""]),
    )


def request_head(data: bytes) -> RequestHead:
    """Return ``read_request_head``; a client that asks all the time sends the same head again and again."""
    return _read_request_again(data) if len(data) <= _REMEMBERED_BYTES else read_request_head(data)


def response_head(data: bytes, method: bytes) -> ResponseHead:
    """Return ``read_response_head``, remembered as above."""
    return _read_response_again(data, method) if len(data) <= _REMEMBERED_BYTES else read_response_head(data, method)


_read_request_again: Final = lru_cache(maxsize=64)(read_request_head)
_read_response_again: Final = lru_cache(maxsize=64)(read_response_head)


class Body:
    """Finds the end of one body while it streams by; holds none of it.

    Args:
        framing: of the message.
    """

    __slots__ = ("_left", "_line", "_state", "done")

    def __init__(self, framing: Framing) -> None:
        self._state: Literal["length", "until-close", "size", "data", "end", "trailer"]
        self._line = bytearray()
        self._left = 0
        if framing == "chunked":
            self._state = "size"
        elif framing == "until-close":
            self._state = "until-close"
        else:
            self._state, self._left = "length", framing
        self.done = framing == 0
        """Everything has gone by. A body that lasts until the connection closes never is."""

    def feed(self, data: bytes | bytearray) -> int:
        """Return how many bytes at the beginning of ``data`` belong to this body.

        Raises:
            Refused: 400: a chunk that could be read in two ways, or too long a line.
        """
        if self._state == "until-close":
            return len(data)
        if self._state == "length":
            taken = min(self._left, len(data))
            self._left -= taken
            self.done = not self._left
            return taken
        return self._feed_chunked(data)

    def _feed_chunked(self, data: bytes | bytearray) -> int:
        at, end = 0, len(data)
        while at < end and not self.done:
            if self._state == "data":
                taken = min(self._left, end - at)
                self._left -= taken
                at += taken
                if not self._left:
                    self._state = "end"
                continue
            stop = data.find(b"\n", at)
            stop = end if stop < 0 else stop + 1
            self._line += data[at:stop]
            at = stop
            limit = MAX_TRAILER_BYTES if self._state == "trailer" else MAX_CHUNK_LINE_BYTES
            if len(self._line) > limit:
                raise Refused(400, "a line of the chunked body is too long")
            if self._line.endswith(b"\n"):
                self._end_of_line()
        return at

    def _end_of_line(self) -> None:
        line = bytes(self._line)
        if not line.endswith(b"\r\n"):
            raise Refused(400, "a line of the chunked body does not end with CRLF")
        line = line[:-2]
        self._line.clear()
        if self._state == "end":
            if line:
                raise Refused(400, "a chunk is longer than it says")
            self._state = "size"
        elif self._state == "size":
            size = _CHUNK_LINE.fullmatch(line)
            if size is None:
                raise Refused(400, "a chunk's size is malformed")
            length = int(size[1], 16)
            if length > MAX_BODY_BYTES:
                raise Refused(400, "a chunk is too large")
            self._state, self._left = ("data", length) if length else ("trailer", MAX_TRAILER_BYTES)
        elif not line:
            self.done = True
        else:
            field = _FIELD.fullmatch(line)
            if field is None or field[1].lower() in _NEVER_NAMED:
                raise Refused(400, "a trailer is malformed")
            self._left -= len(line)
            if self._left < 0:
                raise Refused(400, "the trailers are too long")


def refusal(status: int, why: str) -> bytes:
    """Return a whole answer in JSON that ends the connection."""
    reasons = {400: "Bad Request", 408: "Request Timeout", 417: "Expectation Failed", 431: "Headers Too Large"}
    reasons |= {501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"}
    body = b'{"error": "' + why.replace("\\", "").replace('"', "'").encode() + b'"}\n'
    return (
        f"HTTP/1.1 {status} {reasons.get(status, 'Error')}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body


def _fields(lines: list[bytes]) -> list[tuple[bytes, bytes, bytes]]:
    """Return (lower-case name, value, line) of every field."""
    if len(lines) > MAX_FIELDS + 1:
        raise Refused(431, "there are too many header fields")
    fields = []
    for line in lines[1:]:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise Refused(400, "a header field is malformed")
        fields.append((field[1].lower(), field[2] or b"", line))
    return fields


def _framing(fields: list[tuple[bytes, bytes, bytes]], modern: bool) -> Framing | None:
    """Return the body's framing; None where no field says it."""
    lengths, codings = _values(fields, b"content-length"), _values(fields, b"transfer-encoding")
    if not lengths and not codings:
        return None
    if lengths and codings:
        raise Refused(400, "Content-Length and Transfer-Encoding exclude each other")
    if codings:
        if not modern:
            raise Refused(400, "HTTP/1.0 has no Transfer-Encoding")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise Refused(501, "no transfer coding but chunked is spoken here")
        return "chunked"
    if len(lengths) != 1 or not lengths[0].isdigit() or len(lengths[0]) > 16 or int(lengths[0]) > MAX_BODY_BYTES:
        raise Refused(400, "the Content-Length is malformed")
    return int(lengths[0])


def _named_by_connection(fields: list[tuple[bytes, bytes, bytes]]) -> frozenset[bytes]:
    """Return the lower-case words of ``Connection``: options, and fields that end at this hop."""
    values = _values(fields, b"connection")
    if not values:
        return frozenset()
    named = frozenset(word.strip().lower() for value in values for word in value.split(b","))
    if named & _NEVER_NAMED:
        raise Refused(400, "Connection names a field that must go on")
    return named


def _values(fields: list[tuple[bytes, bytes, bytes]], wanted: bytes) -> list[bytes]:
    return [value for name, value, _ in fields if name == wanted]


def _count(fields: list[tuple[bytes, bytes, bytes]], wanted: bytes) -> int:
    return sum(name == wanted for name, _, _ in fields)
