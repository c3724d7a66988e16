"""Preferences of a policy → candidates in groups of one score, the best first. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from placement.index import FleetIndex
from placement.scene import Scene
from placement.taints import untolerated
from placement.terms import admit
from placement.types import Policy, Subject, Term

AVOIDED = -100
"""What each PreferNoSelect taint that is not tolerated adds."""

Groups = tuple[tuple[int, int], ...]
"""Score and bits, the highest score first."""


def groups(
    policy: Policy, subject: Subject, index: FleetIndex, scene: Scene, candidates: int, now: datetime,
    *, by_labels: bool = False,
) -> Groups:  # fmt: skip
    """Return the candidates by score: the sum of the weights of what they match.

    Args:
        candidates: bits.
        by_labels: leave facts, and expressions that may read them, out of the preferences: what changes by itself
            moves nothing.
    """
    scores = {0: candidates}
    for weight, matching in _weights(policy, subject, index, scene, now, by_labels):
        split: dict[int, int] = {}
        for score, bits in scores.items():
            for value, part in ((score + weight, bits & matching), (score, bits & ~matching)):
                if part:
                    split[value] = split.get(value, 0) | part
        scores = split
    return tuple(sorted(scores.items(), reverse=True))


def _weights(
    policy: Policy, subject: Subject, index: FleetIndex, scene: Scene, now: datetime, by_labels: bool
) -> Iterator[tuple[int, int]]:
    for one in policy.prefer:
        term = _labels_of(one.term) if by_labels else one.term
        if term is not None:
            yield one.weight, admit((term,), "", subject, index, scene, 0, now).admitted
    for _, bits in untolerated(index, policy.tolerations, "PreferNoSelect"):
        yield AVOIDED, bits


def _labels_of(term: Term) -> Term | None:
    """Return a term without what changes by itself; None where that is all of it."""
    kept = replace(term, facts=(), expression="")
    return kept if kept.requirements or kept.names is not None or kept.runs_workload else None
