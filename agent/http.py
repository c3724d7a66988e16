"""One kept-alive HTTP connection to one origin, over the standard library: bounded, verified, interruptible.

Nothing is followed, retried or guessed here: an answer is a value, and what is no answer raises.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.address import BadUrl, Origin
from agent.wire.errors import EdgeferryError, Retry

CHUNK_BYTES: Final = 1 << 18
_MOST_PROBLEM_BYTES: Final = 64 << 10
_FAULTS: Final = (OSError, http.client.HTTPException)


class Unreachable(Retry):
    """No answer came: no network, no such host, nobody listens, or the connection broke."""

    code = "EF4020"


class UnexpectedAnswer(Retry):
    """Something answered, but not as this address should: too much, too little, or of another kind."""

    code = "EF4022"
    delay_s = 30.0


class CertificateRefused(Retry):
    """The server's certificate is not one that this site trusts; a wrong clock looks the same."""

    code = "EF4023"
    delay_s = 60.0


class OurCertificateRefused(Unreachable):
    """The server ended the TLS handshake: it does not take this agent's certificate, which may have expired.

    With TLS 1.3 it says so after our side of the handshake, and many servers say nothing: they close.
    """

    code = "EF4035"


def tls_context(
    ca: str = "", certificate: Path | None = None, key: Path | None = None, *, only: Path | None = None
) -> ssl.SSLContext:
    """Return what verifies servers, and proves us to them.

    Args:
        ca: file with certificates to trust besides the system's; empty for none.
        certificate: of this agent, for mutual TLS; None for none.
        key: of the certificate.
        only: file with the only authority to trust, in place of the system's; None for no such.

    Raises:
        BadUrl: a file is unreadable or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=None if only is None else str(only))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if ca:
            context.load_verify_locations(ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise BadUrl(
            f"no usable certificate: {error}",
            where=ca or str(certificate or only),
            do="give PEM files that this user may read",
        ) from None
    return context


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer.

    Attributes:
        headers: by lower-case name; of a repeated one, the last.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Body:
    """An answer whose body is still on the wire. Read it to its end, or close the connection."""

    def __init__(self, response: http.client.HTTPResponse, where: str) -> None:
        self._response = response
        self._left = response.length  # None: chunked, or until the connection ends
        self.where = where
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        if self._left == 0:
            response.close()

    def read(self, most: int = CHUNK_BYTES) -> bytes:
        """Return at most ``most`` bytes as they come; empty at the end.

        Raises:
            Unreachable: the connection broke before the end.
        """
        data = b""
        if self._left != 0:
            try:
                data = self._response.read1(most if self._left is None else min(most, self._left))
            except _FAULTS as error:
                raise Unreachable(f"the answer broke off: {_reason(error)}", where=self.where) from None
        if data:
            self._left = None if self._left is None else self._left - len(data)
        elif self._left:
            raise Unreachable(f"the answer broke off {self._left} bytes before its end", where=self.where)
        if not data or self._left == 0:
            self._response.close()  # the connection is free for the next request
        return data

    @property
    def size_bytes(self) -> int | None:
        """How much of the body is still to come; None where the server did not say."""
        return self._left

    def read_all(self, most_bytes: int, deadline_s: float = 600.0) -> bytes:
        """Return the rest of the body.

        Raises:
            UnexpectedAnswer: it is longer than ``most_bytes``, or slower than ``deadline_s``.
            Unreachable: the connection broke before the end.
        """
        parts, size = [], 0
        end = time.monotonic() + deadline_s
        while data := self.read():
            size += len(data)
            if size > most_bytes:
                raise UnexpectedAnswer(f"more than {most_bytes} bytes", where=self.where)
            if time.monotonic() > end:
                raise UnexpectedAnswer(f"{size} bytes in {deadline_s:.0f} s and no end", where=self.where)
            parts.append(data)
        return b"".join(parts)


class Connection:
    """One connection, opened when it is first needed and again when the server closed it between two requests.

    One thread asks; any thread may ``interrupt``.

    Args:
        origin: where to.
        tls: for ``https``, or what gives it for each new connection; None makes the default one.
        timeout_s: for connecting, and for every wait for bytes.
    """

    def __init__(
        self,
        origin: Origin,
        tls: ssl.SSLContext | Callable[[], ssl.SSLContext] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self.origin = origin
        self._tls = tls
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._line: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._interrupted = False
        self._new = False  # TLS stands, and the server has not answered yet: it may still refuse our certificate

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        most_bytes: int,
        wait_s: float = 0.0,
    ) -> Answer:
        """Return the whole answer; arguments as for ``open``.

        Raises:
            Unreachable, CertificateRefused, UnexpectedAnswer: as their names say.
        """
        answer = self.open(method, path, headers, body, wait_s=wait_s)
        try:
            data = answer.read_all(most_bytes)
        except EdgeferryError:
            self.close()
            raise
        return Answer(answer.status, answer.headers, data)

    def open(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        wait_s: float = 0.0,
    ) -> Body:
        """Send one request and return its answer, body unread.

        Args:
            method: a request that may be sent twice: it is, when a kept connection turns out to be dead.
            path: below the origin's prefix, with a slash in front.
            headers: more of them.
            body: of the request.
            wait_s: how much longer than usual the server may take to begin its answer.

        Raises:
            Unreachable: no answer.
            CertificateRefused: the server is not who it should be.
            OurCertificateRefused: we are not, by our certificate.
        """
        where = f"{self.origin}{path.partition('?')[0]}"
        kept = self._line is not None and self._line.sock is not None
        try:
            try:
                return Body(self._send(method, path, headers or {}, body, wait_s), where)
            except (ConnectionError, http.client.BadStatusLine):
                self.close()
                if not kept or self._interrupted:
                    raise
                return Body(self._send(method, path, headers or {}, body, wait_s), where)
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise CertificateRefused(
                error.verify_message, where=where, do="check the address, this machine's clock, and `ca` in agent.json"
            ) from None
        except _FAULTS as error:
            new, self._new = self._new, False
            self.close()
            if not self._interrupted and ("ALERT" in (getattr(error, "reason", "") or "") or (new and _is_end(error))):
                do = "nothing stops running; where it stays so, join again"
                raise OurCertificateRefused(_reason(error), where=where, do=do) from None
            raise Unreachable(_reason(error), where=where, do="check the address and this site's link") from None
        except ValueError as error:
            self.close()
            raise BadUrl(f"the request cannot be written: {error}", where=where) from None

    def interrupt(self) -> None:
        """End what another thread waits for on this connection, or is about to: its call raises Unreachable.

        The connection can be used again after ``resume``.
        """
        with self._lock:
            self._interrupted = True
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def resume(self) -> None:
        """Forget that this was interrupted."""
        self._interrupted = False

    def close(self) -> None:
        """Let go of the socket; the next request opens another."""
        with self._lock:
            self._socket = None
        if self._line is not None:
            self._line.close()
            self._line = None

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, wait_s: float
    ) -> http.client.HTTPResponse:
        if self._line is None or self._line.sock is None:
            self._line = self._connect()
        line = self._line
        line.sock.settimeout(self._timeout_s)
        line.request(method, self.origin.prefix + path, body, {"User-Agent": "edgeferry-agent", **headers})
        line.sock.settimeout(self._timeout_s + wait_s)
        kept = line.sock
        response = line.getresponse()
        self._new = False
        with suppress(OSError):  # it is closed already where nothing follows
            kept.settimeout(self._timeout_s)
        return response

    def _connect(self) -> http.client.HTTPConnection:
        origin = self.origin
        line: http.client.HTTPConnection
        if origin.scheme == "https":
            self._tls = self._tls or tls_context()
            tls = self._tls if isinstance(self._tls, ssl.SSLContext) else self._tls()
            line = http.client.HTTPSConnection(origin.host, origin.port, timeout=self._timeout_s, context=tls)
        else:
            line = http.client.HTTPConnection(origin.host, origin.port, timeout=self._timeout_s)
        line.connect()
        line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._new = origin.scheme == "https"
        with self._lock:
            self._socket = line.sock
        if self._interrupted:
            line.close()
            raise ConnectionAbortedError("interrupted")
        return line


def problem_of(answer: Answer) -> tuple[str, str]:
    """Return code and sentence of a problem document (RFC 9457); both empty where the body is none."""
    if "json" not in answer.headers.get("content-type", "") or len(answer.body) > _MOST_PROBLEM_BYTES:
        return "", ""
    try:
        value = json.loads(answer.body)
        code, detail = value.get("code", ""), value.get("detail", "")
    except (ValueError, AttributeError, RecursionError):
        return "", ""
    if not isinstance(code, str) or not isinstance(detail, str):
        return "", ""
    return _plain(code)[:16], _plain(detail)[:500]


def retry_after_s(answer: Answer | Body, default: float) -> float:
    """Return what the server asks for, in seconds, between 1 and 3600; ``default`` where it asks for nothing."""
    asked = answer.headers.get("retry-after", "")
    return min(max(float(asked), 1.0), 3600.0) if asked.isascii() and asked.isdecimal() else default


def delayed(error: Retry, delay_s: float) -> Retry:
    """Return the error with another delay."""
    error.delay_s = delay_s
    return error


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _is_end(error: BaseException) -> bool:
    return isinstance(error, ConnectionError | http.client.BadStatusLine | ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return f"unknown host: {error.strerror}"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return _plain(str(text))[:300]


Opener = Callable[[Origin], Connection]
"""Makes the connections of a client: what they trust is decided by who starts it."""
