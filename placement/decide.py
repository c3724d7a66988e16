"""One policy and the fleet → a decision: who is chosen, and a reason for every other. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from placement.index import ARCH, PLATFORM, FleetIndex
from placement.selector import select
from placement.types import ClusterSet, Decision, Policy, Refusal, Subject, Term
from placement.versions import parse_wish, resolve

NOT_ON_HOSTS: Final = frozenset({"container", "chart"})
"""Deliveries that need Kubernetes."""

Previous = Decision | Collection[str] | None
"""The last decision, or only the names that it chose; None at first."""


def decide(policy: Policy, subject: Subject, index: FleetIndex, previous: Previous, now: datetime) -> Decision:
    """Choose the clusters for one policy and say why every other lost.

    A cluster chosen before that still passes keeps its place; free places go to the first names.

    Args:
        policy: already checked against the catalog.
        subject: the model or workload that it places.
        index: all clusters of the fleet.
        previous: the last decision of this policy.
        now: for times in policies, timezone-aware.

    Returns:
        Every cluster exactly once: in ``chosen``, or under one reason in ``refused``.

    Source: filter, score, select after Open Cluster Management (docs/adr/0003-placement.md).
    """
    del now  # no policy of this version depends on time; the place is kept for facts and tolerations
    version, fault = resolve(parse_wish(policy.version), subject)
    if fault:
        everybody = Refusal("version", fault, ClusterSet(index, index.everything))
        return Decision(policy, "", ClusterSet(index, 0), (everybody,), policy.count or 0, fault)
    incumbents = _incumbents(previous, index)
    candidates, refused = _filter(policy, subject, index, incumbents)
    chosen = _select(policy, index, candidates, incumbents)
    if candidates != chosen:
        text = f"{candidates.bit_count()} fit, {policy.count} wanted"
        refused.append(Refusal("count", text, ClusterSet(index, candidates & ~chosen)))
    short = 0 if policy.count is None else max(0, policy.count - chosen.bit_count())
    return Decision(policy, version, ClusterSet(index, chosen), tuple(refused), short)


def _incumbents(previous: Previous, index: FleetIndex) -> int:
    if previous is None:
        return 0
    if not isinstance(previous, Decision):
        return index.bits(previous)
    if previous.chosen.index.ordered is index.ordered:
        return previous.chosen.bits
    return index.bits(previous.chosen)


def _filter(policy: Policy, subject: Subject, index: FleetIndex, incumbents: int) -> tuple[int, list[Refusal]]:
    """Return the clusters that may have it, and a refusal for every other."""
    candidates = select(policy.terms, index)
    refused: list[Refusal] = []

    def refuse(code: str, text: str, bits: int) -> None:
        nonlocal candidates
        if bits:
            refused.append(Refusal(code, text, ClusterSet(index, bits)))
            candidates &= ~bits

    others = index.everything & ~candidates
    if others:
        code = "names" if policy.terms and all(not term.requirements for term in policy.terms) else "labels"
        refused.append(Refusal(code, f"wanted {wanted(policy)}", ClusterSet(index, others)))
    if subject.delivery in NOT_ON_HOSTS:
        hosts = dict(index.known(PLATFORM)).get("host", 0)
        refuse("delivery", f"platform host runs no {subject.delivery}s", candidates & hosts)
    if subject.arch:
        arches = ", ".join(sorted(subject.arch))
        unknown = candidates & ~incumbents
        for arch, bits in index.known(ARCH):
            unknown &= ~bits
            if arch not in subject.arch:
                refuse("arch", f"arch {arch}, wanted {arches}", candidates & bits)
        refuse("arch", f"arch is not known yet, wanted {arches}", unknown & candidates)
    return candidates, refused


def _select(policy: Policy, index: FleetIndex, candidates: int, incumbents: int) -> int:
    """Return the chosen: incumbents first, then the first names."""
    if policy.count is None or candidates.bit_count() <= policy.count:
        return candidates
    kept = index.first(candidates & incumbents, policy.count)
    return kept | index.first(candidates & ~kept, policy.count - kept.bit_count())


def wanted(policy: Policy) -> str:
    """Return what a policy's terms ask for, in one line."""
    if policy.terms is None:
        return "any cluster"
    if not policy.terms:
        return "no cluster"
    return _some([wanted_by(term) for term in policy.terms], " or ")


def wanted_by(term: Term) -> str:
    """Return what one term asks for, in one line."""
    parts = [] if term.names is None else [f"named {_some(sorted(term.names), ', ')}"]
    for one in term.requirements:
        match one.operator:
            case "In":
                parts.append(f"{one.key}={_some(one.values, '|')}")
            case "NotIn":
                parts.append(f"{one.key}!={_some(one.values, '|')}")
            case "Exists":
                parts.append(f"{one.key} exists")
            case "DoesNotExist":
                parts.append(f"no {one.key}")
    return " and ".join(parts) or "any cluster"


def _some(items: Sequence[str], joint: str) -> str:
    return joint.join(items[:5]) + (f"{joint}{len(items) - 5} more" if len(items) > 5 else "")
