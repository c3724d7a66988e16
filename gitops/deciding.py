"""Catalog and fleet index → decisions, in the order that they depend on each other. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gitops import kinds
from gitops.catalog_types import Catalog
from gitops.decisions import DecisionRecord, document_of
from gitops.faults import PLACEMENT_CYCLE, PLACEMENTS_CLASH, Code, Fault
from gitops.policies import FactText, to_policies, to_subject, to_target, to_workload_subject
from placement.conflicts import Clash
from placement.follow import Follower
from placement.index import FleetIndex
from placement.scene import Scene
from placement.together import Ask, decide_together, in_order
from placement.types import Decision, Incumbent, Subject

Facts = Mapping[str, Mapping[str, FactText]]
"""Cluster → fact name → (text, time measured)."""

Previous = Mapping[str, Decision | Mapping[str, Incumbent]]
"""Decision name → the last decision, or what it gave each cluster that it chose."""

Current = Mapping[str, frozenset[str]]
"""Decision name → the clusters that report what it gave them as current."""


@dataclass(frozen=True, slots=True)
class Decided:
    """All decisions of one step, by the name of their directory under decisions/.

    Attributes:
        index: of all clusters of the catalog.
        decisions: sorted by name; a workload that follows a placement stands under ``NAME.workload``.
        faults: placements that claim the same model on the same cluster with equal priority, or wait for each other.
        scenes: decision name → what was decided before it.
        subjects: decision name → what it places.
    """

    index: FleetIndex
    decisions: Mapping[str, Decision]
    faults: tuple[Fault, ...]
    scenes: Mapping[str, Scene]
    subjects: Mapping[str, Subject]


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
                if self._clusters.get(name) is not one or _differ(self._facts.get(name), facts.get(name))
            ]
            gone = self._clusters.keys() - clusters.keys()
            if changed or gone:
                self._index = self._index.with_changes(changed, gone)
        self._clusters, self._facts = clusters, facts
        return self._index


def _differ(before: Mapping[str, FactText] | None, after: Mapping[str, FactText] | None) -> bool:
    return before is not after and before != after


_NOBODY: Current = {}


def decide_all(
    catalog: Catalog, index: FleetIndex, previous: Previous, now: datetime, current: Current = _NOBODY
) -> Decided:
    """Decide every placement of the catalog, and the workloads that follow one.

    Args:
        catalog: checked.
        index: of all clusters of the catalog.
        previous: the last decisions; those of placements that are gone are not looked at.
        now: for the ages of facts.
        current: who has arrived; a handover waits for it.
    """
    asks, followers = asked(catalog, previous, current)
    found = decide_together(asks, followers, index, now)
    _, circle = in_order(asks, followers)
    faults = [_clash(catalog, clash) for clash in found.clashes]
    if circle:
        faults.append(_circle(catalog, circle))
    return Decided(index, found.decisions, tuple(faults), found.scenes, found.subjects)


def asked(catalog: Catalog, previous: Previous, current: Current = _NOBODY) -> tuple[list[Ask], list[Follower]]:
    """Return every policy of the catalog, and the workloads that follow one."""
    models = {name: to_subject(model) for name, model in catalog.models.items()}
    workloads = {name: to_workload_subject(workload) for name, workload in catalog.workloads.items()}
    asks = [
        Ask(
            policy,
            models[policy.subject] if policy.kind == "model" else workloads[policy.subject],
            previous.get(policy.name),
            current.get(policy.name, frozenset()),
        )
        for placement in catalog.placements.values()
        for policy in to_policies(placement, catalog)
    ]
    by_document: dict[str, list[str]] = {}
    subjects = {ask.policy.name: ask.policy.subject for ask in asks}
    for ask in asks:
        by_document.setdefault(ask.policy.document, []).append(ask.policy.name)
    followers = []
    for name, workload in catalog.workloads.items():
        follows = workload.document.spec.placement
        if follows is not None:
            uses = tuple(use.name for use in workload.document.spec.models)
            leaders = by_document.get(follows.same_as, [])
            of_ours = [one for one in leaders if subjects[one] in uses] or leaders
            if of_ours:
                version = follows.version
                followers.append(Follower(f"{name}.workload", workloads[name], version, uses, tuple(of_ours)))
    return asks, followers


def hands_over(catalog: Catalog, decision: str) -> bool:
    """Tell whether a decision is of a placement that makes before it breaks."""
    placement = catalog.placements.get(document_of(decision))
    return placement is not None and placement.spec.handover == "make-before-break"


def incumbents(record: DecisionRecord) -> dict[str, Incumbent]:
    """Return what a published decision gave each cluster."""
    return {
        name: Incumbent(record.version, one.variant, one.contradicted, one.arriving, one.leaving)
        for name, one in record.chosen.items()
    }


def _clash(catalog: Catalog, clash: Clash) -> Fault:
    names = ", ".join(name for name, _ in zip(clash.clusters, range(3), strict=False))
    what = f"placements {clash.first} and {clash.second} both claim it on {len(clash.clusters)} clusters ({names})"
    do = "give one of them a higher priority, or make their clusters disjoint"
    return _at(catalog, clash.second, PLACEMENTS_CLASH, what, do)


def _circle(catalog: Catalog, circle: Sequence[str]) -> Fault:
    what = f"{' waits for '.join([*circle, circle[0]])}: none of them can be decided first"
    do = "take `runsWorkload` out of one of them, or let the workload follow another placement"
    named = next((name for name in circle if not name.endswith(".workload")), circle[0])
    return _at(catalog, named, PLACEMENT_CYCLE, what, do)


def _at(catalog: Catalog, decision: str, code: Code, what: str, do: str) -> Fault:
    document = document_of(decision)
    where = catalog.where.get(f"Placement/{document}", "placements:0:0")
    path, _, place = where.partition(":")
    line, _, column = place.partition(":")
    return code.at(path, what, do, line=int(line or 0), column=int(column or 0))
