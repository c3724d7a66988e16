"""A workload that goes where its models go (``sameAs``). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from placement.types import ClusterSet, Decision, Policy, Refusal, Subject
from placement.versions import parse_wish, resolve


def follow(
    name: str, subject: Subject, version: str, models: Sequence[str], leader: Decision, decisions: Sequence[Decision]
) -> Decision:
    """Place a workload on the clusters of ``leader`` where all the models that it uses are placed.

    Args:
        name: of the resulting decision.
        subject: the workload.
        version: what is wanted of it, as in a placement.
        models: names of the models that it uses.
        leader: the decision of the placement that it follows.
        decisions: all decisions of this step, settled.

    Returns:
        Every cluster exactly once, as ``decide`` does.
    """
    index = leader.chosen.index
    policy = Policy(name, "workload", subject.name, version)
    chosen_version, fault = resolve(parse_wish(version), subject)
    if fault:
        everybody = Refusal("version", fault, ClusterSet(index, index.everything))
        return Decision(policy, "", ClusterSet(index, 0), (everybody,), 0, fault)
    chosen = leader.chosen.bits
    refused = []
    others = index.everything & ~chosen
    if others:
        refused.append(
            Refusal(
                "follow", f"follows placement {leader.policy.name}, which does not choose it", ClusterSet(index, others)
            )
        )
    for model in models:
        placed = 0
        for decision in decisions:
            if decision.policy.kind == "model" and decision.policy.subject == model:
                placed |= decision.chosen.bits
        missing = chosen & ~placed
        if missing:
            refused.append(Refusal("models", f"model {model} is not placed there", ClusterSet(index, missing)))
            chosen &= placed
    return Decision(policy, chosen_version, ClusterSet(index, chosen), tuple(refused))
