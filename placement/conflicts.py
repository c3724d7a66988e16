"""Two policies that claim the same model on the same cluster: the higher priority keeps it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from placement.types import ClusterSet, Decision, Policy, Refusal


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

    A policy with a ``count`` takes the next clusters that fit for those that it loses.

    Args:
        decisions: in any order, all over the same index.

    Returns:
        The decisions in the order given. The clusters of a clash go to the first name, so that the result is whole.
    """
    ranked = sorted(decisions, key=lambda one: rank(one.policy))
    holders: dict[tuple[str, str], list[Decision]] = {}
    settled: dict[str, Decision] = {}
    clashes: list[Clash] = []
    for decision in ranked:
        held = holders.setdefault((decision.policy.kind, decision.policy.subject), [])
        clashes += _clashes(decision, held)
        yielded = _yielded(decision, held)
        held.append(yielded)
        settled[decision.policy.name] = yielded
    return Settled(tuple(settled[one.policy.name] for one in decisions), tuple(clashes))


def rank(policy: Policy) -> tuple[int, str]:
    """Return what policies are sorted by to see who comes first: the higher priority, then the name."""
    return -policy.priority, policy.name


def _clashes(decision: Decision, held: Sequence[Decision]) -> list[Clash]:
    found = []
    for holder in held:
        both = decision.chosen.bits & holder.chosen.bits
        if both and holder.policy.priority == decision.policy.priority:
            clusters = ClusterSet(decision.chosen.index, both)
            found.append(Clash(holder.policy.name, decision.policy.name, clusters))
    return found


def _yielded(decision: Decision, held: Sequence[Decision]) -> Decision:
    """Return the decision without what others hold already."""
    policy, index = decision.policy, decision.chosen.index
    kept, lost, taken = decision.chosen.bits, [], 0
    for holder in held:
        taken |= holder.chosen.bits
        both = kept & holder.chosen.bits
        if both:
            kept &= ~both
            lost.append(Refusal("priority", _why(policy, holder.policy), ClusterSet(index, both)))
    if not lost:
        return decision
    refused = decision.refused
    if policy.count is not None:
        # Who lost only for the count steps in; who is held by others stays under the count.
        waiting = next((one.clusters.bits for one in refused if one.code == "count"), 0)
        stepping = index.first(waiting & ~taken, policy.count - kept.bit_count())
        kept |= stepping
        refused = tuple(
            replace(one, clusters=ClusterSet(index, one.clusters.bits & ~stepping)) if one.code == "count" else one
            for one in refused
        )
        refused = tuple(one for one in refused if one.clusters.bits)
    short = 0 if policy.count is None else policy.count - kept.bit_count()
    return replace(decision, chosen=ClusterSet(index, kept), refused=(*refused, *lost), short=short)


def _why(policy: Policy, holder: Policy) -> str:
    if holder.priority == policy.priority:
        return f"placement {holder.name} claims it with the same priority {policy.priority}"
    return f"placement {holder.name} has it, priority {holder.priority} over {policy.priority}"
