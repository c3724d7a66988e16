"""Names, labels and facts of a term → the clusters that have them. Pure.

Source: Kubernetes label selectors: NotIn and DoesNotExist hold where the key is absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from placement.facts import number, satisfied
from placement.index import FleetIndex
from placement.measures import AGELESS
from placement.postings import as_bits
from placement.types import FactTest, Requirement, Target, Term


def select(terms: Sequence[Term] | None, index: FleetIndex) -> int:
    """Return the bits of the clusters whose names and labels any of ``terms`` selects.

    None selects every cluster, no terms none. Facts, expressions and workloads are looked at in placement/terms.py.
    """
    if terms is None:
        return index.everything
    found = 0
    for term in terms:
        found |= select_term(term, index)
    return found


def select_term(term: Term, index: FleetIndex) -> int:
    """Return the bits of the clusters for which names and labels of ``term`` hold."""
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
    """Tell whether names and labels of one term select one cluster, looked at by itself."""
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


def passing(test: FactTest, index: FleetIndex) -> tuple[int, int]:
    """Return the bits of the clusters for which a test of a fact holds, and of those where it can be read at all."""
    if test.kind != "number":
        return _passing_text(test, index)
    column = index.measures.numbers(test.name)
    values = [value for value in map(number, test.values) if value is not None]
    match test.operator:
        case "<":
            holds = column.below(values[0])
        case "<=":
            holds = column.below(values[0], inclusive=True)
        case ">":
            holds = column.known & ~column.below(values[0], inclusive=True)
        case ">=":
            holds = column.known & ~column.below(values[0])
        case "==" | "in" | "!=":
            holds = 0
            for value in values:
                holds |= column.equal(value)
            holds = column.known & ~holds if test.operator == "!=" else holds
    return holds, column.known


def _passing_text(test: FactTest, index: FleetIndex) -> tuple[int, int]:
    holds = readable = 0
    for text, found in index.measures.texts(test.name).items():
        answer = satisfied(test, text)
        if answer is not None:
            bits = as_bits(found)
            readable |= bits
            holds |= bits if answer else 0
    return holds, readable


def known(fact: str, index: FleetIndex) -> int:
    """Return the bits of the clusters where a fact is known."""
    return index.measures.times(fact).known


def stale(test: FactTest, index: FleetIndex, now: datetime) -> int:
    """Return the bits of the clusters where a fact was measured longer ago than its test wants."""
    if test.max_age_s is None:
        return 0
    return index.measures.times(test.name).below(min(now.timestamp() - test.max_age_s, AGELESS))


def fact_holds(test: FactTest, target: Target, now: datetime) -> bool | None:
    """Tell whether a test holds for one cluster, looked at by itself; None where it is not known, or stale."""
    value = target.facts.get(test.name)
    if value is None:
        return None
    text, at = value
    if test.max_age_s is not None and at is not None and at.timestamp() < now.timestamp() - test.max_age_s:
        return None
    return satisfied(test, text)


def _any_of(requirement: Requirement, index: FleetIndex) -> int:
    found = 0
    for value in requirement.values:
        found |= index.having(requirement.key, value)
    return found
