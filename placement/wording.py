"""What a policy asks for, in one line for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from placement.facts import shown_test
from placement.terms import shown_expression
from placement.types import Policy, Requirement, Term


def wanted(policy: Policy) -> str:
    """Return what a policy's terms ask for, in one line."""
    if policy.terms is None:
        return "any cluster"
    if not policy.terms:
        return "no cluster"
    return some([wanted_by(term) for term in policy.terms], " or ")


def wanted_by(term: Term) -> str:
    """Return what one term asks for, in one line."""
    parts = [] if term.names is None else [f"named {some(sorted(term.names), ', ')}"]
    parts += [_label(one) for one in term.requirements]
    parts += [shown_test(test) for test in term.facts]
    if term.expression:
        parts.append(f"`{shown_expression(term.expression)}`")
    if term.runs_workload:
        parts.append(f"running workload {term.runs_workload}")
    return " and ".join(parts) or "any cluster"


def some(items: Sequence[str], joint: str) -> str:
    """Return the first few items, and how many more there are."""
    return joint.join(items[:5]) + (f"{joint}{len(items) - 5} more" if len(items) > 5 else "")


def _label(one: Requirement) -> str:
    match one.operator:
        case "In":
            return f"{one.key}={some(one.values, '|')}"
        case "NotIn":
            return f"{one.key}!={some(one.values, '|')}"
        case "Exists":
            return f"{one.key} exists"
        case "DoesNotExist":
            return f"no {one.key}"
