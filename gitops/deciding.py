"""Catalog and fleet index → decisions, in the order that they depend on each other. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gitops import kinds
from gitops.catalog_types import Catalog
from gitops.faults import PLACEMENTS_CLASH, Fault
from gitops.policies import to_policy, to_subject, to_target, to_workload_subject
from placement.conflicts import Clash, settle
from placement.decide import decide
from placement.follow import follow
from placement.index import FleetIndex
from placement.types import Decision

Facts = Mapping[str, Mapping[str, tuple[str, datetime]]]
"""Cluster → fact name → (value, time measured)."""

Previous = Mapping[str, Decision | Collection[str]]
"""Decision name → the last decision, or only the names of the clusters that it chose."""


@dataclass(frozen=True, slots=True)
class Decided:
    """All decisions of one step, by the name of their directory under decisions/.

    Attributes:
        index: of all clusters of the catalog.
        decisions: sorted by name; a workload that follows a placement stands under ``NAME.workload``.
        faults: placements that claim the same model on the same cluster with equal priority.
    """

    index: FleetIndex
    decisions: Mapping[str, Decision]
    faults: tuple[Fault, ...]


@dataclass(slots=True)
class Fleet:
    """The index of all clusters, kept up to date by what changed since the last look."""

    _clusters: Mapping[str, kinds.Cluster] = field(default_factory=dict)
    _facts: Facts = field(default_factory=dict)
    _index: FleetIndex | None = None

    def index(self, catalog: Catalog, facts: Facts) -> FleetIndex:
        """Return the index of the catalog's clusters with these facts."""
        clusters = catalog.clusters
        if self._index is None:
            self._index = FleetIndex.build(to_target(one, facts.get(name, {})) for name, one in clusters.items())
        elif clusters is not self._clusters or facts is not self._facts:
            changed = [
                to_target(one, facts.get(name, {}))
                for name, one in clusters.items()
                if self._clusters.get(name) is not one or self._facts.get(name) != facts.get(name)
            ]
            gone = self._clusters.keys() - clusters.keys()
            if changed or gone:
                self._index = self._index.with_changes(changed, gone)
        self._clusters, self._facts = clusters, facts
        return self._index


def decide_all(catalog: Catalog, index: FleetIndex, previous: Previous, now: datetime) -> Decided:
    """Decide every placement of the catalog, then the workloads that follow one.

    Args:
        catalog: checked.
        index: of all clusters of the catalog.
        previous: the last decisions; those of placements that are gone are not looked at.
        now: for times in policies.
    """
    models = {name: to_subject(model) for name, model in catalog.models.items()}
    workloads = {name: to_workload_subject(workload) for name, workload in catalog.workloads.items()}
    decisions = []
    for name, placement in catalog.placements.items():
        policy = to_policy(placement)
        subject = models[policy.subject] if policy.kind == "model" else workloads[policy.subject]
        decisions.append(decide(policy, subject, index, previous.get(name), now))
    settled = settle(decisions)
    found = {decision.policy.name: decision for decision in settled.decisions}
    following = {
        f"{name}.workload": follow(
            f"{name}.workload",
            workloads[name],
            workload.document.spec.placement.version,
            tuple(use.name for use in workload.document.spec.models),
            found[workload.document.spec.placement.same_as],
            tuple(found.values()),
        )
        for name, workload in catalog.workloads.items()
        if workload.document.spec.placement is not None
    }
    again = settle([*found.values(), *following.values()]) if following else settled
    decided = {decision.policy.name: decision for decision in again.decisions}
    return Decided(
        index,
        {name: decided[name] for name in sorted(decided)},
        tuple(_fault(catalog, clash) for clash in _once(settled.clashes, again.clashes)),
    )


def _once(*groups: Sequence[Clash]) -> list[Clash]:
    return list({(clash.first, clash.second): clash for group in groups for clash in group}.values())


def _fault(catalog: Catalog, clash: Clash) -> Fault:
    where = catalog.where.get(f"Placement/{clash.second}", "placements:0:0")
    path, _, place = where.partition(":")
    line, _, column = place.partition(":")
    names = ", ".join(name for name, _ in zip(clash.clusters, range(3), strict=False))
    what = f"placements {clash.first} and {clash.second} both claim it on {len(clash.clusters)} clusters ({names})"
    do = "give one of them a higher priority, or make their clusters disjoint"
    return PLACEMENTS_CLASH.at(path, what, do, line=int(line or 0), column=int(column or 0))
