"""A link that can be cut: a TCP relay between a site and its hub."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal

Mode = Literal["open", "cut", "mute", "garbled", "slow"]

_CHUNK_BYTES: Final = 1 << 16
_SLOW_BYTES: Final = 512
_SLOW_S: Final = 0.02
_TICK_S: Final = 0.2


@dataclass(slots=True)
class Relay:
    """Carries connections to a port of this machine, as well as its mode lets it.

    ``open`` carries everything; ``cut`` ends what there is and refuses what comes; ``mute`` takes connections and bytes
    and hands nothing on, as a link that died without a word; ``garbled`` turns bits of what comes back over; ``slow``
    carries about 25 kB/s.

    Args:
        port: of the hub.
    """

    port: int
    mode: Mode = "open"
    carried_bytes: int = 0
    _server: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _lines: set[socket.socket] = field(default_factory=set)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closed: bool = False

    def open(self) -> None:
        """Begin."""
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    @property
    def url(self) -> str:
        """Where the site finds the hub."""
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def set(self, mode: Mode) -> None:
        """Change how well it carries; ``cut`` ends every connection at once."""
        with self._changed:
            self.mode = mode
            if mode == "cut":
                self._end_all()
            self._changed.notify_all()

    def close(self) -> None:
        """End it with all its connections."""
        with self._changed:
            self._closed = True
            self._end_all()
            self._changed.notify_all()
        self._server.close()

    def _end_all(self) -> None:
        for line in self._lines:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closed:
            try:
                if not select.select([self._server], [], [], _TICK_S)[0]:
                    continue
                line, _ = self._server.accept()
            except (OSError, ValueError):
                return
            threading.Thread(target=self._carry, args=(line,), name="relay", daemon=True).start()

    def _carry(self, line: socket.socket) -> None:
        """Carry one connection both ways until either end is done with it."""
        with line, suppress(OSError):
            if self.mode == "cut":
                return
            with socket.create_connection(("127.0.0.1", self.port), 5) as hub:
                with self._changed:
                    self._lines |= {line, hub}
                try:
                    self._pass_on(line, hub)
                finally:
                    with self._changed:
                        self._lines -= {line, hub}

    def _pass_on(self, line: socket.socket, hub: socket.socket) -> None:
        other = {line: hub, hub: line}
        while not self._closed and self.mode != "cut":
            for one in select.select([line, hub], [], [], _TICK_S)[0]:
                data = one.recv(_SLOW_BYTES if self.mode == "slow" else _CHUNK_BYTES)
                if not data:
                    return
                with self._changed:
                    if self.mode == "slow":
                        self._changed.wait_for(lambda: self._closed or self.mode != "slow", _SLOW_S)
                    elif self.mode == "mute":
                        self._changed.wait_for(lambda: self._closed or self.mode != "mute")
                        return  # what was said meanwhile is lost
                if self.mode == "garbled" and one is hub:
                    data = bytes(byte ^ (at % 97 == 7) for at, byte in enumerate(data))
                other[one].sendall(data)
                self.carried_bytes += len(data) if one is hub else 0
