"""One HTTP connection: uvicorn's httptools protocol, with client certificates, limits, and polls.

uvicorn reads no client certificate, bounds no header, and waits for ever for a client that sends nothing or reads
nothing; here are these. And a poll is answered by the connection itself: for nothing new, a task, a scope and an
ASGI conversation would cost several times the answer.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gitops.serve.identity import CERTIFICATE, Certificate
from gitops.serve.poll import PATH, Ask, Poll, Polls

MOST_HEADER_BYTES: Final = 32 << 10
"""Request line and headers together."""

HEADERS_S: Final = 20.0
"""A request's headers must be complete within this of its first byte; the first request's, of the connection."""

STALLED_S: Final = 300.0
"""A client must take something of its answer within this."""

MOST_CONNECTIONS: Final = 20_000

_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_RESET: Final = struct.pack("ii", 1, 0)
_BUFFER: Final = memoryview(bytearray(64 << 10))
_WITH_BODY: Final = {b"content-length", b"transfer-encoding", b"expect", b"upgrade"}


class HubProtocol(HttpToolsProtocol, asyncio.BufferedProtocol):
    """One connection of an agent, a Git client, a Git host, or a person.

    Args:
        polls: answers the polls.
        settings: what uvicorn gives.
    """

    def __init__(self, polls: Polls, **settings: Any) -> None:
        super().__init__(**settings)
        self._polls = polls
        self._poll: Poll | None = None  # that is to be answered yet
        self._message_is_poll = False
        self._keep_alive = True
        self._certificate: Certificate | None = None
        self._in_headers = True
        self._header_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._idle_since = 0.0

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go: one buffer for all connections, as the loop reads one at a time.

        asyncio would make one of 256 KiB for every read over TLS.
        """
        del sizehint
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Take what came."""
        self.data_received(bytes(_BUFFER[:nbytes]))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Read who the client is, and start to count its time."""
        super().connection_made(transport)
        self._certificate = _certificate(transport)
        self._deadline = self.loop.call_later(HEADERS_S, self._give_up)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the poll that waits on this connection."""
        for timer in (self._deadline, self._stalled, self._idle):
            if timer is not None:
                timer.cancel()
        if self._poll is not None:
            self._poll.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; headers that are not complete then must be soon."""
        super().data_received(data)
        if self._in_headers and self._deadline is None:
            self._deadline = self.loop.call_later(HEADERS_S, self._give_up)

    def shutdown(self) -> None:
        """End this connection in order: a poll is answered, a request finished."""
        self._keep_alive = False
        if self._poll is not None:
            self._poll.expire()
        if self._poll is None:
            super().shutdown()

    def on_message_begin(self) -> None:
        """Start a request; the application's part of it is made when it is known to be one for the application."""
        if self._poll is not None:
            self._poll.expire()  # a client that asks for more wants this answer first
            self._keep_alive = self._keep_alive and self._poll is None
        self._header_bytes = 0
        self._in_headers = True
        self.url = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request line."""
        if self._count(len(url)):
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        if self._count(len(name) + len(value) + 4):
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Answer a poll, or hand the request to the application."""
        self._in_headers = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        ask = self._ask()
        self._message_is_poll = ask is not None
        if self._ignoring():
            return
        if ask is not None:
            self._keep_alive = bool(self.parser.should_keep_alive())
            poll = self._polls.begin(ask, self)
            self._poll = None if poll.answered else poll
            return
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        self.scope["state"][CERTIFICATE] = self._certificate
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body; a poll has none."""
        if not self._message_is_poll and not self._ignoring():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of the request."""
        if not self._message_is_poll and not self._ignoring():
            super().on_message_complete()

    def reply(self, status: int, headers: bytes, body: bytes) -> None:
        """Answer the poll."""
        self._poll = None
        if self.transport.is_closing():
            return
        length = b"" if status == 304 else b"content-length: %d\r\n" % len(body)
        ending = b"\r\n" if self._keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(b"".join((STATUS_LINE[status], headers, length, ending, body)))
        if not self._keep_alive:
            self.transport.close()
            return
        self._idle_since = self.loop.time()
        if self._idle is None:
            self._idle = self.loop.call_later(self.timeout_keep_alive, self._check_idle)

    def pause_writing(self) -> None:
        """Give a client that does not read some time."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED_S, self._give_up)

    def resume_writing(self) -> None:
        """Go on: it reads."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _ask(self) -> Ask | None:
        """Return the poll that this request is; None where it is something else, or comes before its turn."""
        path, _, query = self.url.partition(b"?")
        if path != PATH or self.parser.get_method() != b"GET" or not self._between_requests():
            return None
        known = authorization = b""
        for name, value in self.headers:
            if name == b"if-none-match":
                known = value
            elif name == b"authorization":
                authorization = value
            elif name in _WITH_BODY:
                return None
        return Ask(query, known, authorization, self._certificate)

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _ignoring(self) -> bool:
        """Tell whether the connection ends: then, what still comes is not looked at."""
        return self.transport.is_closing() or self._poll is not None

    def _count(self, size: int) -> bool:
        self._header_bytes += size
        if self._header_bytes > MOST_HEADER_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        return not self.transport.is_closing()

    def _check_idle(self) -> None:
        # One timer for many polls: it looks when the last answer was, instead of being made anew each time.
        self._idle = None
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self._poll is not None or not self._between_requests():
            return
        if left_s <= 0:
            self.transport.close()
        else:
            self._idle = self.loop.call_later(left_s, self._check_idle)

    def _give_up(self) -> None:
        # A reset, so that the kernel does not keep for minutes what the client will not take.
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


def _certificate(transport: asyncio.Transport) -> Certificate | None:
    """Return the certificate that the client proved; None without one."""
    session: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    encoded = None if session is None else session.getpeercert(binary_form=True)
    if not encoded:
        return None
    certificate = x509.load_der_x509_certificate(encoded)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if len(names) == 1 else ""
    until, key = certificate.not_valid_after_utc.timestamp(), certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        return Certificate(name, "", until)
    return Certificate(name, key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(), until)
