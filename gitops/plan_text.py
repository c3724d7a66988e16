"""What publishing would change, for people: as text, and as Markdown for a pull request. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gitops.changes import Move
from gitops.hub import Step
from gitops.planning import LINKS, Batch, Plan, hours

_SHOWN = 5


def plan_rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return heads and one row for every batch: what happens, to whom, why, and what it costs."""
    rows: list[tuple[str, ...]] = [("WHAT", "ENTRY", "FROM", "TO", "CLUSTERS", "BYTES", "HOW", "WHY")]
    rows += [
        (
            one.what,
            f"{one.kind} {one.name}",
            one.before or "–",
            _after(one),
            _some(one.clusters),
            size(one.bytes_all) if one.bytes_all else "–",
            one.rollout if one.what != "lose" else "at once",
            one.why,
        )
        for one in plan.batches
    ]
    return rows


def plan_lines(plan: Plan) -> list[str]:
    """Return what is to be said below the table."""
    lines = [*plan.held]
    if plan.fetched:
        lines.append(
            f"to fetch: {size(sum(plan.fetched.values()))} in all, at most {size(max(plan.fetched.values()))} a cluster"
        )
        lines.append("longest on a link of its own: " + ", ".join(f"{_time(hours(plan, r))} at {n}" for n, r in LINKS))
    for name, (free, fetch) in list(plan.tight.items())[:_SHOWN]:
        lines.append(f"{name} has {size(free)} free and has to fetch {size(fetch)}")
    if len(plan.tight) > _SHOWN:
        lines.append(f"… and {len(plan.tight) - _SHOWN} more clusters with little room")
    if plan.pending:
        lines.append(
            f"waits for approval: {plan.pending}, or a line `Edgeferry-Approve: {plan.approval}` in the commit"
        )
    return lines


def plan_total(plan: Plan) -> str:
    """Return one sentence: how many clusters gain, lose, change, and how many of them at once."""
    if not plan.moves:
        return "Nothing would change."
    counts = ", ".join(f"{what} {len(plan.clusters(what))}" for what in ("gain", "lose", "change"))
    first = len({move.cluster for move in plan.now})
    return f"Clusters that {counts}; {first} of them in the first step."


def plan_markdown(plan: Plan) -> str:
    """Return the plan as a comment for a pull request."""
    lines = ["### What merging this changes", "", plan_total(plan), ""]
    rows = plan_rows(plan)
    if len(rows) > 1:
        lines += [f"| {' | '.join(row)} |" for row in rows[:1]]
        lines.append("|" + "---|" * len(rows[0]))
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows[1:]]
        lines.append("")
    lines += [f"- {line}" for line in plan_lines(plan)]
    for one in plan.batches:
        if one.diff:
            title = f"{one.kind} {one.name} {one.before} → {one.after} on {_some(one.clusters)}"
            lines += ["", f"<details><summary>{title}</summary>", "", "```diff", one.diff, "```", "", "</details>"]
    return "\n".join(lines) + "\n"


def plan_summary(step: Step) -> str:
    """Return one sentence: how many clusters a step lets gain, lose, change."""
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
        keeps = "keeps its" if len(clusters) == 1 else "keep their"
        lines.append(f"{_some(clusters)} {keeps} release: {reason}")
    held = {move: why for move, why in step.guarded.moves.items() if why != "radius"}
    for why in sorted(set(held.values())):
        clusters = sorted({move.cluster for move, one in held.items() if one == why})
        lines.append(f"{_some(clusters)} keep what they have: {why}")
    return lines


def plan_json(step: Step) -> dict[str, Any]:
    """Return what a step does, and what was decided, as JSON."""
    return {
        "overlays": sorted(step.changed),
        "moves": [_move(one) for one in step.moves],
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
        "pending": step.guarded.sentence(),
        "approval": step.guarded.hash,
    }


def size(count: int) -> str:
    """Return a number of bytes in its largest unit."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def _move(one: Move) -> dict[str, str]:
    return {
        "cluster": one.cluster,
        "kind": one.kind,
        "name": one.name,
        "from": one.before,
        "to": one.after,
        "fromDigest": one.before_digest,
        "toDigest": one.after_digest,
    }


def _after(one: Batch) -> str:
    if not one.after:
        return "removed"
    return one.after if one.before != one.after else f"{one.after} (changed)"


def _some(clusters: Sequence[str]) -> str:
    names = ", ".join(clusters[:3])
    return f"{names} and {len(clusters) - 3} more" if len(clusters) > 3 else names


def _time(found: float) -> str:
    return f"{found:.1f} h" if found >= 1 else f"{found * 60:.1f} min" if found * 60 >= 1 else f"{found * 3600:.0f} s"
