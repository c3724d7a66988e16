"""The forwarder of a host: it owns the stable ports and passes every request to the backend of the moment.

``python -m agent.forward DIRECTORY``, one process for each agent state, started by the host platform and outliving the
agent. Routes stand in ``DIRECTORY/routes.json``; whoever changed them says ``reload`` on the socket
``DIRECTORY/forward.sock`` and is answered when every following request goes by the new ones.

Written on epoll and not on asyncio, which alone is 9 MiB resident (docs/adr/0007-host.md).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import json
import os
import resource
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Final

from agent.forward_backend import Relay
from agent.forward_client import Client
from agent.forward_routes import CONTROL, LOCK, ROUTES, Routes, decode_routes
from agent.forward_wire import READ, Loop, Wire
from agent.wire.errors import EdgeferryError

MOST_FILES: Final = 16_384
STOP_S: Final = 5.0
"""Requests in flight may take so long once it was told to stop."""

_HELD_S: Final = 0.02
_SWEEP_S: Final = 1.0
_BACKLOG: Final = 512
_ORDER_BYTES: Final = 4096


class Forwarder:
    """The listening ports, the control socket and the loop.

    Args:
        directory: with ``routes.json``; only its owner may enter it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._loop = Loop()
        self._relay = Relay(self._loop)
        self._listeners: dict[int, socket.socket] = {}
        self._faults: dict[int, str] = {}
        self._generation = 0
        self._listen = ""
        self._fault = ""
        self._accepting = True
        self._until: float | None = None
        self._most_clients = _raise_file_limit() // 2 - 32
        self._control = _control_socket(directory)
        self._loop.add(self._control.fileno(), READ, self._on_control)
        self._signals, self._signalled = socket.socketpair()
        self._signals.setblocking(False)
        self._signalled.setblocking(False)
        self._loop.add(self._signals.fileno(), READ, self._on_signal)

    def reload(self) -> None:
        """Read the routes and go by them. Unreadable ones change nothing, and ``status`` says so."""
        path = self._directory / ROUTES
        try:
            routes = decode_routes(path.read_bytes(), str(path))
        except (OSError, EdgeferryError) as error:
            self._fault = str(error)
            print(self._fault, file=sys.stderr, flush=True)
            return
        self._fault = ""
        self._generation = routes.generation
        self._bind(routes)
        self._relay.route_by({route.port: route for route in routes.routes})

    def heed_signals(self) -> None:
        """Stop on SIGTERM and SIGINT, reload on SIGHUP, both between two events and never within one."""
        signal.set_wakeup_fd(self._signalled.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)

    def run(self) -> None:
        """Serve until told to stop."""
        swept = kicked = self._loop.now
        while not self._done():
            self._loop.turn(self._timeout_s())
            if self._relay.held and self._loop.now - kicked >= _HELD_S:
                kicked = self._loop.now
                self._relay.kick()
            if self._loop.now - swept >= _SWEEP_S:
                swept = self._loop.now
                self._relay.sweep()
                self._accept_again()

    def stop(self) -> None:
        """Take no more requests; end when those in flight are answered, after ``STOP_S`` at the latest."""
        if self._until is None:
            self._until = self._loop.now + STOP_S
            self._relay.stopping = True
            for port in tuple(self._listeners):
                self._close(port)
            for client in tuple(self._relay.clients):
                client.leave()

    def _done(self) -> bool:
        return self._until is not None and (not self._relay.clients or self._loop.now >= self._until)

    def _timeout_s(self) -> float | None:
        if self._relay.held:
            return _HELD_S
        return _SWEEP_S if self._relay.clients or self._until is not None or not self._accepting else None

    def _bind(self, routes: Routes) -> None:
        wanted = {route.port for route in routes.routes}
        for port in tuple(self._listeners):
            if port not in wanted or routes.listen != self._listen:
                self._close(port)
        self._listen = routes.listen
        self._faults = {}
        for port in sorted(wanted - self._listeners.keys()):
            listener = socket.socket(socket.AF_INET6 if ":" in routes.listen else socket.AF_INET)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setblocking(False)
                listener.bind((routes.listen, port))
                listener.listen(_BACKLOG)
            except OSError as error:
                listener.close()
                self._faults[port] = str(error)
                continue
            self._listeners[port] = listener
            self._loop.add(listener.fileno(), READ if self._accepting else 0, partial(self._accept, port))

    def _close(self, port: int) -> None:
        listener = self._listeners.pop(port)
        self._loop.remove(listener.fileno())
        listener.close()

    def _accept(self, port: int, _: int) -> None:
        for _ in range(64):
            if len(self._relay.clients) >= self._most_clients:
                self._accept_none()
                return
            try:
                connection, _ = self._listeners[port].accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._accept_none()
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Client(self._relay, connection, port)

    def _accept_none(self) -> None:
        self._accepting = False
        for listener in self._listeners.values():
            self._loop.change(listener.fileno(), 0)

    def _accept_again(self) -> None:
        if not self._accepting and len(self._relay.clients) < self._most_clients:
            self._accepting = True
            for listener in self._listeners.values():
                self._loop.change(listener.fileno(), READ)

    def _on_signal(self, _: int) -> None:
        for number in self._signals.recv(64):
            if number == signal.SIGHUP:
                self.reload()
            else:
                self.stop()

    def _on_control(self, _: int) -> None:
        try:
            connection, _address = self._control.accept()
        except OSError:
            return
        connection.setblocking(False)
        heard = bytearray()

        def tell(_: int) -> None:
            try:
                data = wire.receive()
            except OSError:
                data = b""
            if data is None:
                return
            heard.extend(data)
            if b"\n" in heard:
                wire.send(self._obey(bytes(heard).strip()))
                wire.close()
            elif not data or len(heard) > _ORDER_BYTES:
                wire.close()

        wire = Wire(self._loop, connection, READ, tell)

    def _obey(self, order: bytes) -> bytes:
        if order == b"reload":
            self.reload()
        elif order == b"stop":
            self.stop()
        elif order != b"status":
            return b'{"fault": "reload, status and stop are understood"}\n'
        said = {
            "pid": os.getpid(),
            "generation": self._generation,
            "fault": self._fault,
            "faults": {str(port): why for port, why in self._faults.items()},
            "waiting": self._relay.waiting(),
            "busy": {str(port): number for port, number in self._relay.busy.items()},
        }
        return json.dumps(said).encode() + b"\n"


def _control_socket(directory: Path) -> socket.socket:
    """Listen on ``forward.sock``; the way round by /proc lets the directory's path be of any length."""
    control = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(FileNotFoundError):
        (directory / CONTROL).unlink()
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        control.bind(f"/proc/self/fd/{descriptor}/{CONTROL}")
    finally:
        os.close(descriptor)
    control.listen(16)
    control.setblocking(False)
    return control


def _raise_file_limit() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return soft


def main(directory: Path) -> int:
    """Serve the routes of ``directory``; return 1 where another process does so already."""
    os.umask(0o077)
    with (directory / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another forwarder serves these routes", file=sys.stderr)
            return 1
        forwarder = Forwarder(directory)
        forwarder.heed_signals()
        forwarder.reload()
        gc.freeze()
        forwarder.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
