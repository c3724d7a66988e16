"""Processes of entries, from the recorded intent to start one to the last of it gone."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.actions import ModelPoint, Staged
from agent.platforms import host_launch, host_supervise
from agent.platforms.host_files import MODELS_JSON, read_models, write_models
from agent.platforms.host_forward import FORWARDER
from agent.platforms.host_ports import Ports, is_free
from agent.platforms.host_records import Instance, Record, Records
from agent.platforms.host_supervise import Process
from agent.wire.errors import EdgeferryError

STOP_MS: Final = 5_000
"""After SIGTERM; then SIGKILL."""

LOGS_PER_ENTRY: Final = 4

_NAP_S: Final = 0.02
_KILLED_S: Final = 5.0


class Instances:
    """Starts, watches and ends processes; every step is recorded first.

    Args:
        directory: ``STATE/host``.
        state_id: for the mark.
        records: the inventory.
        ports: for backends.
        drain_ms: requests in flight may take so long.
    """

    def __init__(self, directory: Path, state_id: str, records: Records, ports: Ports, drain_ms: int) -> None:
        self._directory = directory
        self._state_id = state_id
        self._records = records
        self._ports = ports
        self._drain_ms = drain_ms
        self._boot = host_supervise.boot_id()
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def runs(self, instance: Instance) -> bool:
        """Tell whether the instance's process runs; a child of ours does until the system can say how it ended."""
        child = self._children.get(instance.nonce)
        if child is not None:
            return child.poll() is None
        return host_supervise.alive(_process(instance), self._boot)

    def age_ms(self, instance: Instance) -> int:
        """Return how long ago its process was started."""
        return host_supervise.age_ms(_process(instance))

    def running(self, record: Record, digest: str) -> Instance | None:
        """Return the instance of that entry digest that runs and is to go on, or None."""
        found = [one for one in record.instances if one.digest == digest and one.phase == "up" and self.runs(one)]
        return next((one for one in found if one.nonce == record.serving), found[-1] if found else None)

    def launch(self, record: Record, staged: Staged, points: Sequence[ModelPoint] | None) -> tuple[Record, Instance]:
        """Start a process of the entry, on a port of its own.

        Args:
            record: of the entry, as on disk.
            staged: the entry.
            points: the models it uses; None for those it was started with last.

        Raises:
            ProgramMissing, CannotStart, NoFreePort: nothing was started, and the record says so.
        """
        home = self.home(record)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if points is None:
            points = known_points(home)
        else:
            write_models(home, {staged.entry.namespace: points})
        used = [one.port for each in self._records for one in each.instances]
        runtime = staged.entry.runtime
        instance = Instance(
            nonce=secrets.token_hex(8),
            digest=staged.digest,
            version=staged.entry.version,
            port=self._ports.backend(used) if host_launch.takes_port(staged.entry) else 0,
            protocol="" if runtime is None else runtime.protocol,
            path="" if runtime is None else runtime.path,
        )
        record = self._records.save(record.with_instance(instance))
        log = self.log(record, instance)
        log.parent.mkdir(mode=0o700, exist_ok=True)
        self._forget_old_logs(record)
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
        environment = host_launch.environment(staged, points, home, home / MODELS_JSON, path)
        command = host_launch.command(staged, instance.port)
        try:
            program = _find(command[0], path)
            mark = f"{self._state_id}/{instance.nonce}"
            child = host_supervise.spawn([program, *command[1:]], environment, mark, home, log)
        except EdgeferryError:
            self._records.save(record.without(instance.nonce))
            raise
        self._children[instance.nonce] = child
        process = host_supervise.identify(child.pid, self._boot) or Process(child.pid, 0, self._boot)
        instance = _up(instance, process)
        return self._records.save(record.with_instance(instance)), instance

    def drain(self, record: Record, nonce: str) -> Record:
        """Order the end of an instance once its requests are answered; ``advance`` carries it out."""
        instance = record.instance(nonce)
        if instance is None or instance.phase in ("draining", "stopping"):
            return record
        until_ms = host_supervise.uptime_ms() + self._drain_ms
        return self._records.save(record.with_instance(replace(instance, phase="draining", until_ms=until_ms)))

    def advance(self, record: Record, busy: Mapping[int, int]) -> Record:
        """Carry on with ending what is to end.

        Args:
            record: of the entry, as on disk.
            busy: backend port → requests in flight.
        """
        now_ms = host_supervise.uptime_ms()
        for instance in record.instances:
            if instance.phase not in ("draining", "stopping"):
                continue
            late = now_ms >= instance.until_ms
            if not self.runs(instance):
                self._signal([instance.nonce], signal.SIGKILL)
                self._children.pop(instance.nonce, None)
                record = self._records.save(record.without(instance.nonce))
            elif instance.phase == "draining" and (late or not busy.get(instance.port)):
                stopping = replace(instance, phase="stopping", until_ms=now_ms + STOP_MS)
                record = self._records.save(record.with_instance(stopping))
                self._signal([instance.nonce], signal.SIGTERM)
            elif instance.phase == "stopping" and late:
                self._signal([instance.nonce], signal.SIGKILL)
        return record

    def wait_idle(self, instance: Instance, busy: Callable[[], Mapping[int, int]]) -> None:
        """Wait until the instance has no request in flight, ``drain_ms`` at the most."""
        deadline = time.monotonic() + self._drain_ms / 1000
        while instance.port and self.runs(instance) and busy().get(instance.port) and time.monotonic() < deadline:
            time.sleep(_NAP_S)

    def stop(self, instance: Instance) -> None:
        """End all processes of an instance, now; return when they have ended."""
        waiting = host_supervise.signal_marked(self._state_id, [instance.nonce], signal.SIGTERM)
        if not host_supervise.wait_ended(waiting, STOP_MS / 1000):
            killed = host_supervise.signal_marked(self._state_id, [instance.nonce], signal.SIGKILL)
            host_supervise.wait_ended(killed, _KILLED_S)
        child = self._children.pop(instance.nonce, None)
        if child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_KILLED_S)

    def hangup(self, instance: Instance) -> None:
        """Send SIGHUP to an instance that has a handler for it; another one watches its file, or is not to be ended."""
        if self.runs(instance) and host_supervise.catches(instance.pid, signal.SIGHUP):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(instance.pid, signal.SIGHUP)

    def look_for_deaths(self) -> None:
        """Record what has ended since the last time. A candidate that a reboot ended is forgotten: it did no wrong."""
        for record in self._records:
            for instance in record.instances:
                child = self._children.get(instance.nonce)
                code = None if child is None else child.poll()
                if instance.phase != "up" or instance.target or self.runs(instance):
                    continue
                if instance.boot != self._boot and instance.nonce != record.serving:
                    record = self._records.save(record.without(instance.nonce))
                    continue
                if instance.boot != self._boot:
                    said = "the machine was started again"
                else:
                    line = host_supervise.last_line(self.log(record, instance))
                    how = "is gone" if code is None else host_supervise.ending(code)
                    said = f"its process {how}{': ' if line else ''}{line}"
                self._children.pop(instance.nonce, None)
                self._signal([instance.nonce], signal.SIGKILL)
                record = self._records.save(record.with_instance(replace(instance, phase="dead", said=said)))

    def lost_its_port(self, instance: Instance) -> bool:
        """Tell whether the instance died before it was ready, and somebody else listens on the port it was given."""
        return (
            instance.phase == "dead"
            and instance.port > 0
            and not instance.ready
            and not is_free("127.0.0.1", instance.port)
        )

    def adopt(self, forwarder_pid: int) -> None:
        """Put records and processes in step: started but not recorded is recorded, recorded nowhere is ended.

        Args:
            forwarder_pid: of the forwarder that answers; 0 for none.
        """
        found = host_supervise.marked(self._state_id)
        known = set()
        for record in self._records:
            for instance in record.instances:
                if instance.phase == "intended":
                    pids = found.get(instance.nonce, [])
                    process = host_supervise.identify(pids[0], self._boot) if pids else None
                    if process is None:
                        record = self._records.save(record.without(instance.nonce))
                        continue
                    record = self._records.save(record.with_instance(_up(instance, process)))
                if instance.phase != "dead":
                    known.add(instance.nonce)
        for nonce, pids in found.items():
            if nonce not in known and not (nonce.startswith(FORWARDER) and forwarder_pid in pids):
                self._signal([nonce], signal.SIGKILL)

    def settle(self, key: str, busy: Callable[[], Mapping[int, int]], most_s: float) -> Record:
        """Advance until nothing of the entry is ending, or ``most_s`` are over.

        Args:
            key: of the entry.
            busy: tells backend port → requests in flight, now.
            most_s: 0 to look once.
        """
        deadline = time.monotonic() + most_s
        while True:
            record = self.advance(self._records.get(key), busy())
            ending = [one for one in record.instances if one.phase in ("draining", "stopping")]
            if not ending or time.monotonic() >= deadline:
                return record
            waiting = []
            for one in ending:
                with contextlib.suppress(OSError):
                    waiting.append(os.pidfd_open(one.pid))
            host_supervise.wait_ended(waiting, _NAP_S)

    def home(self, record: Record) -> Path:
        """Return the directory that the entry's processes run in."""
        return self._directory / "run" / record.slug

    def log(self, record: Record, instance: Instance) -> Path:
        """Return the log of the processes of one entry digest."""
        return self._directory / "logs" / f"{record.slug}-{instance.digest[7:15]}.log"

    def logs(self, record: Record) -> list[Path]:
        """Return all logs of the entry, the one written to last at the end."""
        names = self._directory.joinpath("logs").glob(f"{record.slug}-????????.log*")
        return sorted(names, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def _forget_old_logs(self, record: Record) -> None:
        current = [path for path in self.logs(record) if path.suffix == ".log"]
        for path in current[: -(LOGS_PER_ENTRY - 1)]:
            for each in path.parent.glob(f"{path.name}*"):
                each.unlink(missing_ok=True)

    def _signal(self, nonces: Sequence[str], number: signal.Signals) -> None:
        for descriptor in host_supervise.signal_marked(self._state_id, nonces, number):
            os.close(descriptor)


def known_points(home: Path) -> tuple[ModelPoint, ...]:
    """Return the models that an entry was told of last."""
    try:
        return tuple(point for points in read_models(home).values() for point in points)
    except EdgeferryError:
        return ()


def _process(instance: Instance) -> Process:
    return Process(instance.pid, instance.started, instance.boot)


def _up(instance: Instance, process: Process) -> Instance:
    return replace(instance, phase="up", pid=process.pid, started=process.started, boot=process.boot)


def _find(program: str, path: str) -> str:
    """Return where the program is, looked for in ``path`` and not in the directory that it will run in."""
    if "/" in program:
        return program
    for directory in path.split(os.pathsep):
        candidate = Path(directory) / program
        if directory and os.access(candidate, os.X_OK) and candidate.is_file():
            return str(candidate)
    raise host_supervise.ProgramMissing(
        f"there is no program {program}", where=path, do="install it on the host, or mend the runtime's command"
    )
