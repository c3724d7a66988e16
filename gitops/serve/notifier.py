"""Waking the long polls: the publisher says which clusters have news, and those that wait are answered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable


class Notifier:
    """Who waits for which cluster. ``published`` and ``close`` may be called from any thread.

    The publisher moves the fleet first and tells then; a poll looks first and waits then, in one go of the loop.
    So no news is lost between the two.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self.closed = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the loop that the polls run on."""
        with self._lock:
            self._loop = loop

    def detach(self) -> None:
        """Forget the loop: nobody waits any more."""
        with self._lock:
            self._loop = None

    def published(self, clusters: Iterable[str] | None = None) -> None:
        """Wake who waits for news of ``clusters``; of any cluster for None."""
        names = None if clusters is None else tuple(clusters)
        with self._lock:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._wake, names)

    def close(self) -> None:
        """Wake everybody, and let nobody wait again."""
        self.closed = True
        self.published()

    def waiting(self) -> frozenset[str]:
        """Return the clusters that somebody waits for; called on the loop."""
        return frozenset(self._waiting)

    async def wait(self, cluster: str, delay_s: float, connection: Connection | None) -> None:
        """Return when there may be news, when ``delay_s`` is over, or when the connection is lost."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(delay_s, _release, future)
        self._waiting.setdefault(cluster, set()).add(future)
        if connection is not None:
            connection.waiter = future
        try:
            await future
        finally:
            timer.cancel()
            if connection is not None:
                connection.waiter = None
            others = self._waiting[cluster]
            others.discard(future)
            if not others:
                del self._waiting[cluster]

    def _wake(self, names: tuple[str, ...] | None) -> None:
        for name in tuple(self._waiting) if names is None else names:
            for future in self._waiting.get(name, ()):
                _release(future)


class Connection:
    """What a connection tells the application besides its requests.

    Attributes:
        certificate: name and key that the client proved in the TLS handshake; None without one.
        waiter: released when the connection is lost; set while a poll waits.
        lost: the client is gone.
    """

    __slots__ = ("certificate", "lost", "waiter")

    def __init__(self, certificate: tuple[str, str] | None = None) -> None:
        self.certificate = certificate
        self.waiter: asyncio.Future[None] | None = None
        self.lost = False

    def lose(self) -> None:
        """Note that the client is gone, and release who waits for it."""
        self.lost = True
        if self.waiter is not None:
            _release(self.waiter)


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
