"""Where consumers find an entry of a host: stable ports and paths, and the routes that the records ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agent.forward_routes import Route
from agent.platforms.host_forward import ForwarderControl, PortTaken, Status
from agent.platforms.host_instances import Instances
from agent.platforms.host_ports import Ports
from agent.platforms.host_records import Record, Records

HOLD_MS: Final = 5_000
"""A request waits so long for a process that is being started again."""

REPLACE_HOLD_MS: Final = 60_000
"""A request waits so long while the old process has stopped and the new one is tried."""

MANY_CRASHES: Final = 3
"""After so many, requests are refused at once."""

_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class Host:
    """The parts of one agent's host platform.

    Attributes:
        state: directory of the agent.
        listen: address of the stable ports.
        drain_ms: requests in flight may take so long.
    """

    state: Path
    listen: str
    drain_ms: int
    records: Records
    ports: Ports
    instances: Instances
    forwarder: ForwarderControl

    def link(self, record: Record) -> Path:
        """Return the stable path of a file delivery."""
        return Path(self.place(record))

    def place(self, record: Record) -> str:
        """Return the same as text."""
        return f"{self.state}/{record.kind}s/{record.name}/current"

    def busy(self) -> Mapping[int, int]:
        """Return backend port → requests in flight, as the forwarder says."""
        status = self.forwarder.status()
        return {} if status is None else status.busy


def routes(host: Host) -> tuple[Route, ...]:
    """Return the routes that the records ask for, by port."""
    found = []
    for record in host.records:
        serving = record.instance(record.serving)
        port = host.ports.known(record.key)
        if record.removing or serving is None or not serving.port or not port:
            continue
        hold_ms = 0 if record.crashes >= MANY_CRASHES else HOLD_MS
        if record.yielding:
            hold_ms = REPLACE_HOLD_MS
        backend = serving.port if serving.phase == "up" and not record.yielding else 0
        found.append(Route(record.key, port, backend, record.kind == "model", hold_ms))
    return tuple(sorted(found, key=lambda route: route.port))


def url(host: Host, record: Record) -> str:
    """Return the stable address of an entry for consumers on this host; empty where it has none."""
    serving = record.instance(record.serving)
    if serving is None or not serving.port:
        return ""
    port = host.ports.known(record.key)
    if not port:
        return ""
    address = "127.0.0.1" if host.listen in ("0.0.0.0", "") else host.listen  # noqa: S104  # compared, not bound
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def unreachable(host: Host, record: Record, current: bool, status: Status | None) -> str:
    """Return why consumers do not get to what serves, or an empty string.

    Args:
        current: the forwarder goes by the routes that the records ask for.
        status: of the forwarder, None where it does not answer.
    """
    if not url(host, record):
        return ""
    if status is None:
        return "the forwarder is not running"
    fault = status.faults.get(host.ports.known(record.key))
    if fault:
        return f"port {host.ports.known(record.key)}: {fault}"
    return "" if current else "the forwarder goes by other routes"


def publish(host: Host, record: Record) -> Record:
    """Have every following request go as the records ask; ``record`` is the entry whose order this is.

    A port that nobody knows yet is replaced by another where it turns out to be taken.

    Raises:
        ForwarderDown: it cannot be started or does not obey.
        PortTaken: somebody else listens on the entry's port.
    """
    for _ in range(_TRIES):
        status = host.forwarder.publish(routes(host))
        port = host.ports.known(record.key)
        fault = None if status is None else status.faults.get(port)
        if fault is None:
            if record.serving and port and not record.reached:
                record = host.records.save(replace(record, reached=True))
            return record
        if record.reached:
            break
        host.ports.another(record.key, [one.key for one in host.records])
    raise PortTaken(
        f"the stable port {port} of {record.key} cannot be had: {fault}",
        where=f"{host.listen}:{port}",
        do="stop the program that listens there (`ss -ltnp`)",
    )
