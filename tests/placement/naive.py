"""Deciding again, cluster by cluster and without an index: what the index must agree with."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from placement.index import ARCH, PLATFORM, known_value
from placement.selector import matches
from placement.types import Decision, Policy, Subject, Target
from placement.versions import parse_wish, resolve


def decide(
    policy: Policy, subject: Subject, fleet: Sequence[Target], previous: Collection[str]
) -> tuple[str, list[str], dict[str, str]]:
    """Return the version, the names chosen, and the code of every other name."""
    version, fault = resolve(parse_wish(policy.version), subject)
    if fault:
        return "", [], {target.name: "version" for target in fleet}
    codes: dict[str, str] = {}
    fitting: list[str] = []
    for target in sorted(fleet, key=lambda one: one.name):
        code = _refusal(policy, subject, target, target.name in previous)
        if code:
            codes[target.name] = code
        else:
            fitting.append(target.name)
    ranked = sorted(fitting, key=lambda name: (name not in previous, name))
    count = len(ranked) if policy.count is None else policy.count
    codes |= dict.fromkeys(ranked[count:], "count")
    return version, sorted(ranked[:count]), codes


def codes_of(decision: Decision) -> dict[str, str]:
    """Return name → code of every cluster that a decision refuses."""
    return {name: refusal.code for refusal in decision.refused for name in refusal.clusters}


def _refusal(policy: Policy, subject: Subject, target: Target, is_incumbent: bool) -> str:
    if policy.terms is not None and not any(matches(term, target) for term in policy.terms):
        only_names = policy.terms and all(not term.requirements for term in policy.terms)
        return "names" if only_names else "labels"
    if subject.delivery in ("container", "chart") and known_value(target, PLATFORM) == "host":
        return "delivery"
    arch = known_value(target, ARCH)
    if subject.arch and arch not in subject.arch and (arch or not is_incumbent):
        return "arch"
    return ""
