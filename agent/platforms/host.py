"""Platform ``host``: models and workloads as supervised processes and files on one machine without Kubernetes.

A process outlives the agent. Consumers know a stable port, owned by the forwarder (agent/forward.py), or a stable path.
What is here stands in records (host_records.py), written before and after every step: kill the agent anywhere and the
next one carries on.
"""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from agent import durable
from agent.actions import (
    Action,
    Announce,
    ModelPoint,
    Observed,
    Refresh,
    Remove,
    Repair,
    Retire,
    Stage,
    Staged,
    Start,
    Switch,
    Test,
)
from agent.config import Config
from agent.platforms import host_launch, host_orders
from agent.platforms.host_facts import HostFacts
from agent.platforms.host_files import read_models, write_models
from agent.platforms.host_forward import ForwarderControl
from agent.platforms.host_instances import Instances
from agent.platforms.host_look import Eyes
from agent.platforms.host_ports import Ports
from agent.platforms.host_records import Records, is_key
from agent.platforms.host_routes import Host
from agent.wire.errors import EdgeferryError, Retry, Stop
from agent.wire.release import Entry

"""Kernel's word → Kubernetes' word; what is not here is the same."""

DIRECTORY: Final = "host"


class HostBusy(Retry):
    """Another process works with this state."""

    code = "EF4111"


class NotForHosts(Stop):
    """The host cannot run this entry."""

    code = "EF4112"


class HostPlatform:
    """Executes plans on this machine.

    Args:
        state: directory of the agent; the platform works in ``STATE/host``, ``STATE/models``, ``STATE/workloads``.
        config: ports and times.
    """

    name = "host"

    def __init__(self, state: Path, config: Config) -> None:
        self._state = state.resolve()
        self._config = config
        self._directory = self._state / DIRECTORY
        self._lock: IO[str] | None = None
        self._host: Host | None = None
        self._eyes: Eyes | None = None
        self._facts = HostFacts(self._state)

    def refuses(self, entry: Entry) -> str:
        """Return why this platform cannot do the entry, or an empty string."""
        return host_launch.refusal(entry)

    def observe(self, known: Sequence[Staged]) -> Observed:
        """Look at the host, and carry on with what was ordered before: drains, restarts, logs.

        Where another process works with this state it only looks.

        Args:
            known: every entry that may be here.
        """
        if self._own():
            _, eyes = self._parts()
            eyes.tend(known)
            return eyes.look(owned=True)
        return self.look(known)

    def look(self, known: Sequence[Staged]) -> Observed:
        """Look at the host and touch nothing: not even the lock.

        Args:
            known: every entry that may be here.
        """
        if not (self._directory / "id").exists():
            return Observed()
        return Eyes(self._open(owned=False)).look(owned=False)

    def execute(self, action: Action) -> None:
        """Do one action.

        Raises:
            HostBusy: another process works with this state.
            NotForHosts: ``refuses`` says why.
            ProgramMissing, CannotStart, NoFreePort, PortTaken, ForwarderDown, PathTaken, ContentChanged, NotRunning,
            NotAnswering, SelfTestFailed: as their codes say.
        """
        if not self._own():
            raise HostBusy("another agent works with this state", where=str(self._state), do="stop it first")
        host, eyes = self._parts()
        match action:
            case Start(staged, points):
                host_orders.start(host, self._possible(staged), points)
            case Test(staged):
                host_orders.test(host, self._possible(staged))
            case Switch(staged, _, points):
                host_orders.switch(host, self._possible(staged), points)
            case Retire(staged):
                host_orders.retire(host, staged)
            case Repair(staged, _, points):
                host_orders.repair(host, self._possible(staged), points, eyes.hung())
            case Refresh(staged, how, points):
                host_orders.refresh(host, self._possible(staged), how, points)
            case Remove(kind, name):
                if is_key(f"{kind}/{name}"):
                    host_orders.remove(host, f"{kind}/{name}")
            case Announce(namespace, points):
                self._announce(namespace, points)
            case Stage():
                raise TypeError("staging is not the platform's")

    def facts(self) -> Mapping[str, str]:
        """Return what the machine tells of itself: agent/platforms/host_facts.py."""
        return {"platform": self.name, **self._facts.measure()}

    def close(self) -> None:
        """Let go of the state; what serves goes on."""
        self._host = self._eyes = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _possible(self, staged: Staged) -> Staged:
        why = self.refuses(staged.entry)
        if why:
            raise NotForHosts(why, where=f"{staged.entry.kind}/{staged.entry.name}")
        return staged

    def _announce(self, namespace: str, points: Sequence[ModelPoint]) -> None:
        directory = self._state / "models"
        try:
            announced = read_models(directory)
        except EdgeferryError:
            announced = {}
        write_models(directory, {**announced, namespace: points})

    def _own(self) -> bool:
        """Take the state for us, once; on that occasion records and processes are put in step."""
        if self._lock is not None:
            return True
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (self._directory / "lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._lock = lock
        path = self._directory / "id"
        if not path.exists():
            durable.write(path, secrets.token_hex(16).encode())
        self._host = self._open(owned=True)
        self._eyes = Eyes(self._host)
        status = self._host.forwarder.status()
        self._host.instances.adopt(0 if status is None else status.pid)
        return True

    def _parts(self) -> tuple[Host, Eyes]:
        if self._host is None or self._eyes is None:
            raise RuntimeError("the state is not ours")
        return self._host, self._eyes

    def _open(self, *, owned: bool) -> Host:
        config, state_id = self._config, (self._directory / "id").read_text().strip()
        drain_ms = int(config.drain_s * 1000)
        records = Records(self._directory / "entries", owned=owned)
        ports = Ports(self._directory / "ports.json", config.first_port, config.last_port, config.listen)
        return Host(
            state=self._state,
            listen=config.listen,
            drain_ms=drain_ms,
            records=records,
            ports=ports,
            instances=Instances(self._directory, state_id, records, ports, drain_ms),
            forwarder=ForwarderControl(self._directory, state_id, config.listen),
        )
