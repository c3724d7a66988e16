"""Terms of a policy → the clusters that they select. Pure.

Source: Kubernetes label selectors: NotIn and DoesNotExist hold where the key is absent.
"""

from __future__ import annotations

from collections.abc import Sequence

from placement.index import FleetIndex
from placement.types import Requirement, Target, Term


def select(terms: Sequence[Term] | None, index: FleetIndex) -> int:
    """Return the bits of the clusters that any of ``terms`` selects; None selects every cluster, no terms none."""
    if terms is None:
        return index.everything
    found = 0
    for term in terms:
        found |= select_term(term, index)
    return found


def select_term(term: Term, index: FleetIndex) -> int:
    """Return the bits of the clusters for which every part of ``term`` holds."""
    found = index.everything if term.names is None else index.bits(term.names)
    for requirement in term.requirements:
        if not found:
            return 0
        found &= holding(requirement, index)
    return found


def holding(requirement: Requirement, index: FleetIndex) -> int:
    """Return the bits of the clusters for which one requirement holds."""
    match requirement.operator:
        case "In":
            return _any_of(requirement, index)
        case "NotIn":
            return index.everything & ~_any_of(requirement, index)
        case "Exists":
            return index.keys.get(requirement.key, 0)
        case "DoesNotExist":
            return index.everything & ~index.keys.get(requirement.key, 0)


def matches(term: Term, target: Target) -> bool:
    """Tell whether one term selects one cluster, looked at by itself."""
    if term.names is not None and target.name not in term.names:
        return False
    return all(holds(requirement, target) for requirement in term.requirements)


def holds(requirement: Requirement, target: Target) -> bool:
    """Tell whether one requirement holds for one cluster, looked at by itself."""
    value = target.labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None


def _any_of(requirement: Requirement, index: FleetIndex) -> int:
    found = 0
    for value in requirement.values:
        found |= index.having(requirement.key, value)
    return found
