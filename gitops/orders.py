"""What people ordered, taken together: who is paused, what is approved. Pure.

The last order about a thing counts, by the time it was given. Orders about a rollout name its number, so that one that
is given late, or replayed, never hits the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from gitops.commands import Command
from placement.rollout_types import Orders

APPROVAL_LASTS: Final = timedelta(days=7)
"""An approved change that comes again later is asked for again."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """Everything that people ordered.

    Attributes:
        frozen: nothing new goes anywhere.
        paused: placements whose changes wait.
        clusters: clusters whose release stays as it is.
        approved: hashes of changes beyond the blast radius.
        rollouts: decision name → what was ordered for its rollouts.
        retries: decision name → id of the newest order to try again what failed.
    """

    frozen: bool = False
    paused: frozenset[str] = frozenset()
    clusters: frozenset[str] = frozenset()
    approved: frozenset[str] = frozenset()
    rollouts: dict[str, Orders] = field(default_factory=dict)
    retries: dict[str, str] = field(default_factory=dict)

    def of(self, name: str, number: int) -> Orders:
        """Return what concerns one decision while its rollout has that number."""
        found = self.rollouts.get(name, Orders())
        halted = self.frozen or name in self.paused or (name, number) in self._stopped
        return Orders(halted, found.resumed, found.aborted, found.retried, found.approved)

    _stopped: frozenset[tuple[str, int]] = frozenset()


def ordered(commands: Iterable[Command], now: datetime) -> Ordered:
    """Return what all commands together come to.

    Args:
        commands: in any order, each once.
        now: approvals that are too old are not looked at.
    """
    frozen = False
    paused: dict[str, bool] = {}
    stopped: dict[tuple[str, int], bool] = {}
    resumed: dict[str, dict[int, datetime]] = {}
    sets: dict[tuple[str, str], set[int]] = {}
    waves: dict[str, set[tuple[int, int]]] = {}
    approved: set[str] = set()
    retries: dict[str, str] = {}
    for one in sorted(commands, key=lambda command: (command.at, command.id)):
        sort, _, name = one.object.partition("/")
        number, wave = _numbers(one.argument)
        if sort == "fleet":
            if one.verb in ("freeze", "thaw"):
                frozen = one.verb == "freeze"
            elif one.verb == "approve" and now - one.at <= APPROVAL_LASTS:
                approved.add(one.argument)
        elif sort in ("placement", "cluster") and one.verb in ("pause", "resume"):
            paused[one.object] = one.verb == "pause"
        elif sort == "rollout":
            if one.verb in ("pause", "resume"):
                stopped[name, number] = one.verb == "pause"
            if one.verb == "resume":
                resumed.setdefault(name, {})[number] = one.at
            elif one.verb in ("abort", "retry"):
                sets.setdefault((name, one.verb), set()).add(number)
            elif one.verb == "approve":
                waves.setdefault(name, set()).add((number, wave))
            if one.verb == "retry":
                retries[name] = one.id
    names = {name for name, _ in sets} | waves.keys() | resumed.keys()
    return Ordered(
        frozen=frozen,
        paused=frozenset(one.removeprefix("placement/") for one, yes in paused.items() if yes and "placement/" in one),
        clusters=frozenset(one.removeprefix("cluster/") for one, yes in paused.items() if yes and "cluster/" in one),
        approved=frozenset(approved),
        rollouts={
            name: Orders(
                resumed=resumed.get(name, {}),
                aborted=frozenset(sets.get((name, "abort"), ())),
                retried=frozenset(sets.get((name, "retry"), ())),
                approved=frozenset(waves.get(name, ())),
            )
            for name in sorted(names)
        },
        retries=retries,
        _stopped=frozenset(key for key, yes in stopped.items() if yes),
    )


def _numbers(argument: str) -> tuple[int, int]:
    """Read ``NUMBER`` or ``NUMBER/WAVE``; what is neither concerns no rollout."""
    number, _, wave = argument.partition("/")
    return tuple(int(one) if one.isascii() and one.isdecimal() else -1 for one in (number, wave))  # type: ignore[return-value]  # two of them
