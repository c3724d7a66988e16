"""Health over time: since when an instance has been as it is. Pure, but for ``keep`` and ``kept``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from agent.actions import Observed
from agent.clock import Instant
from agent.journal import Key
from agent.state import State
from agent.steps import Stretch
from agent.wire.canonical import canonical
from agent.wire.errors import Malformed
from agent.wire.fields import Fields, write_time
from agent.wire.report import Health

Instance = tuple[Key, str]
"""An entry and the digest of one instance of it."""


@dataclass(frozen=True, slots=True)
class Since:
    """The present stretch of one instance.

    Attributes:
        at: when it began, for people and reports.
        at_ms: when this agent saw it first, milliseconds since boot.
    """

    health: Health
    at: datetime
    at_ms: int


def fold(before: Mapping[Instance, Since], observed: Observed, instant: Instant) -> dict[Instance, Since]:
    """Return the stretches of what serves or is coming up now; what is out of sight begins anew when it is back."""
    after: dict[Instance, Since] = {}
    for seen in observed.seen:
        instance = ((seen.kind, seen.name), seen.digest)
        known = before.get(instance)
        if instance in after and not seen.serving:
            continue
        same = known is not None and known.health == seen.health
        after[instance] = known if known is not None and same else Since(seen.health, instant.now, instant.uptime_ms)
    return after


def stretches(since: Mapping[Instance, Since], instant: Instant) -> dict[Instance, Stretch]:
    """Return how long each instance has been in its health."""
    return {one: Stretch(it.health, max(0, instant.uptime_ms - it.at_ms)) for one, it in since.items()}


def keep(state: State, since: Mapping[Instance, Since], instant: Instant) -> None:
    """Keep what is healthy over a restart of the agent; written only when a stretch begins or ends."""
    healthy = {
        f"{kind}/{name}/{digest}": write_time(one.at)
        for ((kind, name), digest), one in since.items()
        if one.health == "current"
    }
    state.set(healthy=canonical({"boot": instant.boot, "since": healthy}).decode())


def kept(state: State, instant: Instant) -> dict[Instance, Since]:
    """Return what was healthy when the agent was stopped in this boot; after a reboot nothing is."""
    text = state.setting("healthy")
    found: dict[Instance, Since] = {}
    try:
        top = Fields.parse(text.encode(), "healthy") if text else None
        if top is None or top.text("boot") != instant.boot:
            return {}
        times = top.one("since", lambda all_: {name: all_.time(name) for name in top.mapping("since")})
    except Malformed:
        return {}
    for name, at in (times or {}).items():
        kind, _, rest = name.partition("/")
        entry, _, digest = rest.rpartition("/")
        found[((kind, entry), digest)] = Since("current", at, instant.uptime_ms)
    return found
