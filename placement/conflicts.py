"""Two policies that claim the same model on the same cluster: the higher priority keeps it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from placement.types import ClusterSet, Decision, Policy


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


def rank(policy: Policy) -> tuple[int, str]:
    """Return what policies are sorted by to see who comes first: the higher priority, then the name."""
    return -policy.priority, policy.name


def holder_text(policy: Policy, holder: Policy) -> str:
    """Return why a policy does not get what another one holds."""
    if holder.priority == policy.priority:
        return f"placement {holder.name} claims it with the same priority {policy.priority}"
    return f"placement {holder.name} has it, priority {holder.priority} over {policy.priority}"


def clashes(decision: Decision, held: Sequence[Decision]) -> Iterator[Clash]:
    """Yield the clusters that a decision would have had, were they not held with the same priority.

    Args:
        decision: by which those clusters are refused for the priority.
        held: decisions for the same subject that came first.
    """
    refused = 0
    for one in decision.refused:
        refused |= one.clusters.bits if one.code == "priority" else 0
    for holder in held:
        both = refused & holder.chosen.bits
        if both and holder.policy.priority == decision.policy.priority:
            yield Clash(holder.policy.name, decision.policy.name, ClusterSet(decision.chosen.index, both))
