"""Sockets of the forwarder: an epoll loop, and a socket with what still has to go out on it."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
HUNG: Final = select.EPOLLHUP | select.EPOLLERR
CHUNK_BYTES: Final = 64 << 10
HIGH_BYTES: Final = 256 << 10
"""More than this waiting to go out, and the other side is not read until it has gone."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Loop:
    """File descriptors and whom to tell; no thread, no clock but ``now``.

    Args:
        clock: seconds that never go back.
    """

    __slots__ = ("_clock", "_epoll", "_told", "now")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._epoll = select.epoll()
        self._told: dict[int, Callable[[int], None]] = {}
        self.now = clock()
        """Seconds, as of the last wake-up."""

    def add(self, descriptor: int, mask: int, tell: Callable[[int], None]) -> None:
        """Tell of events in ``mask``, and always of ``HUNG``."""
        self._told[descriptor] = tell
        self._epoll.register(descriptor, mask)

    def change(self, descriptor: int, mask: int) -> None:
        """Tell of other events from now on."""
        self._epoll.modify(descriptor, mask)

    def remove(self, descriptor: int) -> None:
        """Tell no more; before the descriptor is closed."""
        if self._told.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def turn(self, timeout_s: float | None) -> None:
        """Wait for events and tell of them."""
        events = self._epoll.poll(timeout_s)
        self.now = self._clock()
        for descriptor, event in events:
            tell = self._told.get(descriptor)
            if tell is not None:
                tell(event)


class Wire:
    """One non-blocking socket.

    Args:
        loop: that it is added to.
        connection: becomes non-blocking.
        mask: events at first; ``WRITE`` for a connection that is being made.
        tell: whom.
    """

    __slots__ = ("_finishing", "_loop", "_made", "_mask", "_reading", "closed", "deaf", "descriptor", "out", "socket")

    def __init__(self, loop: Loop, connection: socket.socket, mask: int, tell: Callable[[int], None]) -> None:
        self._loop = loop
        self._mask = mask
        self._reading = bool(mask & READ)
        self._made = bool(mask & READ)
        self._finishing = False
        self.socket = connection
        self.descriptor = connection.fileno()
        self.out = bytearray()
        self.closed = False
        self.deaf = False
        """The other end takes no more; what is sent is dropped."""
        loop.add(self.descriptor, mask, tell)

    @property
    def full(self) -> bool:
        """So much waits to go out that nothing should be added."""
        return len(self.out) > HIGH_BYTES

    @property
    def reading(self) -> bool:
        """Whether news from the other end is wanted."""
        return self._reading

    def receive(self) -> bytes | None:
        """Return what has come, empty at the end of the stream, None when nothing has.

        Raises:
            OSError: the connection is broken.
        """
        try:
            return self.socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return None

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send, at once what the kernel takes, the rest when it takes more. Never raises."""
        if self.deaf or not data:
            return
        if self.out or not self._made:
            self.out += data
            return
        sent = self._try(data)
        if sent < len(data) and not self.deaf:
            self.out += memoryview(data)[sent:]
            self._set(self._mask | WRITE)

    def flush(self) -> bool:
        """Send what waits; return whether nothing waits any more."""
        if self.out:
            del self.out[: self._try(self.out)]
        if self.deaf:
            self.out.clear()
        if self.out:
            return False
        if self._mask & WRITE:
            self._set(self._mask & ~WRITE)
        if self._finishing:
            self.finish()
        return True

    def read(self, wanted: bool) -> None:
        """Be told, or not, that something came."""
        if wanted != self._reading:
            self._reading = wanted
            self._set(self._mask | READ if wanted else self._mask & ~READ)

    def hurry(self) -> None:
        """Acknowledge at once what came: a sender that writes small pieces waits 40 ms for that before the next."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def connected(self) -> None:
        """A connection that was being made is there: send what waits, and listen for the answer."""
        self._made = self._reading = True
        self._set(READ | WRITE)
        self.flush()

    def finish(self) -> None:
        """Close our direction once everything has gone out."""
        self._finishing = True
        if not self.out:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)

    def close(self, *, reset: bool = False) -> None:
        """Let go of the socket.

        Args:
            reset: the other end must notice that this is no regular end.
        """
        if self.closed:
            return
        self.closed = self.deaf = True
        self.out.clear()
        self._loop.remove(self.descriptor)
        if reset:
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.socket.close()

    def _try(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.deaf = True
            return 0

    def _set(self, mask: int) -> None:
        if mask != self._mask:
            self._mask = mask
            if not self.closed:
                self._loop.change(self.descriptor, mask)
