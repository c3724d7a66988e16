"""Looking at a host: what of ours is up, and the next step of what was ordered before."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from agent.actions import ModelPoint, Observed, Seen, Staged
from agent.inference import Probe, probe, readiness_paths
from agent.platforms import host_supervise
from agent.platforms.host_files import MODELS_ENV, MODELS_JSON, env_file, leads_to, read_models
from agent.platforms.host_forward import Status
from agent.platforms.host_orders import succeed
from agent.platforms.host_records import Instance, Record
from agent.platforms.host_routes import Host, routes, unreachable, url
from agent.platforms.host_sight import HUNG_MS, SETTLED_MS, Look, see
from agent.tree import fingerprint
from agent.wire.errors import EdgeferryError

PROBE_S = 0.5


class Eyes:
    """Looks at the host, and remembers since when something is not ready.

    Args:
        host: to look at.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._unready_since_ms: dict[str, int] = {}
        self._status: Status | None = None
        self._read: tuple[str, Mapping[str, tuple[ModelPoint, ...]]] | None = None

    def hung(self) -> frozenset[str]:
        """Return the nonces of processes that were ready and have not been for too long."""
        now_ms = host_supervise.uptime_ms()
        return frozenset(nonce for nonce, since_ms in self._unready_since_ms.items() if now_ms - since_ms >= HUNG_MS)

    def look(self, owned: bool) -> Observed:
        """Return everything of ours that is here.

        Args:
            owned: what was found out may be recorded; else nothing is written.
        """
        host = self._host
        looks = self._looks(owned)
        wanted = routes(host)
        status, self._status = self._status, None
        if status is None or not host.forwarder.current(wanted, status):
            status = self._ask_forwarder()
        current = host.forwarder.current(wanted, status)
        seen: list[Seen] = []
        for record in host.records:
            shown = [one for one in record.instances if _is_shown(record, one)]
            for instance in shown:
                here, place = url(host, record), host.place(record) if instance.target else ""
                why = unreachable(host, record, current, status) if instance.nonce == record.serving else ""
                seen.append(see(record, instance, looks[instance.nonce], here, place, why))
            if not shown:
                seen.append(_leftover(record))
        return Observed(tuple(seen), self._announced())

    def tend(self, known: Sequence[Staged]) -> None:
        """Do the next step of what was ordered before and could not end at once. Gives no orders of its own."""
        host = self._host
        staged = {(f"{one.entry.kind}/{one.entry.name}", one.digest): one for one in known}
        host.forwarder.reap()
        host.instances.look_for_deaths()
        self._status = status = self._ask_forwarder()
        busy: Mapping[int, int] = {} if status is None else status.busy
        for record in host.records:
            if any(not one.target for one in record.instances):  # a file writes no log
                for log in host.instances.logs(record):
                    if log.suffix == ".log":
                        host_supervise.rotate(log)
            record = self._drop_doubles(host.instances.advance(record, busy))
            record = self._follow_successor(record)
            for instance in record.instances:
                again = staged.get((record.key, instance.digest))
                if again is not None and host.instances.lost_its_port(instance):
                    self._start_elsewhere(record, instance, again)
        self._correct_routes(status)

    def _ask_forwarder(self) -> Status | None:
        """Return what the forwarder says, where anything needs it."""
        ported = any(one.port for record in self._host.records for one in record.instances)
        return self._host.forwarder.status() if ported else None

    def _looks(self, owned: bool) -> dict[str, Look]:
        """Return a look at every instance, by nonce, all readiness checks at once."""
        host, looks = self._host, {}
        if owned:
            host.instances.look_for_deaths()
        asked: list[tuple[Record, Instance]] = []
        for record in host.records:
            for instance in record.instances:
                if instance.target:
                    looks[instance.nonce] = _look_at_file(host, record, instance)
                elif instance.phase != "up" or not (owned or host.instances.runs(instance)):
                    looks[instance.nonce] = Look(alive=False, ready=False)
                elif not readiness_paths(instance.protocol, instance.path, record.name):
                    settled = host.instances.age_ms(instance) >= SETTLED_MS
                    looks[instance.nonce] = Look(alive=True, ready=settled)
                else:
                    asked.append((record, instance))
        probes = [
            Probe(instance.port, readiness_paths(instance.protocol, instance.path, record.name))
            for record, instance in asked
        ]
        for (record, instance), ready in zip(asked, probe(probes, PROBE_S) if probes else (), strict=True):
            looks[instance.nonce] = self._look_at_answer(record, instance, ready, owned)
        self._unready_since_ms = {nonce: since for nonce, since in self._unready_since_ms.items() if nonce in looks}
        return looks

    def _look_at_answer(self, record: Record, instance: Instance, ready: bool, owned: bool) -> Look:
        if ready:
            self._unready_since_ms.pop(instance.nonce, None)
            if owned and not instance.ready:
                latest = self._host.records.get(record.key)
                self._host.records.save(latest.with_instance(replace(instance, ready=True)))
            return Look(alive=True, ready=True)
        if not instance.ready:
            return Look(alive=True, ready=False)
        now_ms = host_supervise.uptime_ms()
        unready_ms = now_ms - self._unready_since_ms.setdefault(instance.nonce, now_ms)
        return Look(alive=True, ready=False, unready_ms=unready_ms)

    def _announced(self) -> Mapping[str, tuple[ModelPoint, ...]]:
        """Return what consumers read; nothing where somebody changed the files, so that they are written again."""
        directory = f"{self._host.state}/models"
        print_ = " ".join(fingerprint(f"{directory}/{name}") for name in (MODELS_JSON, MODELS_ENV))
        if self._read is None or self._read[0] != print_:
            self._read = (print_, _read_announced(Path(directory)))
        return self._read[1]

    def _drop_doubles(self, record: Record) -> Record:
        """End a second process of one entry digest that no order knows: the agent was killed in the middle of one."""
        serving = record.instance(record.serving)
        for one in record.instances:
            double = (
                serving is not None and one.digest == serving.digest and one.phase == "up" and serving.phase == "up"
            )
            if double and one.nonce not in (record.serving, record.successor):
                record = self._host.instances.drain(record, one.nonce)
        return record

    def _follow_successor(self, record: Record) -> Record:
        successor = record.instance(record.successor)
        if successor is None:
            return record
        if successor.phase == "dead":
            fault = f"its restart for new models failed: {successor.said}"
            return self._host.records.save(replace(record.without(successor.nonce), fault=fault))
        paths = readiness_paths(successor.protocol, successor.path, record.name)
        ready = probe([Probe(successor.port, paths)], PROBE_S)[0] if successor.port else True
        if ready and (paths or self._host.instances.age_ms(successor) >= SETTLED_MS):
            with contextlib.suppress(EdgeferryError):
                return succeed(self._host, record)
        return record

    def _start_elsewhere(self, record: Record, instance: Instance, staged: Staged) -> None:
        """Somebody took the port between our look and the start: that is no fault of the entry."""
        with contextlib.suppress(EdgeferryError):
            served, succeeds = instance.nonce == record.serving, instance.nonce == record.successor
            record, fresh = self._host.instances.launch(record, staged, None)
            record = replace(
                record,
                serving=fresh.nonce if served else record.serving,
                successor=fresh.nonce if succeeds else record.successor,
            )
            self._host.records.save(record.without(instance.nonce))

    def _correct_routes(self, status: Status | None) -> None:
        """Have the routes follow the records where the agent was killed between the two, or a process died."""
        if status is None or self._host.forwarder.current(routes(self._host), status):
            return
        with contextlib.suppress(EdgeferryError):
            self._host.forwarder.publish(routes(self._host))


def _read_announced(directory: Path) -> Mapping[str, tuple[ModelPoint, ...]]:
    try:
        announced = read_models(directory)
        as_env = (directory / MODELS_ENV).read_bytes() if announced else b""
    except (EdgeferryError, OSError):
        return {}
    return announced if not announced or as_env == env_file(announced) else {}


def _is_shown(record: Record, instance: Instance) -> bool:
    if instance.nonce == record.serving:
        return True
    serving = record.instance(record.serving)
    same = serving is not None and serving.digest == instance.digest
    return instance.phase in ("up", "dead") and instance.nonce != record.successor and not same


def _leftover(record: Record) -> Seen:
    """An entry of which only the end is to be carried out is still here."""
    digest = record.instances[-1].digest if record.instances else ""
    return Seen(record.kind, record.name, digest, False, "progressing", message="it is being stopped")


def _look_at_file(host: Host, record: Record, instance: Instance) -> Look:
    here = fingerprint(instance.target)
    if not here:
        return Look(alive=False, ready=False, spoiled="its content is gone")
    if here != instance.fingerprint:
        return Look(alive=True, ready=False, spoiled="somebody changed its content")
    if instance.nonce == record.serving and not leads_to(host.place(record), instance.target):
        return Look(alive=True, ready=True, misplaced="its stable path leads elsewhere")
    return Look(alive=True, ready=True)
