"""Running the service: a listener, TLS, and an orderly end, in a thread or in the main thread."""

from __future__ import annotations

import logging
import resource
import socket
import ssl
import threading
from asyncio import sslproto
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import uvicorn

from agent.wire.errors import Stop
from gitops.serve.app import App
from gitops.serve.protocol import HubProtocol

GRACE_S: Final = 10
"""What runs when the hub stops may finish within this; polls are answered at once."""

KEEP_ALIVE_S: Final = 90
"""An idle connection is kept so long: an agent is back before, and a handshake costs ten polls."""

TLS_BUFFER_BYTES: Final = 16 << 10
"""What asyncio keeps for each TLS connection to read into: one TLS record. Its own 256 KiB would be most of the memory
that an idle agent costs; what is sent does not go through it."""

_BACKLOG: Final = 4096
_log: Final = logging.getLogger(__name__)


class ListenFailed(Stop):
    """The address cannot be listened on."""

    code = "EF3130"


class BadTls(Stop):
    """Certificate, key or client authority cannot be used."""

    code = "EF3131"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM form.

    Attributes:
        certificate: the hub's, with its chain.
        key: the certificate's: a secret.
        client_authority: signs the certificates of agents; None where TLS proves nobody.
        own_authority: another that does: the hub's own.
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None
    own_authority: Path | None = None


class Server:
    """One listener with the application behind it.

    Args:
        app: from ``create_app``.
        host: address to listen on.
        port: 0 takes a free one; ``port`` of this object is then the real one.
        tls: None for plain HTTP, behind a proxy that ends TLS or on loopback.

    Raises:
        ListenFailed: in use, or no right to it.
        BadTls: the files cannot be read or do not belong together.
    """

    def __init__(self, app: App, host: str = "127.0.0.1", port: int = 0, tls: Tls | None = None) -> None:
        self._tls, self._context = tls, None if tls is None else _context(tls)
        self._socket = _listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"{'http' if tls is None else 'https'}://{_bracketed(host)}:{self.port}"
        config = uvicorn.Config(
            app,
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
            backlog=_BACKLOG,
        )
        config.load()
        config.ssl = self._context
        config.http_protocol_class = partial(HubProtocol, app.polls)  # type: ignore[assignment]  # uvicorn calls it
        self._server = _Uvicorn(config)
        self._thread: threading.Thread | None = None

    def renew(self) -> None:
        """Take the certificate that stands in the files now for connections from now on.

        Raises:
            BadTls: the files cannot be used; what was in use stays.
        """
        if self._tls is not None and self._context is not None:
            _context(self._tls)
            self._context.load_cert_chain(self._tls.certificate, self._tls.key)

    def start(self) -> None:
        """Serve in a thread; return when requests are answered.

        Raises:
            NotStarted: the application did not start; the log says why.
        """
        self._thread = threading.Thread(target=self._run, name="edgeferry-serve", daemon=True)
        self._thread.start()
        self._server.running.wait()
        if not self._server.started:
            raise NotStarted("the service did not start", do="see the log above")

    def stop(self) -> None:
        """Answer the polls, let the rest finish for ``GRACE_S``, and return when all is closed."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def serve(self) -> None:
        """Serve in this thread until ``stop`` or, in the main thread, until SIGTERM or SIGINT."""
        self._run()

    def _run(self) -> None:
        _allow_many_files()
        sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
        try:
            self._server.run(sockets=[self._socket])
        except SystemExit:
            _log.error("the service ended before it began")
        finally:
            self._socket.close()
            self._server.running.set()


class NotStarted(Stop):
    """The service ended before it answered anything."""

    code = "EF3132"


class _Uvicorn(uvicorn.Server):
    """uvicorn that says when it runs."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.running = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.running.set()


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        for authority in (tls.client_authority, tls.own_authority):
            if authority is not None:
                # Optional: stock Git and `join` come without a certificate, and prove themselves otherwise.
                context.verify_mode = ssl.CERT_OPTIONAL
                context.load_verify_locations(authority)
    except (OSError, ssl.SSLError) as error:
        raise BadTls(f"cannot be used: {error}", where=str(tls.certificate), do="check the files") from None
    return context


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise ListenFailed(
            f"cannot listen: {error.strerror or error}",
            where=f"{host}:{port}",
            do="stop what listens, or choose a port",
        ) from None
    return listener


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _allow_many_files() -> None:
    """Raise the soft limit of descriptors to the hard one: every agent holds a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
