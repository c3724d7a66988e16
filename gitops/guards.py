"""What a step may not do by itself: too much at once, what is protected, and what people have stopped. Pure.

A guarded move does not happen: its cluster keeps the entry that it has. Everything else of the step goes on, the
return from a bad version above all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gitops.changes import Move, Published
from gitops.orders import Ordered

FREE: Final = 5
"""A change that touches no more clusters than these is never too much at once."""

Why = Literal["radius", "protected", "frozen", "paused"]


@dataclass(frozen=True, slots=True)
class Guarded:
    """What is held back, and why.

    Attributes:
        moves: that do not happen, with the reason.
        hash: what an approval must name, where the blast radius is exceeded; empty for not.
        removals, changes: how many entries would go, or change outside waves.
        clusters: how many clusters that touches.
        limit: so many entries may.
    """

    moves: Mapping[Move, Why]
    hash: str = ""
    removals: int = 0
    changes: int = 0
    clusters: int = 0
    limit: int = 0

    def sentence(self) -> str:
        """Return why the fleet keeps its state, in one sentence; empty where nothing waits for approval."""
        if not self.hash:
            return ""
        return (
            f"blast radius: {self.removals} removals and {self.changes} changes outside waves on {self.clusters}"
            f" clusters, {self.limit} allowed: `edgeferry rollout approve {self.hash}`"
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What the guards go by.

    Attributes:
        staged: decisions whose changes go by waves.
        reverted: decisions that go back.
        protected: ``model/NAME`` and ``workload/NAME`` that may not be removed.
        documents: ``Kind/NAME`` of everything that may not be deleted.
        leaving: clusters whose document is gone and that keep what they run.
        percent: of the fleet's entries; None where ``most`` is an absolute number.
        most: entries.
        approved: hashes that people approved, by a command or in a commit.
    """

    staged: Collection[str]
    reverted: Collection[str]
    protected: Collection[str]
    documents: frozenset[str]
    leaving: Collection[str]
    percent: int | None
    most: int
    approved: Collection[str]


def guard(
    moves: Sequence[Move],
    owners: Mapping[tuple[str, str, str], str],
    published: Mapping[str, Published],
    ordered: Ordered,
    limits: Limits,
) -> Guarded:
    """Return what may not happen.

    Args:
        moves: everything that the step would do.
        owners: (cluster, kind, name) → decision that gives the entry after the move.
        published: cluster → its release, for the number of entries in all.
        ordered: what people ordered.
        limits: the fleet's settings, and what is known of the decisions.
    """
    held: dict[Move, Why] = {}
    counted: list[Move] = []
    for move in moves:
        owner = owners.get((move.cluster, move.kind, move.name), "")
        if owner in limits.reverted:
            continue
        away = not move.after and move.cluster not in limits.leaving
        if away and f"{move.kind}/{move.name}" in limits.protected:
            held[move] = "protected"
        elif ordered.frozen:
            held[move] = "frozen"
        elif owner in ordered.paused:
            held[move] = "paused"
        elif not move.after or (move.before and owner not in limits.staged):
            counted.append(move)
    clusters = {move.cluster for move in counted}
    total = sum(len(one.entries) for one in published.values())
    limit = limits.most if limits.percent is None else total * limits.percent // 100
    if len(counted) <= limit or len(clusters) <= FREE:
        return Guarded(held)
    name = change_hash(counted)
    if name in limits.approved:
        return Guarded(held)
    held.update(dict.fromkeys(counted, "radius"))
    removals = sum(not move.after for move in counted)
    return Guarded(held, name, removals, len(counted) - removals, len(clusters), limit)


def change_hash(moves: Sequence[Move]) -> str:
    """Return what stands for these moves: cluster, name, from and to of each, and nothing else."""
    lines = sorted(
        f"{move.cluster} {move.kind}/{move.name} {move.before_digest or '-'} {move.after_digest or '-'}\n"
        for move in moves
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
