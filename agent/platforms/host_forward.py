"""The agent's side of the forwarder: starts it, gives it routes, and knows when it goes by them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent import durable
from agent.forward_routes import CONTROL, ROUTES, Route, Routes, decode_routes, encode_routes
from agent.platforms import host_supervise
from agent.wire.errors import EdgeferryError, Retry

FORWARDER: Final = "forwarder."
"""Nonces of forwarders begin with it."""

START_S: Final = 20.0
ANSWER_S: Final = 5.0


class ForwarderDown(Retry):
    """The forwarder does not run or does not answer."""

    code = "EF4106"


class PortTaken(Retry):
    """Another program listens on a model's stable port."""

    code = "EF4107"


@dataclass(frozen=True, slots=True)
class Status:
    """What the forwarder says of itself.

    Attributes:
        faults: stable port → why nobody can reach it.
        busy: backend port → requests in flight.
    """

    pid: int
    generation: int
    fault: str = ""
    faults: dict[int, str] = field(default_factory=dict)
    busy: dict[int, int] = field(default_factory=dict)


class ForwarderControl:
    """Routes of one agent state.

    Args:
        directory: ``STATE/host``.
        state_id: for the mark.
        listen: address of the stable ports.
    """

    def __init__(self, directory: Path, state_id: str, listen: str) -> None:
        self._directory = directory
        self._state_id = state_id
        self._listen = listen
        self._child: subprocess.Popen[bytes] | None = None

    def written(self) -> Routes:
        """Return the routes on disk; generation 0 where there are none or they are unreadable."""
        path = self._directory / ROUTES
        try:
            return decode_routes(path.read_bytes(), str(path))
        except (OSError, EdgeferryError):
            return Routes(0, self._listen)

    def status(self) -> Status | None:
        """Return what the forwarder says; None where it does not run or does not answer."""
        return self._order("status")

    def current(self, routes: Sequence[Route], status: Status | None) -> bool:
        """Tell whether the forwarder goes by just these routes."""
        written = self.written()
        same = written.routes == _sorted(routes) and written.listen == self._listen
        if not routes and status is None:
            return same
        return same and status is not None and status.generation == written.generation and not status.fault

    def publish(self, routes: Sequence[Route]) -> Status | None:
        """Have every following request go by ``routes``; return once it does.

        It is started where it does not run. No routes at all: it ends, and None is returned.

        Raises:
            ForwarderDown: it cannot be started or does not obey.
        """
        written = self.written()
        if written.routes != _sorted(routes) or written.listen != self._listen or not written.generation:
            written = Routes(written.generation + 1, self._listen, _sorted(routes))
            durable.write(self._directory / ROUTES, encode_routes(written))
        if not routes:
            self.stop()
            return None
        status = self._order("reload")
        if status is None or status.generation != written.generation or status.fault:
            # It is gone, or hangs, or is of a version that does not read these routes.
            self.stop()
            status = self._start()
        if status.generation != written.generation or status.fault:
            raise ForwarderDown(
                f"it does not go by the routes: {status.fault or 'they are others'}",
                where=str(self._directory / ROUTES),
                do="nothing: it is tried again",
            )
        return status

    def stop(self) -> None:
        """End the forwarder, and whatever calls itself so."""
        self._order("stop")
        nonces = [nonce for nonce in host_supervise.marked(self._state_id) if nonce.startswith(FORWARDER)]
        if nonces and not host_supervise.wait_ended(
            host_supervise.signal_marked(self._state_id, nonces, signal.SIGTERM), ANSWER_S + 1
        ):
            host_supervise.wait_ended(host_supervise.signal_marked(self._state_id, nonces, signal.SIGKILL), ANSWER_S)
        self.reap()

    def reap(self) -> None:
        """Forget a child that has ended."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None

    def _start(self) -> Status:
        log = self._directory / "logs" / "forwarder.log"
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        host_supervise.rotate(log)
        self._child = host_supervise.spawn(
            [sys.executable, "-m", "agent.forward", str(self._directory)],
            _environment(),
            f"{self._state_id}/{FORWARDER}{secrets.token_hex(8)}",
            self._directory,
            log,
        )
        deadline, pause_s = time.monotonic() + START_S, 0.002
        while time.monotonic() < deadline and self._child.poll() is None:
            status = self._order("status")
            if status is not None and status.pid == self._child.pid:
                return status
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.05)
        said = host_supervise.last_line(log)
        self.reap()
        raise ForwarderDown(f"it does not start: {said or 'no word from it'}", where=str(log), do="read its log")

    def _order(self, order: str) -> Status | None:
        with contextlib.suppress(OSError):
            directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY)
            try:
                with socket.socket(socket.AF_UNIX) as control:
                    control.settimeout(ANSWER_S)
                    control.connect(f"/proc/self/fd/{directory}/{CONTROL}")
                    control.sendall(order.encode() + b"\n")
                    with control.makefile("rb") as answer:
                        return _read_status(answer.read(1 << 20))
            finally:
                os.close(directory)
        return None


def _read_status(data: bytes) -> Status | None:
    try:
        said = json.loads(data)
        return Status(
            pid=int(said["pid"]),
            generation=int(said["generation"]),
            fault=str(said["fault"]),
            faults={int(port): str(why) for port, why in said["faults"].items()},
            busy={int(port): int(number) for port, number in said["busy"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _environment() -> dict[str, str]:
    """Return just what Python needs to find this package."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
    return {"LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "1", **kept}


def _sorted(routes: Sequence[Route]) -> tuple[Route, ...]:
    return tuple(sorted(routes, key=lambda route: route.port))
