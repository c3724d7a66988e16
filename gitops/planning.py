"""A step → what publishing would change in the end: who gains, loses and changes what, why, and what it costs. Pure.

A step moves only those whose turn it is; people who merge a change want to know where it ends.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.wire.canonical import canonical
from gitops.changes import Move, Published
from gitops.hub import Step
from gitops.render.entries import Rendered
from gitops.rolling import rollout_of, to_rollout
from placement.rollout_types import RolloutPolicy
from placement.types import Decision

Before = Callable[[str, str, str, str], Rendered | None]
"""(entry digest, cluster that has it, kind, name) → the entry as it is published; None where it cannot be read."""

LINKS = (("512 kbit/s", 512_000), ("2 Mbit/s", 2_000_000), ("10 Mbit/s", 10_000_000), ("100 Mbit/s", 100_000_000))
_MOST_DIFF_LINES = 60


@dataclass(frozen=True, slots=True)
class Batch:
    """Clusters on which the same happens for the same reason.

    Attributes:
        kind, name: of the entry.
        before, after: versions; empty for not there.
        placement: decision that says so; empty where none does any more.
        why: one sentence.
        clusters: sorted.
        bytes_each: artifact bytes that a cluster has to fetch, without those it has already; the most of any.
        bytes_all: of all clusters together.
        diff: rendered difference, unified; empty where something comes or goes as a whole.
        rollout: how it goes over them, in words.
    """

    kind: str
    name: str
    before: str
    after: str
    placement: str
    why: str
    clusters: tuple[str, ...]
    bytes_each: int
    bytes_all: int
    diff: str
    rollout: str

    @property
    def what(self) -> str:
        """``gain``, ``lose`` or ``change``."""
        return "gain" if not self.before else "change" if self.after else "lose"


@dataclass(frozen=True, slots=True)
class Plan:
    """What publishing would come to.

    Attributes:
        moves: entry by entry, in the end.
        now: those of them that the very next step does.
        batches: the moves, by what happens and why.
        fetched: cluster → bytes it has to fetch in the end.
        tight: cluster → (free bytes by its fact, bytes to fetch), where that leaves less than a tenth.
        unknown_disk: of so many clusters that have to fetch, the free space is not known.
        pending: what waits for approval, in one sentence; empty for nothing.
        approval: the hash that approves it; empty for nothing.
        held: what is held back otherwise, one line each.
    """

    moves: tuple[Move, ...]
    now: tuple[Move, ...]
    batches: tuple[Batch, ...]
    fetched: Mapping[str, int] = field(default_factory=dict)
    tight: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    unknown_disk: int = 0
    pending: str = ""
    approval: str = ""
    held: tuple[str, ...] = ()

    def clusters(self, what: str) -> frozenset[str]:
        """Return the clusters that ``gain``, ``lose`` or ``change`` something."""
        return frozenset(name for one in self.batches if one.what == what for name in one.clusters)

    def as_json(self) -> dict[str, Any]:
        """Return the whole plan as JSON."""
        now = set(self.now)
        return {
            "moves": [
                {
                    "cluster": one.cluster,
                    "kind": one.kind,
                    "name": one.name,
                    "from": one.before,
                    "to": one.after,
                    "fromDigest": one.before_digest,
                    "toDigest": one.after_digest,
                    "now": one in now,
                }
                for one in self.moves
            ],
            "batches": [
                {
                    "what": one.what,
                    "kind": one.kind,
                    "name": one.name,
                    "from": one.before,
                    "to": one.after,
                    "placement": one.placement,
                    "why": one.why,
                    "clusters": list(one.clusters),
                    "bytesEach": one.bytes_each,
                    "bytesAll": one.bytes_all,
                    "rollout": one.rollout,
                    "diff": one.diff,
                }
                for one in self.batches
            ],
            "bytes": {"all": sum(self.fetched.values()), "most": max(self.fetched.values(), default=0)},
            "hours": {name: round(hours(self, rate), 2) for name, rate in LINKS},
            "tightDisks": {name: {"free": free, "fetch": fetch} for name, (free, fetch) in self.tight.items()},
            "unknownDisks": self.unknown_disk,
            "pending": self.pending,
            "approval": self.approval,
        }


def hours(plan: Plan, bits_a_second: int) -> float:
    """Return how long the cluster with the most to fetch does so on a link of its own."""
    return max(plan.fetched.values(), default=0) * 8 / bits_a_second / 3600


def plan_of_step(
    step: Step,
    published: Mapping[str, Published],
    before: Before | None = None,
    free: Mapping[str, int] | None = None,
    held: Sequence[str] = (),
) -> Plan:
    """Return what a step leads to in the end.

    Args:
        step: decided, not published.
        published: cluster → its release as it stands.
        before: gives published entries, for differences and what is there already; None for neither.
        free: cluster → free bytes on its disk, where that is known.
        held: lines about what is held back.
    """
    moves, owners, after = _moves(step, published)
    grouped: dict[tuple[str, ...], list[Move]] = {}
    for move in moves:
        owner = owners.get((move.cluster, move.kind, move.name), "")
        why = _why(move, owner, step.taken.checked.decisions)
        key = (move.kind, move.name, move.before_digest, move.after_digest, owner, why)
        grouped.setdefault(key, []).append(move)
    batches = []
    fetched: dict[str, int] = {}
    for (kind, name, old_digest, new_digest, owner, why), some in sorted(grouped.items()):
        first = some[0]
        old = before(old_digest, first.cluster, kind, name) if before is not None and old_digest else None
        new = after.get(new_digest)
        each = _bytes(new, old)
        for move in some:
            if each:
                fetched[move.cluster] = fetched.get(move.cluster, 0) + each
        batches.append(
            Batch(
                kind,
                name,
                first.before,
                first.after,
                owner,
                why if old is None or new is None else _differs(old, new),
                tuple(move.cluster for move in some),
                each,
                each * len(some),
                "" if old is None or new is None else _diff(old, new),
                _rollout(step, owner),
            )
        )
    batches.sort(key=lambda one: (("lose", "change", "gain").index(one.what), one.kind, one.name, one.clusters))
    known = free or {}
    return Plan(
        tuple(moves),
        tuple(step.moves),
        tuple(batches),
        fetched,
        {n: (known[n], size) for n, size in sorted(fetched.items()) if n in known and known[n] - size < known[n] // 10},
        sum(name not in known for name in fetched),
        step.guarded.sentence(),
        step.guarded.hash,
        tuple(held),
    )


def _moves(
    step: Step, published: Mapping[str, Published]
) -> tuple[list[Move], dict[tuple[str, str, str], str], dict[str, Rendered]]:
    """Return every move in the end, which decision gives the entry, and entry digest → entry."""
    lists: dict[str, dict[tuple[str, str], tuple[str, str]]] = {name: {} for name in step.taken.catalog.clusters}
    owners: dict[tuple[str, str, str], str] = {}
    after: dict[str, Rendered] = {}
    for group in step.targets:
        entry = group.rendered.entry
        after[entry.digest] = group.rendered
        key, value = (entry.kind, entry.name), (entry.version, entry.digest)
        for name in group.clusters:
            lists[name][key] = value
            owners[name, entry.kind, entry.name] = group.decision
    moves = []
    for name in sorted(lists.keys() | published.keys()):
        if name in step.kept:
            continue
        old = published[name].entries if name in published else {}
        new = lists.get(name, {})
        if old == new:
            continue
        for kind, subject in sorted(old.keys() | new.keys()):
            was, becomes = old.get((kind, subject), ("", "")), new.get((kind, subject), ("", ""))
            if was != becomes:
                moves.append(Move(name, kind, subject, was[0], becomes[0], was[1], becomes[1]))
    return moves, owners, after


def _why(move: Move, owner: str, decisions: Mapping[str, Decision]) -> str:
    if not move.before:
        return f"placement {owner} chooses it"
    if move.after:
        return f"placement {owner}" if move.before == move.after else f"placement {owner} resolves to {move.after}"
    for name, one in sorted(decisions.items()):
        if (one.policy.kind, one.policy.subject) == (move.kind, move.name):
            for refusal in one.refused:
                if move.cluster in refusal.clusters:
                    return f"placement {name} does not choose it: {refusal.text}"
    return "no placement names it any more, or the cluster's document is gone"


def _differs(old: Rendered, new: Rendered) -> str:
    """Return which parts of an entry differ."""
    one, other = old.entry, new.entry
    parts = []
    for name, was, becomes in (
        ("version", one.version, other.version),
        ("artifact", [a.digest for a in one.artifacts], [a.digest for a in other.artifacts]),
        ("image", one.images, other.images),
        ("runtime", one.runtime, other.runtime),
        ("values", dict(one.values), dict(other.values)),
        ("models used", one.models, other.models),
        ("self-test", one.self_test, other.self_test),
        ("manifests", _manifests(old), _manifests(new)),
    ):
        if was != becomes:
            parts.append(name)
    return f"{', '.join(parts) or 'how it is rendered'} changed"


def _manifests(one: Rendered) -> dict[str, bytes]:
    return {path: one.files[path] for path in one.manifests}


def _diff(old: Rendered, new: Rendered) -> str:
    lines: list[str] = []
    sides = []
    for one in (old, new):
        files = {path: data.decode(errors="replace") for path, data in one.files.items()}
        sides.append({**files, "entry": _text(one)})
    for path in sorted(sides[0].keys() | sides[1].keys()):
        was, becomes = (side.get(path, "").splitlines() for side in sides)
        if was != becomes:
            lines += list(difflib.unified_diff(was, becomes, f"a/{path}", f"b/{path}", lineterm="", n=1))
    more = len(lines) - _MOST_DIFF_LINES
    return "\n".join(lines[:_MOST_DIFF_LINES] + ([f"… and {more} more lines"] if more > 0 else []))


def _text(one: Rendered) -> str:
    """Return an entry one field a line, without what only names it."""
    shown = {key: value for key, value in one.encoded.items() if key not in ("entryDigest", "placement")}
    return canonical(shown).decode().replace(',"', ',\n"')


def _bytes(new: Rendered | None, old: Rendered | None) -> int:
    here = {one.digest for one in old.entry.artifacts} if old is not None else set()
    return sum(one.size_bytes for one in new.entry.artifacts if one.digest not in here) if new is not None else 0


def _rollout(step: Step, owner: str) -> str:
    spec = rollout_of(step.taken.catalog, owner) if owner else None
    return "at once" if spec is None else words(to_rollout(spec))


def words(policy: RolloutPolicy) -> str:
    """Return a rollout in one line."""
    parts = [" → ".join(wave.name + (" (asks)" if wave.approve else "") for wave in policy.waves)]
    if policy.max_concurrent is not None:
        parts.append(f"{policy.max_concurrent.value}{'%' if policy.max_concurrent.percent else ''} at once")
    if policy.soak_s:
        parts.append(f"soak {policy.soak_s / 60:g} min")
    return ", ".join(parts)
