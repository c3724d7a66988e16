"""Ports of a host: a stable one for each name, given once, and backends from the other end of the range."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Final

from agent import durable
from agent.wire.canonical import canonical
from agent.wire.errors import Retry
from agent.wire.fields import Fields

FORMATS: Final = (1,)


class NoFreePort(Retry):
    """Every port of the range is in use."""

    code = "EF4105"


class Ports:
    """The stable ports of one agent's names, on disk in ``ports.json``.

    Args:
        path: of the file.
        first, last: of the range, inclusive.
        listen: address of the stable ports.
    """

    def __init__(self, path: Path, first: int, last: int, listen: str) -> None:
        self._path = path
        self._range = range(first, last + 1)
        self._listen = listen
        self._stable: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError):
            top = Fields.parse(path.read_bytes(), str(path))
            top.format(FORMATS)
            self._stable = dict(top.each("ports", _read_port))

    def stable(self, key: str, used: Collection[str]) -> int:
        """Return the port of a name; the same for ever, once it is given.

        Args:
            key: ``KIND/NAME``.
            used: keys that are on this host; only when the range is full, a port of another name is given away.

        Raises:
            NoFreePort: the whole range is in use.
        """
        if key not in self._stable:
            self._give(key, used, ())
        return self._stable[key]

    def known(self, key: str) -> int:
        """Return the port that was given to a name; 0 for none yet."""
        return self._stable.get(key, 0)

    def another(self, key: str, used: Collection[str]) -> int:
        """Return a new port for a name that nobody knows by the old one yet."""
        self._give(key, used, (self._stable[key],))
        return self._stable[key]

    def backend(self, used: Collection[int]) -> int:
        """Return a port for a new process; nobody listens there now.

        Args:
            used: ports of the processes that are here.

        Raises:
            NoFreePort: the whole range is in use.
        """
        taken = {*used, *self._stable.values()}
        half = self._range[len(self._range) // 2 :]
        start = secrets.randbelow(len(half)) if half else 0
        candidates: list[int] = [*half[start:], *half[:start], *self._range]
        for port in candidates:
            if port not in taken and is_free("127.0.0.1", port):
                return port
        raise self._none()

    def _give(self, key: str, used: Collection[str], but: Collection[int]) -> None:
        taken = {*self._stable.values(), *but}
        port = next((port for port in self._range if port not in taken and is_free(self._listen, port)), None)
        if port is None:
            for name in sorted(self._stable.keys() - {*used, key}):
                if self._stable[name] not in but and is_free(self._listen, self._stable[name]):
                    port = self._stable.pop(name)
                    break
            else:
                raise self._none()
        self._stable[key] = port
        ports = [{"key": name, "port": self._stable[name]} for name in sorted(self._stable)]
        durable.write(self._path, canonical({"format": 1, "ports": ports}))

    def _none(self) -> NoFreePort:
        return NoFreePort(
            f"no port from {self._range.start} to {self._range.stop - 1} is free",
            where=str(self._path),
            do="widen first_port and last_port in agent.json",
        )


def _read_port(item: Fields) -> tuple[str, int]:
    return item.text("key"), item.integer("port")


def is_free(address: str, port: int) -> bool:
    """Tell whether nobody listens on the port now."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((address, port))
        except OSError:
            return False
        return True
