"""A workload that goes where its models go (``sameAs``). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from placement.conflicts import holder_text
from placement.types import ClusterSet, Decision, Policy, Refusal, Subject
from placement.versions import parse_wish, resolve


@dataclass(frozen=True, slots=True)
class Follower:
    """A workload that follows a placement.

    Attributes:
        name: of the resulting decision.
        subject: the workload.
        version: what is wanted of it, as in a placement.
        models: names of the models that it uses.
        leaders: names of the policies that it follows: several where one document places several models.
    """

    name: str
    subject: Subject
    version: str
    models: tuple[str, ...]
    leaders: tuple[str, ...]


def follow(
    follower: Follower, leaders: Sequence[Decision], decisions: Sequence[Decision], held: Sequence[Decision] = ()
) -> Decision:
    """Place a workload on the clusters of its leaders where all the models that it uses are placed.

    Args:
        leaders: decisions of the placement that it follows, of models that it uses.
        decisions: all decisions of this step that were made before.
        held: decisions for the same workload that come first.

    Returns:
        Every cluster exactly once, as ``decide`` does.
    """
    index = leaders[0].chosen.index
    subject = follower.subject
    policy = Policy(follower.name, "workload", subject.name, follower.version)
    version, fault = resolve(parse_wish(follower.version), subject)
    if fault:
        everybody = Refusal("version", fault, ClusterSet(index, index.everything))
        return Decision(policy, "", ClusterSet(index, 0), (everybody,) if index.everything else (), 0, fault)
    chosen = 0
    for leader in leaders:
        chosen |= leader.chosen.bits
    refused = []
    others = index.everything & ~chosen
    if others:
        text = f"follows placement {leaders[0].policy.document}, which does not choose it"
        refused.append(Refusal("follow", text, ClusterSet(index, others)))
    for model in follower.models:
        placed = 0
        for decision in decisions:
            if decision.policy.kind == "model" and decision.policy.subject == model:
                placed |= decision.chosen.bits
        missing = chosen & ~placed
        if missing:
            refused.append(Refusal("models", f"model {model} is not placed there", ClusterSet(index, missing)))
            chosen &= placed
    for holder in held:
        both = chosen & holder.chosen.bits
        if both:
            refused.append(Refusal("priority", holder_text(policy, holder.policy), ClusterSet(index, both)))
            chosen &= ~both
    return Decision(policy, version, ClusterSet(index, chosen), tuple(refused))
