"""Whether any cluster at all could meet a term. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from placement.facts import quantity, satisfied, shown_test
from placement.selector import holds
from placement.types import FactTest, Requirement, Target, Term


def contradiction(term: Term) -> str:
    """Return which requirements of a term exclude each other; empty where none are seen to.

    Expressions are not looked into, nor are ranges of versions.
    """
    by_key: dict[str, list[Requirement]] = {}
    for one in term.requirements:
        by_key.setdefault(one.key, []).append(one)
    for key, requirements in by_key.items():
        if not _labels_can_hold(key, requirements):
            return f"label {key} must {' and must '.join(_asked(one) for one in requirements)}"
    by_fact: dict[str, list[FactTest]] = {}
    for test in term.facts:
        by_fact.setdefault(test.name, []).append(test)
    for tests in by_fact.values():
        if not _facts_can_hold(tests):
            return " and ".join(shown_test(test) for test in tests)
    return "it names no cluster" if term.names is not None and not term.names else ""


def _labels_can_hold(key: str, requirements: Sequence[Requirement]) -> bool:
    listed = {value for one in requirements for value in one.values}
    candidates = [*({key: value} for value in (*sorted(listed), "_none_of_them")), {}]
    return any(all(holds(one, Target("", labels)) for one in requirements) for labels in candidates)


def _asked(one: Requirement) -> str:
    match one.operator:
        case "In":
            return f"be {' or '.join(one.values)}"
        case "NotIn":
            return f"not be {' or '.join(one.values)}"
        case "Exists":
            return "be there"
        case "DoesNotExist":
            return "not be there"


def _facts_can_hold(tests: Sequence[FactTest]) -> bool:
    if any(test.kind in ("version", "list") for test in tests):
        return True
    values = [value for test in tests for value in test.values]
    if tests[0].kind == "text":
        return any(all(satisfied(test, text) for test in tests) for text in (*values, "_none_of_them"))
    numbers = sorted({found for value in values if (found := quantity(value)) is not None})
    between = [(low + high) / 2 for low, high in pairwise(numbers)]
    around = [numbers[0] / 2, *numbers, *between, numbers[-1] + 1]
    return any(all(satisfied(test, format(one, "f")) for test in tests) for one in around)
