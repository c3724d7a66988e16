"""When facts that contradict a chosen cluster's place remove it. Pure.

Only measurements count, not silence: the contradiction must have been measured, and measured again that much later.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from placement.index import FleetIndex
from placement.postings import numbers_of
from placement.standing import Standing
from placement.terms import Admission, shown_span
from placement.types import Policy, Target


def evicted(
    policy: Policy, after_s: float, said: Admission, before: Standing, index: FleetIndex, now: datetime
) -> tuple[dict[str, datetime], list[tuple[str, int]]]:
    """Return since when which clusters are contradicted, and whom that removes, with the reason.

    A fact that holds again takes the contradiction back; one that is absent or stale leaves it where it was.
    """
    since: dict[str, datetime] = {}
    out = 0
    for name, at in before.contradicted.items():
        number = index.numbers.get(name)
        if number is not None and said.kept >> number & 1:
            since[name] = at
    for number in numbers_of(said.contradicted):
        target = index.measures.targets[number]
        newest = _measured(policy, target, now)
        first = since.setdefault(target.name, newest)
        if (newest - first).total_seconds() >= after_s:
            out |= 1 << number
            del since[target.name]
    text = f"its facts contradict the placement for {shown_span(after_s)} and more"
    return since, [(text, out)] if out else []


def _measured(policy: Policy, target: Target, now: datetime) -> datetime:
    """Return when the newest of the facts that the policy looks at was measured; a label's are of now."""
    return max(_times(policy, target, now), default=now)


def _times(policy: Policy, target: Target, now: datetime) -> Iterator[datetime]:
    reads_all = any("facts" in term.expression for term in policy.terms or ())
    names = {test.name for term in policy.terms or () for test in term.facts}
    for name, (_, at) in target.facts.items():
        if reads_all or name in names:
            yield now if at is None else min(at, now)
