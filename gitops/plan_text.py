"""What publishing would change, for people: one line a move, grouped by cluster. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gitops.changes import Move
from gitops.hub import Step


def plan_rows(moves: Sequence[Move]) -> list[tuple[str, str, str, str]]:
    """Return (cluster, what, from, to) for every move, in order."""
    return [(one.cluster, f"{one.kind} {one.name}", one.before or "–", _after(one)) for one in moves]


def plan_summary(step: Step) -> str:
    """Return one sentence: how many clusters gain, lose, change."""
    gained = len({one.cluster for one in step.moves if not one.before})
    lost = len({one.cluster for one in step.moves if not one.after})
    changed = len({one.cluster for one in step.moves if one.before and one.after})
    if step.change is None:
        return "Nothing would change."
    others = len(step.changed) - len({one.cluster for one in step.moves})
    more = "; the others get a new release with the same entries" if others > 0 else ""
    return f"Overlays {len(step.changed)}: clusters that gain {gained}, that lose {lost}, that change {changed}{more}."


def plan_held(step: Step) -> list[str]:
    """Return one line for every source that is held back, and for every fault that keeps clusters as they are."""
    lines = [f"source {name} is held back: {held.message}" for name, held in sorted(step.taken.held.items())]
    by_reason: dict[str, list[str]] = {}
    for cluster, reason in sorted(step.kept.items()):
        by_reason.setdefault(reason, []).append(cluster)
    for reason, clusters in sorted(by_reason.items(), key=lambda pair: pair[1]):
        more = f" and {len(clusters) - 3} more" if len(clusters) > 3 else ""
        keeps = "keeps its" if len(clusters) == 1 else "keep their"
        lines.append(f"{', '.join(clusters[:3])}{more} {keeps} release: {reason}")
    return lines


def plan_json(step: Step) -> dict[str, Any]:
    """Return the whole plan as JSON."""
    return {
        "overlays": sorted(step.changed),
        "moves": [
            {
                "cluster": one.cluster,
                "kind": one.kind,
                "name": one.name,
                "from": one.before,
                "to": one.after,
                "fromDigest": one.before_digest,
                "toDigest": one.after_digest,
            }
            for one in step.moves
        ],
        "decisions": {
            name: {
                "subject": f"{record.kind}/{record.subject}",
                "version": record.version,
                "chosen": len(record.chosen),
                "short": record.short,
                "fault": record.fault,
                "refused": {one.text: one.count for one in record.refused},
            }
            for name, record in step.records.items()
        },
        "held": {name: one.message for name, one in step.taken.held.items()},
        "kept": dict(sorted(step.kept.items())),
    }


def _after(move: Move) -> str:
    if not move.after:
        return "removed"
    return move.after if move.before != move.after else f"{move.after} (changed)"
