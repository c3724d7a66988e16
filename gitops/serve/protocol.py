"""One HTTP connection: uvicorn's httptools protocol, with client certificates and with limits.

uvicorn reads no client certificate, bounds no header, and waits for ever for a client that sends nothing or reads
nothing; here are these.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import struct
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gitops.serve.notifier import Connection

MOST_HEADER_BYTES: Final = 32 << 10
"""Request line and headers together."""

HEADERS_S: Final = 20.0
"""A request's headers must be complete within this of its first byte; the first request, of the connection."""

STALLED_S: Final = 300.0
"""A client must take something of its answer within this."""

MOST_CONNECTIONS: Final = 20_000

_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class HubProtocol(HttpToolsProtocol):
    """One connection of an agent, a Git client, a Git host, or a person."""

    _header_bytes = 0
    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _extensions: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Read who the client is, and start to count its time."""
        super().connection_made(transport)
        self._connection = Connection(_certificate(transport))
        self._extensions = {"edgeferry": self._connection}
        self._deadline = self.loop.call_later(HEADERS_S, self._give_up)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the poll that waits on this connection."""
        self._stop(self._deadline)
        self._stop(self._stalled)
        super().connection_lost(exc)
        self._connection.lose()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what comes before the end of the headers is counted."""
        if self._deadline is None and self._between_requests():
            self._deadline = self.loop.call_later(HEADERS_S, self._give_up)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Start a request."""
        self._header_bytes = 0
        super().on_message_begin()
        self.scope["extensions"] = self._extensions

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request line."""
        if self._count(len(url)):
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        if self._count(len(name) + len(value) + 4):
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application, unless it was refused already."""
        self._stop(self._deadline)
        self._deadline = None
        if not self.transport.is_closing():
            super().on_headers_complete()

    def pause_writing(self) -> None:
        """Give a client that does not read some time."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED_S, self._give_up)

    def resume_writing(self) -> None:
        """Go on: it reads."""
        super().resume_writing()
        self._stop(self._stalled)
        self._stalled = None

    def _count(self, size: int) -> bool:
        self._header_bytes += size
        if self._header_bytes > MOST_HEADER_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        return not self.transport.is_closing()

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _give_up(self) -> None:
        # A reset, so that the kernel does not keep for minutes what the client will not take.
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


def _certificate(transport: asyncio.Transport) -> tuple[str, str] | None:
    """Return common name and OpenSSH key of the certificate that the client proved; None without one.

    A key that is not ed25519 gives an empty key, which fits no registration.
    """
    session: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    encoded = None if session is None else session.getpeercert(binary_form=True)
    if not encoded:
        return None
    certificate = x509.load_der_x509_certificate(encoded)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if len(names) == 1 else ""
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        return name, ""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + raw
    return name, "ssh-ed25519 " + base64.b64encode(blob).decode()
