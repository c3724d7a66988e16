"""What each action of a plan does on a host. Every function may have been half done before."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import Final

from agent.actions import ContentChanged, ModelPoint, Staged
from agent.inference import SelfTestFailed, self_test
from agent.platforms import host_launch
from agent.platforms.host_files import point, unlink_ours, write_models
from agent.platforms.host_instances import known_points
from agent.platforms.host_records import Instance, Record
from agent.platforms.host_routes import Host, publish
from agent.tree import fingerprint
from agent.wire.errors import Retry
from agent.wire.release import Entry

WAIT_S: Final = 1.0
"""A retired instance is waited for so long; the rest of its end comes with later looks."""


class NotRunning(Retry):
    """There is no process of the entry to ask or to switch to."""

    code = "EF4109"
    delay_s = 1.0


def start(host: Host, staged: Staged, points: Sequence[ModelPoint]) -> None:
    """Bring the entry up beside what serves; where two cannot be up at once, in its place.

    What serves already, and died, is brought back to serve.
    """
    record = _opened(host, staged)
    if staged.entry.delivery == "file":
        _place(host, record, staged)
        return
    found, serving = host.instances.running(record, staged.digest), record.instance(record.serving)
    if serving is not None and serving.digest == staged.digest:
        if found is None or found.nonce != serving.nonce:
            repair(host, staged, points, ())
        return
    if found is not None:
        return
    draining = next((one for one in record.instances if one.digest == staged.digest and one.phase == "draining"), None)
    if draining is not None and host.instances.runs(draining):
        host.records.save(record.with_instance(replace(draining, phase="up", until_ms=0)))
        return
    record = _forget_dead(host, record, staged.digest)
    if not beside(staged.entry):
        record = _make_way(host, record, staged)
    host.instances.launch(record, staged, points)


def test(host: Host, staged: Staged) -> None:
    """Ask the self-test's question of the candidate itself, not by its stable port."""
    wanted = staged.entry.self_test
    if wanted is None:
        return
    instance = host.instances.running(host.records.get(_key(staged)), staged.digest)
    if instance is None:
        raise NotRunning("its process does not run", where=_key(staged), do="nothing: it is started again")
    missing = [path for path in (wanted.input, wanted.output) if path not in staged.files]
    if missing:
        raise SelfTestFailed(f"{missing[0]} is not in the overlay", where=_key(staged), do="publish it again")
    base = f"http://127.0.0.1:{instance.port}"
    question, answer = staged.files[wanted.input], staged.files[wanted.output]
    try:
        self_test(base, staged.entry.name, question, answer, wanted.tolerance)
    except SelfTestFailed as failed:
        if host.instances.runs(instance):
            raise
        raise SelfTestFailed(f"its process ended over the question ({failed.what})", where=failed.where) from None


def switch(host: Host, staged: Staged, points: Sequence[ModelPoint]) -> None:
    """Put the entry into service: every request that comes after the return goes to it."""
    record = _opened(host, staged)
    if staged.entry.delivery == "file":
        record, instance = _place(host, record, staged)
        record = host.records.save(replace(record, serving=instance.nonce, fault=""))
        point(host.link(record), Path(instance.target))
        return
    found = host.instances.running(record, staged.digest)
    if found is None:
        record = _forget_dead(host, record, staged.digest)
        if not beside(staged.entry):
            record = _make_way(host, record, staged)
        record, found = host.instances.launch(record, staged, points)
    _serve(host, record, found, crashes=0)


def retire(host: Host, staged: Staged) -> None:
    """Stop what no longer serves, once its requests are answered."""
    record = host.records.get(_key(staged))
    mine = [one for one in record.instances if one.digest == staged.digest]
    if any(one.nonce == record.serving for one in mine):
        record = host.records.save(replace(record, serving="", successor="", yielding=""))
        if staged.entry.delivery == "file":
            unlink_ours(host.link(record))
        else:
            record = publish(host, record)
    if record.yielding == staged.digest:
        record = host.records.save(replace(record, yielding=""))
    for one in mine:
        record = _end(host, record, one)
    record = host.instances.settle(record.key, host.busy, WAIT_S)
    if not record.instances:
        host.records.forget(record)


def repair(host: Host, staged: Staged, points: Sequence[ModelPoint], hung: Collection[str]) -> None:
    """Put right what serves.

    Args:
        hung: nonces of processes that run and answer no more.
    """
    record = _opened(host, staged)
    if staged.entry.delivery == "file":
        _repair_file(host, record, staged)
        return
    found = host.instances.running(record, staged.digest)
    if found is not None and found.nonce in hung:
        record = host.records.save(record.with_instance(replace(found, phase="dead", said="it answered no more")))
        host.instances.stop(found)
        found = None
    if found is None:
        record, found = host.instances.launch(record, staged, points)
        _serve(host, record, found, crashes=record.crashes + 1)
    elif record.fault:
        host.records.save(replace(record, fault=""))
        refresh(host, staged, "restart", points)
    else:
        _serve(host, record, found, crashes=record.crashes)


def remove(host: Host, key: str) -> None:
    """Take away all that the record of the entry names, and nothing else."""
    record = host.records.get(key)
    record = host.records.save(replace(record, removing=True, serving="", successor="", yielding=""))
    publish(host, record)
    unlink_ours(host.link(record))
    for one in record.instances:
        record = _end(host, record, one)
    record = host.instances.settle(key, host.busy, host.drain_ms / 1000)
    for one in record.instances:
        host.instances.stop(one)
    shutil.rmtree(host.instances.home(record), ignore_errors=True)
    for log in host.instances.logs(record):
        log.unlink(missing_ok=True)
    host.records.forget(record)


def refresh(host: Host, staged: Staged, how: str, points: Sequence[ModelPoint]) -> None:
    """Have a workload take up its models as they are now: started again, or told."""
    record = _opened(host, staged)
    serving = record.instance(record.serving)
    if serving is None or not host.instances.runs(serving):
        repair(host, staged, points, ())
        return
    home = host.instances.home(record)
    if how == "reload":
        write_models(home, {staged.entry.namespace: points})
        host.instances.hangup(serving)
        return
    if beside(staged.entry):
        if record.successor and known_points(home) == tuple(sorted(points, key=lambda point: point.name)):
            return
        if record.successor:
            record = host.instances.drain(replace(record, successor=""), record.successor)
        record, fresh = host.instances.launch(record, staged, points)
        host.records.save(replace(record, successor=fresh.nonce))
        return
    record = _stopped(host, record, serving, "it was stopped to be started again for its models")
    record, fresh = host.instances.launch(record, staged, points)
    _serve(host, record, fresh, crashes=record.crashes)


def beside(entry: Entry) -> bool:
    """Tell whether two versions may be up at once: a program without a port would do its work twice."""
    return entry.switch != "replace" and host_launch.takes_port(entry)


def succeed(host: Host, record: Record) -> Record:
    """The successor is ready: it serves, and the one before ends."""
    successor, before = record.instance(record.successor), record.serving
    if successor is None:
        return host.records.save(replace(record, successor=""))
    record = _serve(host, replace(record, successor=""), successor, crashes=record.crashes)
    return host.instances.drain(record, before)


def _serve(host: Host, record: Record, instance: Instance, *, crashes: int) -> Record:
    """Record that ``instance`` serves, then route to it."""
    before = record.instance(record.serving)
    record = replace(
        record,
        serving=instance.nonce,
        successor="" if record.successor == instance.nonce else record.successor,
        yielding="",
        crashes=crashes,
        fault="",
    )
    record = host.records.save(record)
    if before is not None and before.nonce != instance.nonce and before.phase == "dead":
        record = host.records.save(record.without(before.nonce))
    if instance.port:
        host.ports.stable(record.key, [one.key for one in host.records])
        record = publish(host, record)
    return record


def _opened(host: Host, staged: Staged) -> Record:
    """Return the entry's record; an interrupted removal is off."""
    record = host.records.get(_key(staged))
    return host.records.save(replace(record, removing=False)) if record.removing else record


def _place(host: Host, record: Record, staged: Staged) -> tuple[Record, Instance]:
    """Record a file as it was staged; only bytes that were read and found right are delivered."""
    target = staged.model or staged.content
    print_ = "" if target is None else fingerprint(target)
    if target is None or not print_:
        raise ContentChanged("its content is not there", staged, where=str(target or _key(staged)))
    if print_ != staged.verified:
        raise ContentChanged("its content was not read since it changed last", staged, where=str(target))
    found = next((one for one in record.instances if one.digest == staged.digest), None)
    instance = replace(
        found or Instance(token_hex(8), staged.digest, staged.entry.version),
        phase="up",
        target=str(target),
        fingerprint=print_,
    )
    return host.records.save(record.with_instance(instance)), instance


def _repair_file(host: Host, record: Record, staged: Staged) -> None:
    serving = record.instance(record.serving)
    if serving is None or serving.digest != staged.digest:
        switch(host, staged, ())
    else:
        if fingerprint(Path(serving.target)) != serving.fingerprint:
            record, serving = _place(host, record, staged)
        point(host.link(record), Path(serving.target))


def _make_way(host: Host, record: Record, staged: Staged) -> Record:
    """Stop what serves, as two cannot be up at once; requests are held meanwhile."""
    serving = record.instance(record.serving)
    if serving is None or serving.digest == staged.digest:
        return host.records.save(record)
    record = host.records.save(replace(record, yielding=staged.digest))
    if serving.port:
        record = publish(host, record)
    return _stopped(host, record, serving, "it was stopped to make way for its replacement")


def _stopped(host: Host, record: Record, serving: Instance, said: str) -> Record:
    """Stop what serves, after its requests; it stays in the record, dead, so that a repair brings it back."""
    if serving.phase != "dead":
        host.instances.wait_idle(serving, host.busy)
        record = host.records.save(record.with_instance(replace(serving, phase="dead", said=said)))
        host.instances.stop(serving)
    return record


def _end(host: Host, record: Record, instance: Instance) -> Record:
    if instance.target or instance.phase in ("dead", "intended"):
        return _end_dead(host, record, instance.nonce)
    return host.instances.drain(record, instance.nonce)


def _end_dead(host: Host, record: Record, nonce: str) -> Record:
    return host.records.save(record.without(nonce)) if record.instance(nonce) else record


def _forget_dead(host: Host, record: Record, digest: str) -> Record:
    for one in record.instances:
        if one.digest == digest and one.phase == "dead" and one.nonce != record.serving:
            record = host.records.save(record.without(one.nonce))
    return record


def _key(staged: Staged) -> str:
    return f"{staged.entry.kind}/{staged.entry.name}"
