"""What keeps this site from its work: one check for each thing that it needs, and what to do."""

from __future__ import annotations

import email.utils
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from agent import durable
from agent.clock import Clock, read_wall
from agent.config import Config, load_config
from agent.content import RESERVE_BYTES
from agent.fetch import Transport, hub_connection, open_transport
from agent.force import in_force
from agent.keys import agent_key
from agent.layout import CLIENT_CERTIFICATE, CLIENT_KEY, CREDENTIAL
from agent.orders import read_orders
from agent.proof import Proof, open_proof
from agent.state import State, StateInUse, locked
from agent.wire.errors import EdgeferryError

Verdict = Literal["ok", "warning", "wrong"]

_CLOCK_OFF: Final = timedelta(minutes=2)
_SOON: Final = timedelta(days=7)
_MOST_ANSWER_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        said: what was found.
        do: what to do about it; empty for nothing.
    """

    name: str
    verdict: Verdict
    said: str
    do: str = ""


def examine(root: Path) -> Iterator[Check]:
    """Yield the checks one by one, as they are done; nothing of the agent's is changed.

    Args:
        root: the state directory.
    """
    config = None
    for check in _one("settings", lambda: _settings(root)):
        yield check
        if check.verdict == "ok":
            config = load_config(root)
    if config is None:
        return
    for name, look in (
        ("disk", lambda: _disk(root)),
        ("state", lambda: _state(root)),
        ("key and trust", lambda: _trust(root)),
        ("certificate", lambda: _certificate(root)),
        ("clock", lambda: _clock(root)),
        ("orders", lambda: _orders(root)),
        ("agent", lambda: _agent(root)),
        ("overlays", lambda: _overlays(root, config)),
        ("platform", lambda: _platform(root, config)),
    ):
        yield from _one(name, look)


def _one(name: str, look: Callable[[], Check | None]) -> Iterator[Check]:
    try:
        found = look()
    except EdgeferryError as error:
        found = Check(name, "wrong", f"{error.code} {error.what}", error.do)
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        found = Check(name, "wrong", said, "see its owner and mode, and whether the disk is full or read-only")
    if found is not None:
        yield found


def _settings(root: Path) -> Check:
    config = load_config(root)
    return Check("settings", "ok", f"{config.cluster} of fleet {config.fleet}, platform {config.platform}")


def _disk(root: Path) -> Check:
    probe = root / ".doctor"
    try:
        durable.write(probe, b"written")
    finally:
        probe.unlink(missing_ok=True)
    usage = shutil.disk_usage(root)
    free = f"{usage.free >> 20} MiB of {usage.total >> 20} MiB are free"
    if usage.free < RESERVE_BYTES:
        return Check("disk", "wrong", free, f"make room: {RESERVE_BYTES >> 20} MiB always stay free")
    return Check("disk", "ok", f"it takes writes; {free}")


def _state(root: Path) -> Check:
    with closing(State.read(root)) as state:
        broken = state.rows("PRAGMA quick_check(1)")
        if broken and broken[0][0] != "ok":
            do = "stop the agent and move state.sqlite away: it finds again what runs, and what it is to run"
            return Check("state", "wrong", f"state.sqlite is damaged: {broken[0][0]}", do)
        pending = state.rows("SELECT COUNT(*) FROM events")[0][0]
    return Check("state", "ok", f"state.sqlite is sound, {pending} events wait to be sent")


def _trust(root: Path) -> Check:
    key = agent_key(root)
    loose = [
        name
        for name in ("key", CLIENT_KEY, CREDENTIAL)
        if (root / name).exists() and (root / name).stat().st_mode & 0o077
    ]
    if loose:
        return Check("key and trust", "wrong", f"others may read {', '.join(loose)}", f"chmod 600 {root}/{loose[0]}")
    with closing(State.read(root)) as state:
        force = in_force(root, state)
    if force.fault is not None:
        return Check(
            "key and trust", "warning", str(force.fault), "nothing: it is fetched again once the site is online"
        )
    return Check("key and trust", "ok", f"key {key.fingerprint}, trust {force.trust.number}")


def _certificate(root: Path) -> Check | None:
    path = root / CLIENT_CERTIFICATE
    if not path.exists():
        return None
    from cryptography.x509 import load_pem_x509_certificate

    try:
        ends = load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except ValueError as error:
        return Check("certificate", "wrong", f"unreadable: {error}", "join this cluster again")
    left = ends - datetime.now(UTC)
    text = f"good until {ends:%Y-%m-%d %H:%M} UTC"
    if left < timedelta():
        do = "check the clock; the agent has it renewed by itself while the cluster is registered"
        return Check("certificate", "wrong", f"expired at {ends:%Y-%m-%d %H:%M} UTC", do)
    return Check(
        "certificate", "warning" if left < _SOON else "ok", text, "it is to be renewed" if left < _SOON else ""
    )


def _clock(root: Path) -> Check:
    with closing(State.read(root)) as state:
        floor = Clock(state).floor
    wall, _, _ = read_wall()
    if wall < floor - timedelta(seconds=30):
        do = "set the clock, or start a time service; until then windows stay closed"
        return Check("clock", "wrong", f"{wall:%Y-%m-%d %H:%M} UTC, and {floor:%Y-%m-%d %H:%M} was seen before", do)
    return Check("clock", "ok", f"{wall:%Y-%m-%d %H:%M:%S} UTC, not behind what was seen before")


def _orders(root: Path) -> Check | None:
    orders = read_orders(root)
    if not orders.held and not orders.rollbacks:
        return None
    said = [f"{'everything' if name == '*' else name} is held" for name in sorted(orders.held)]
    said += [f"{name} was rolled back" for name in sorted(orders.rollbacks)]
    return Check(
        "orders", "warning", ", ".join(said), "`edgeferry-agent hold --off`, `edgeferry-agent rollback NAME --undo`"
    )


def _agent(root: Path) -> Check:
    try:
        with locked(root):
            return Check("agent", "wrong", "no agent runs here", "`edgeferry-agent install`, or `edgeferry-agent run`")
    except StateInUse:
        return Check("agent", "ok", "an agent runs here")


def _overlays(root: Path, config: Config) -> Check:
    proof = open_proof(root, config, agent_key(root))
    if config.hub and not config.git and not config.folder:
        return _hub(config, proof)
    where = config.git or config.folder
    transport: Transport = open_transport(config, proof, root / ".doctor-git" if config.git else root)
    try:
        found = transport.poll("", 0.0)
    finally:
        transport.close()
        shutil.rmtree(root / ".doctor-git", ignore_errors=True)
    files = 0 if found is None else len(found.files)
    return Check("overlays", "ok", f"{where} has an overlay for this cluster, {files} files")


def _hub(config: Config, proof: Proof) -> Check:
    connection = hub_connection(config, proof)
    try:
        answer = connection.ask("GET", "/v1/overlay?wait=0", proof.headers(), most_bytes=_MOST_ANSWER_BYTES)
    finally:
        connection.close()
    if answer.status in (401, 403):
        do = "ask who runs the hub whether this cluster was revoked; join again with a new token"
        return Check("overlays", "wrong", f"{config.hub} does not know this cluster", do)
    if answer.status not in (200, 304, 404):
        return Check("overlays", "wrong", f"{config.hub} answered {answer.status}", "see the hub's log")
    said = email.utils.parsedate_to_datetime(answer.headers["date"]) if "date" in answer.headers else None
    off = datetime.now(UTC) - said if said is not None else timedelta()
    if abs(off) > _CLOCK_OFF:
        side = "ahead" if off > timedelta() else "behind"
        text = f"the hub answers, and this clock is {abs(off).total_seconds():.0f} s {side}"
        return Check("overlays", "warning", text, "start a time service on both")
    text = "and nothing is published for this cluster yet" if answer.status == 404 else "and knows this cluster"
    return Check("overlays", "ok", f"{config.hub} answers, {text}")


def _platform(root: Path, config: Config) -> Check:
    from agent.assembly import open_platform

    platform = open_platform(root, config)
    try:
        facts = platform.facts()
    finally:
        platform.close()
    text = ", ".join(f"{name} {facts[name]}" for name in sorted(facts)[:4])
    return Check("platform", "ok", f"{config.platform}: {text}")
