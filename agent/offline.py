"""How long this site has heard nothing, and what it is then to do."""

from __future__ import annotations

import json
from datetime import datetime

from agent.clock import Instant
from agent.state import State
from agent.steps import Desired
from agent.wire.errors import Malformed, Wait
from agent.wire.fields import parse_time, write_time
from agent.wire.release import MaxOffline, Release


class OfflineTooLong(Wait):
    """The site has heard nothing for longer than its cluster document allows."""

    code = "EF4445"


def offline_too_long(state: State, release: Release | None, instant: Instant) -> OfflineTooLong | None:
    """Return that the release in force has not been confirmed for longer than it allows; None where it may go on.

    The age counts from the last time that overlays could be asked for, by the site's clock and its floor: a clock that
    is behind makes it younger, never older, so that a broken clock stops nothing.

    Args:
        state: of the agent, with the last contact.
        release: in force.
        instant: now.
    """
    limit = release.max_offline if release is not None else None
    if limit is None:
        return None
    try:
        since = parse_time(kept_contact(state)[0] or state.setting("clockPublished"), "contact")
    except Malformed:
        return None
    age_s = (instant.now - since).total_seconds()
    if age_s <= limit.age_s:
        return None
    what = "what ran here is stopped" if limit.action == "stop" else "what runs goes on"
    said = f"nothing was heard for {int(age_s) // 3600} h, {limit.age_s // 3600} h are allowed: {what}"
    return OfflineTooLong(said, do="bring the link back, or carry a newer release here")


def stopped(desired: Desired | None, limit: MaxOffline | None) -> Desired | None:
    """Return what is asked for of a site that has been offline for too long."""
    if desired is None or desired.retire or limit is None or limit.action != "stop":
        return desired
    return Desired()


def keep_contact(state: State, at: datetime | None, why: str) -> None:
    """Keep when overlays could be asked for last, and why they cannot be now.

    Args:
        state: where.
        at: None: the last time stays.
        why: empty while they can.
    """
    before, _ = kept_contact(state)
    state.set(contact=json.dumps({"at": before if at is None else write_time(at), "why": why}))


def kept_contact(state: State) -> tuple[str, str]:
    """Return the time and the reason that ``keep_contact`` kept; empty for none."""
    value = json.loads(state.setting("contact") or "{}")
    return value.get("at", ""), value.get("why", "")
