"""The course of a simulated rollout, for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gitops.simulated import Behaviour, Course
from placement.rollout_types import RolloutPolicy

Rows = list[tuple[str, ...]]
_MOST = 40


def course_rows(course: Course, policy: RolloutPolicy) -> Rows:
    """Return heads and the rollout at its turning points, and now and then between."""
    rows: Rows = [("AFTER", "STANDS", "MOVING", "DONE", "FAILED", "TO COME")]
    every = max(1, len(course.rows) // _MOST)
    last = None
    for n, row in enumerate(course.rows):
        key = (row.phase, row.wave)
        if key != last or n % every == 0 or n == len(course.rows) - 1:
            name = policy.waves[row.wave].name if row.wave < len(policy.waves) else "all waves"
            stands = f"wave {name}" if row.phase == "rolling" else row.phase
            rows.append((duration(row.at_s), stands, str(row.moving), str(row.done), str(row.failed), str(row.waiting)))
        last = key
    return rows


def summary(course: Course, clusters: int) -> str:
    """Return how it ended, in a few sentences."""
    why = f": {course.state.why}" if course.state.why else ""
    lines = [f"{course.state.phase} after {duration(course.ended_s)}{why}"]
    lines.append(
        f"the new version ever ran on {len(course.started)} of {clusters} clusters and served on {len(course.served)};"
        f" at most {course.most_in_flight} were in flight; {course.commits} fleet commits"
    )
    if course.back_s is not None:
        lines.append(f"the last reachable cluster had its previous version again after {duration(course.back_s)}")
    return "\n".join(lines)


def bad_rows(found: Mapping[Behaviour, Course]) -> Rows:
    """Return heads and one row for every sort of bad version."""
    rows: Rows = [("the new version", "ever ran on", "served on", "reverted after", "all back after", "failures")]
    for name, course in found.items():
        failed = sum(one.step == "failed" for one in course.state.places.values())
        rows.append(
            (
                name,
                str(len(course.started)),
                str(len(course.served)),
                duration(course.ended_s) if course.state.phase == "reverted" else f"not: {course.state.phase}",
                duration(course.back_s),
                str(failed),
            )
        )
    return rows


def markdown(rows: Rows) -> str:
    """Return rows as a Markdown table."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def duration(seconds: float | None) -> str:
    """Return a time in its two largest units."""
    if seconds is None:
        return "never"
    left = round(seconds)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2])
