"""What is said of an entry on a host, from its record and what was looked up. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent.actions import Seen
from agent.platforms.host_records import Instance, Record
from agent.wire.report import Health

HUNG_MS = 30_000
"""A process that was ready and has not been for so long hangs."""

SETTLED_MS = 1_000
"""A process without a readiness check is ready when it lives after this."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was looked up of one instance.

    Attributes:
        alive: its process runs; for ``file``: its target is there.
        ready: it answers its readiness check; for ``file``: the bytes are as they were staged.
        unready_ms: how long it has not been, since it was ready last.
        misplaced: why consumers do not get to it though it is as it should be itself.
        spoiled: why it is not what was staged.
    """

    alive: bool
    ready: bool
    unready_ms: int = 0
    misplaced: str = ""
    spoiled: str = ""


def see(record: Record, instance: Instance, look: Look, url: str = "", path: str = "", unreachable: str = "") -> Seen:
    """Return what the platform sees of one instance.

    Args:
        record: its entry's.
        instance: not one that drains or stops.
        look: at it.
        url, path: stable, for consumers.
        unreachable: why consumers do not get to what serves; empty when they do.
    """
    serving = instance.nonce == record.serving
    yields = serving and any(one.digest == record.yielding for one in record.instances if one.nonce != record.serving)
    health, message = _health(instance, look)
    drift = ""
    if yields:
        health, message = "progressing", "it was stopped while its replacement is tried"
    elif serving:
        away = look.misplaced or unreachable
        drift = message if health == "degraded" else away or record.fault
        if health == "current" and away:
            health, message = "progressing", away
        if record.crashes and health != "current":
            message += f" ({record.crashes} times started again)"
    return Seen(
        kind=record.kind,
        name=record.name,
        digest=instance.digest,
        serving=serving,
        health=health,
        drift=drift,
        url=url if serving else "",
        path=path if serving else "",
        message="" if health == "current" else message,
    )


def _health(instance: Instance, look: Look) -> tuple[Health, str]:
    """Return what the instance itself is like: a version is blamed for nothing but this."""
    if look.spoiled:
        return "degraded", look.spoiled
    if not look.alive:
        return "degraded", instance.said or "its process is gone"
    if look.ready:
        return "current", ""
    if instance.ready and look.unready_ms >= HUNG_MS:
        return "degraded", f"it has not answered its readiness check for {look.unready_ms // 1000} s"
    return "progressing", "it is not ready yet" if not instance.ready else "it does not answer its readiness check"
