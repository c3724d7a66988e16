"""What one started cluster has come to, by its word, its silence, and the time. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from placement.rollout_types import Field, Place, Told

DEGRADED_S: Final = 60.0
"""A dip that is shorter is a restart, not a failure: a site that boots is not well for a moment."""


def judge(place: Place, cluster: str, scene: Field) -> tuple[Place, datetime | None]:
    """Return the place as it is now, and when it has to be looked at again though nobody says anything.

    A cluster succeeds when it runs its target and has been ``current`` through the soak. It fails when it says that
    the target failed, or is degraded for longer than a restart takes; or when nothing moved for the deadline, silence
    included. While its window is closed it is not late.

    Args:
        place: of a cluster that was started.
        cluster: its name.
        scene: what is known.
    """
    told, policy, now = scene.told.get(cluster), scene.policy, scene.now
    if told is not None and (told.wanted != place.target or told.received_at < place.at):
        told = None  # it has not taken up the release yet
    if told is None:
        return (place, None) if place.step == "done" else _late(place, cluster, scene, place.moved)
    if place.step == "done" and told.health == "current" and not told.failed:
        return place, None
    heard = max(told.received_at, scene.seen.get(cluster, told.received_at))
    # Measured by one clock each: the edge's until it spoke, ours since then; never longer than it has had the target.
    steady = told.steady_s + (heard - told.received_at).total_seconds()
    steady = min(steady, max(0.0, (heard - place.at).total_seconds()))
    if told.failed:
        return _failed(place, told.why or "it says that it failed"), None
    if told.running == place.target and told.health == "degraded":
        if steady >= DEGRADED_S:
            return _failed(place, told.why or "degraded"), None
        return place if place.step == "done" else _moving(place, told), now + timedelta(seconds=DEGRADED_S - steady)
    if place.step == "done":
        return place, None
    if told.running == place.target and told.health == "current":
        if steady >= policy.soak_s:
            return replace(place, step="done", moved=told.received_at, mark=""), None
        found, due = _late(_moving(place, told), cluster, scene, heard)
        again = now + timedelta(seconds=max(1.0, policy.soak_s - steady))
        return found, again if due is None else min(again, due)
    if place.step == "carried":
        return place, None
    found = _moving(place, told)
    return _late(found, cluster, scene, found.moved)


def waits_for_window(place: Place, cluster: str, scene: Field) -> bool:
    """Tell whether a started cluster has its bytes, or not, and may not switch before its next window."""
    hours = scene.hours.get(cluster)
    if hours is None or hours.open or place.step != "moving":
        return False
    told = scene.told.get(cluster)
    return told is None or told.running != place.target


def _moving(place: Place, told: Told) -> Place:
    """Note that it came further, where it did."""
    mark = f"{told.health} {told.running == place.target:d} {told.staged_bytes}"
    return place if mark == place.mark else replace(place, mark=mark, moved=max(place.at, told.received_at))


def _late(place: Place, cluster: str, scene: Field, idle_from: datetime) -> tuple[Place, datetime | None]:
    if place.step == "carried" or waits_for_window(place, cluster, scene):
        return place, None
    hours = scene.hours.get(cluster)
    if hours is not None:
        idle_from = max(idle_from, hours.since)
    due = idle_from + timedelta(seconds=scene.policy.progress_deadline_s)
    if scene.now < due:
        return place, due
    return _failed(place, f"nothing moved since {idle_from:%Y-%m-%d %H:%M} UTC"), None


def _failed(place: Place, why: str) -> Place:
    return replace(place, step="failed", why=why[:200], mark="")
