"""Leaving a fleet: what runs is removed or left as it is, and what proves the membership goes last."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent import durable
from agent.assembly import Agent, assembled
from agent.clock import read_wall
from agent.layout import (
    CLIENT_CERTIFICATE,
    CLIENT_KEY,
    CONFIG,
    CONTENT,
    CREDENTIAL,
    FLEET_GIT,
    HUB_AUTHORITY,
    KEY,
    REGISTRIES,
    TRUST,
)
from agent.reconcile import cycle
from agent.wire.errors import Retry

_PROOFS: Final = (CREDENTIAL, CLIENT_CERTIFICATE, CLIENT_KEY, HUB_AUTHORITY, REGISTRIES, KEY)
_MOST_S: Final = 120.0


class NotRemoved(Retry):
    """What runs here could not be removed; this site is still of its fleet."""

    code = "EF4425"


def leave(root: Path, *, remove: bool) -> tuple[str, ...]:
    """End the membership of a state directory; interrupted, it is simply done again.

    Args:
        root: the state directory.
        remove: stop and remove everything of ours; else it goes on as it is, kept up by nobody.

    Returns:
        ``kind/NAME`` of what was removed.

    Raises:
        StateInUse: an agent runs there.
        NotRemoved: something could not be removed.
    """
    removed: tuple[str, ...] = ()
    with assembled(root) as agent:
        if remove:
            removed = _remove_all(agent)
    for name in (*_PROOFS, CONFIG):  # the settings last: until then it can be done again
        (root / name).unlink(missing_ok=True)
    shutil.rmtree(root / TRUST, ignore_errors=True)
    if remove:
        for name in (CONTENT, FLEET_GIT):
            shutil.rmtree(root / name, ignore_errors=True)
    durable.sync_directory(root)
    return removed


def _remove_all(agent: Agent) -> tuple[str, ...]:
    """Do cycles for a release that asks for nothing until nothing is left."""
    site = agent.site
    before = tuple("/".join(key) for key in sorted(site.book.states))
    if site.force.release is not None:
        site.force = replace(site.force, release=replace(site.force.release, entries=(), retire="delete"))
    end = time.monotonic() + _MOST_S
    while site.book.states or site.fault is not None:
        outcome = cycle(site, None, site.clock.instant(*read_wall()))
        if not site.book.states and site.fault is None:
            break
        if time.monotonic() > end:
            left = ", ".join("/".join(key) for key in sorted(site.book.states))
            raise NotRemoved(
                f"still here: {left or site.fault}", where=str(site.root), do="see `edgeferry-agent status`"
            )
        agent.bell.wait(min(outcome.next_ms, 1000))
    return before
