"""Two policies that claim the same model on the same cluster: the higher priority keeps it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from placement.types import ClusterSet, Decision, Refusal


@dataclass(frozen=True, slots=True)
class Clash:
    """Two policies of equal priority that claim the same; a fault of the commit.

    Attributes:
        first: name of one policy.
        second: name of the other, later by name.
        clusters: where both claim it.
    """

    first: str
    second: str
    clusters: ClusterSet


@dataclass(frozen=True, slots=True)
class Settled:
    """Decisions of which no two give a cluster the same subject, and the clashes that are left out of them."""

    decisions: tuple[Decision, ...]
    clashes: tuple[Clash, ...]


def settle(decisions: Sequence[Decision]) -> Settled:
    """Give every cluster to the policy with the highest priority among those that claim the same subject.

    Args:
        decisions: in any order, all over the same index.

    Returns:
        The decisions in the order given. The clusters of a clash go to the first name, so that the result is whole.
    """
    ranked = sorted(decisions, key=lambda one: (-one.policy.priority, one.policy.name))
    holders: dict[tuple[str, str], list[Decision]] = {}
    settled: dict[str, Decision] = {}
    clashes: list[Clash] = []
    for decision in ranked:
        policy = decision.policy
        held = holders.setdefault((policy.kind, policy.subject), [])
        for winner in held:
            both = decision.chosen.bits & winner.chosen.bits
            if not both:
                continue
            clusters = ClusterSet(decision.chosen.index, both)
            if winner.policy.priority == policy.priority:
                clashes.append(Clash(winner.policy.name, policy.name, clusters))
            text = f"priority: placement {winner.policy.name} has it ({winner.policy.priority} over {policy.priority})"
            decision = replace(
                decision,
                chosen=ClusterSet(clusters.index, decision.chosen.bits & ~both),
                refused=(*decision.refused, Refusal("priority", text, clusters)),
            )
        held.append(decision)
        settled[policy.name] = decision
    return Settled(tuple(settled[one.policy.name] for one in decisions), tuple(clashes))
