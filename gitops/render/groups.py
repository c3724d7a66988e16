"""Decisions → which clusters get which rendered entry. Pure.

A group is clusters of one decision that get the same; it is rendered once, however many clusters it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.wire.errors import EdgeferryError
from gitops import kinds
from gitops.catalog_types import Catalog
from gitops.policies import to_subject, to_term
from gitops.render.entries import Rendered
from placement.index import FleetIndex
from placement.selector import select
from placement.types import ClusterSet, Decision


@dataclass(frozen=True, slots=True)
class Group:
    """Clusters that get the same entry by the same decision."""

    decision: str
    rendered: Rendered
    clusters: ClusterSet


@dataclass(frozen=True, slots=True)
class Stuck:
    """Clusters that cannot get what a decision gives them, and why."""

    decision: str
    fault: EdgeferryError
    clusters: ClusterSet


Render = Callable[[Decision, str, Mapping[str, str]], Rendered]
"""Renders a variant of a decision's subject with overriding values.

A second call with equal arguments returns the same object.
"""


def groups(
    catalog: Catalog, decisions: Mapping[str, Decision], index: FleetIndex, render: Render
) -> tuple[list[Group], list[Stuck]]:
    """Split every decision by variants and by the overrides that its clusters match, and render each part.

    What cannot be rendered (bytes that cannot be fetched, a version with nothing to run) sticks by itself.
    """
    found, stuck = [], []
    for name, decision in decisions.items():
        if not decision.chosen.bits:
            continue
        placement = catalog.placements.get(decision.policy.document)
        overrides = () if placement is None else placement.spec.overrides
        for variant, some in _variants(catalog, decision, decision.chosen.bits):
            for bits, values in _parts(some, overrides, index):
                clusters = ClusterSet(index, bits)
                try:
                    found.append(Group(name, render(decision, variant, values), clusters))
                except EdgeferryError as fault:
                    stuck.append(Stuck(name, fault, clusters))
    return found, stuck


def _variants(catalog: Catalog, decision: Decision, moving: int) -> list[tuple[str, int]]:
    """Return every variant with its clusters; those that have none get the first form of the version."""
    if not decision.variants:
        return [("", moving)]
    forms = to_subject(catalog.models[decision.policy.subject]).forms(decision.version)
    found = [(name, one.bits & moving) for name, one in decision.variants.items()]
    rest = moving
    for _, bits in found:
        rest &= ~bits
    return [(name, bits) for name, bits in (*found, (forms[0].name, rest)) if bits]


def wanted(found: Sequence[Group], index: FleetIndex) -> dict[str, tuple[Rendered, ...]]:
    """Return cluster → its entries, for every cluster of the index, also those that get nothing."""
    # Clusters with the same entries share one tuple: that spares the memory, and whoever compares them.
    lists: dict[str, tuple[Rendered, ...]] = dict.fromkeys(index.numbers, ())
    for group in found:
        longer: dict[int, tuple[Rendered, ...]] = {}
        for name in group.clusters:
            before = lists[name]
            after = longer.get(id(before))
            if after is None:
                after = longer[id(before)] = (*before, group.rendered)
            lists[name] = after
    return lists


def _parts(bits: int, overrides: Sequence[kinds.Override], index: FleetIndex) -> list[tuple[int, dict[str, str]]]:
    parts: list[tuple[int, dict[str, str]]] = [(bits, {})]
    for override in overrides:
        matching = select([to_term(override)], index)
        parts = [
            part
            for whole, values in parts
            for part in ((whole & ~matching, values), (whole & matching, {**values, **override.values}))
            if part[0]
        ]
    return parts
