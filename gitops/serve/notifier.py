"""Waking the long polls: the publisher says which clusters have news, and those that wait look again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable

Look = Callable[[], None]
"""What a poll does when there may be news."""


class Notifier:
    """Who waits for which cluster. ``published`` may be called from any thread, the rest only on the loop.

    The publisher moves the fleet first and tells then; a poll looks first and waits then, in one go of the loop.
    So no news is lost between the two.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[str, set[Look]] = {}

    def attach(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Name the loop that the polls run on; None where nobody waits any more."""
        with self._lock:
            self._loop = loop

    def published(self, clusters: Iterable[str] | None = None) -> None:
        """Let who waits for ``clusters`` look again; for any cluster for None."""
        names = None if clusters is None else tuple(clusters)
        with self._lock:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._wake, names)

    def waiting(self) -> frozenset[str]:
        """Return the clusters that somebody waits for."""
        return frozenset(self._waiting)

    def add(self, cluster: str, look: Look) -> None:
        """Call ``look`` whenever there may be news of a cluster, until ``remove``."""
        self._waiting.setdefault(cluster, set()).add(look)

    def remove(self, cluster: str, look: Look) -> None:
        """Forget what ``add`` noted."""
        others = self._waiting[cluster]
        others.remove(look)
        if not others:
            del self._waiting[cluster]

    def _wake(self, names: tuple[str, ...] | None) -> None:
        for name in tuple(self._waiting) if names is None else names:
            for look in tuple(self._waiting.get(name, ())):
                look()
