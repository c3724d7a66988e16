"""Decisions → who gets what in this step: the stage between deciding and rendering overlays. Pure.

A placement without a rollout goes everywhere at once. One with a rollout is led by ``placement.rollout``: whoever is
not yet to move keeps the entry that is published to it, and whoever goes back gets the one from before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from agent.wire.windows import Window, opening
from gitops import kinds
from gitops.catalog_types import Catalog
from gitops.changes import Published
from gitops.decisions import document_of
from gitops.orders import Ordered
from gitops.policies import to_term
from gitops.render.entries import Rendered
from gitops.render.groups import Group
from gitops.rollout_records import RolloutRecord
from gitops.rollout_spec import AmountText, RolloutSpec, WaveSpec, seconds
from gitops.telling import Known, Reports, Telling
from placement.index import FleetIndex
from placement.rollout import advance
from placement.rollout_types import Advanced, Amount, Field, Hours, RolloutPolicy, RolloutState, Wave
from placement.selector import select
from placement.types import ClusterSet, Decision

Kept = Callable[[str, str, str, str], Rendered]
"""(entry digest, cluster that has it now, kind, name) → the entry as it is published there."""


@dataclass(frozen=True, slots=True)
class Present:
    """What rollouts look at besides the decisions.

    Attributes:
        published: cluster → its release.
        records: decision name → rollout as published.
        progress: decision name → the same with what was noted since; where it is not there, nothing was.
        seen: cluster → when it was heard of last.
        ordered: what people ordered.
        known: (kind, name) → what was worked out of reports before; it is added to.
        kept: clusters whose overlay is left as it is.
        stuck: decisions of which something could not be rendered: they stand still.
    """

    now: datetime
    published: Mapping[str, Published]
    records: Mapping[str, RolloutRecord]
    progress: Mapping[str, RolloutState] = field(default_factory=dict)
    reports: Reports = field(default_factory=dict)
    seen: Mapping[str, datetime] = field(default_factory=dict)
    ordered: Ordered = field(default_factory=Ordered)
    known: dict[tuple[str, str], Known] = field(default_factory=dict)
    kept: Collection[str] = ()
    stuck: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Rolled:
    """What the rollouts come to.

    Attributes:
        groups: which clusters get which entry in this step.
        records: rollouts as they are to be published.
        progress: the same with what need not be published.
        staged: decisions whose changes go by waves, or within a budget.
        reverted: decisions that go back in this state.
        next_at: look again then at the latest; None for no hurry.
    """

    groups: Sequence[Group]
    records: Mapping[str, RolloutRecord]
    progress: Mapping[str, RolloutState]
    staged: frozenset[str]
    reverted: frozenset[str]
    next_at: datetime | None


def roll(
    catalog: Catalog,
    decisions: Mapping[str, Decision],
    index: FleetIndex,
    found: Sequence[Group],
    present: Present,
    kept: Kept,
) -> Rolled:
    """Let every rollout take its next step.

    Args:
        catalog: checked.
        decisions: by name.
        index: of all clusters of the catalog.
        found: what every chosen cluster is to have in the end.
        present: what stands, what was said, what was ordered, and the time.
        kept: gives what a cluster has now.
    """
    targets: dict[str, list[Group]] = {name: [] for name in decisions}
    for group in found:
        targets[group.decision].append(group)
    groups: list[Group] = []
    records: dict[str, RolloutRecord] = {}
    progress: dict[str, RolloutState] = {}
    staged, reverted, due = set(), set(), []
    shared = _shared(catalog, present)
    for name, decision in decisions.items():
        spec, before = rollout_of(catalog, name), present.records.get(name)
        mine = targets[name]
        if spec is None and (before is None or not before.state.held):
            groups += mine
            continue
        if name in present.stuck:
            if before is not None:
                groups += _standing(name, decision, index, present, kept)
                records[name] = before
            continue
        policy = to_rollout(spec or RolloutSpec())
        scene = _scene(decision, policy, spec, mine, index, present, shared)
        state = present.progress.get(name, None if before is None else before.state)
        advanced = advance(scene, state)
        wanted = {one.rendered.entry.digest: one.rendered for one in mine}
        old = {} if before is None else before.entries

        def entry(
            digest: str,
            cluster: str,
            wanted: Mapping[str, Rendered] = wanted,
            old: Mapping[str, Rendered] = old,
            decision: Decision = decision,
        ) -> Rendered:
            known = wanted.get(digest) or old.get(digest)
            return known or kept(digest, cluster, decision.policy.kind, decision.policy.subject)

        groups += _given(name, advanced, index, entry)
        progress[name] = advanced.state
        stored = _record(advanced, before, entry)
        records[name] = before if before is not None and not advanced.essential else stored
        if policy.staged:
            staged.add(name)
        if advanced.state.phase == "reverted":
            reverted.add(name)
        if advanced.next_at is not None:
            due.append(advanced.next_at)
    return Rolled(groups, records, progress, frozenset(staged), frozenset(reverted), min(due, default=None))


def _standing(name: str, decision: Decision, index: FleetIndex, present: Present, kept: Kept) -> list[Group]:
    """Return what the chosen clusters have."""
    key = (decision.policy.kind, decision.policy.subject)
    by_digest: dict[str, list[str]] = {}
    for cluster in decision.chosen:
        release = present.published.get(cluster)
        if release is not None and key in release.entries:
            by_digest.setdefault(release.entries[key][1], []).append(cluster)
    return [
        Group(name, kept(digest, clusters[0], *key), ClusterSet(index, index.bits(clusters)))
        for digest, clusters in sorted(by_digest.items())
    ]


def rollout_of(catalog: Catalog, name: str) -> RolloutSpec | None:
    """Return how a decision is rolled out: the placement's word, that of the placement it follows, or the fleet's."""
    placement = catalog.placements.get(document_of(name))
    if placement is None:
        workload = catalog.workloads.get(name.removesuffix(".workload"))
        follows = None if workload is None else workload.document.spec.placement
        placement = None if follows is None else catalog.placements.get(follows.same_as)
    own = None if placement is None else placement.spec.rollout
    return own if own is not None else catalog.fleet.default_rollout


def to_rollout(spec: RolloutSpec) -> RolloutPolicy:
    """Return a rollout as placement leads it; a last wave takes all that the others leave."""
    waves = [_wave(one, n) for n, one in enumerate(spec.waves, 1)]
    if not waves or waves[-1].percent != 100:
        waves.append(Wave("rest" if waves else "all", 100))
    return RolloutPolicy(
        waves=tuple(waves),
        max_concurrent=_amount(spec.max_concurrent),
        soak_s=seconds(spec.soak),
        progress_deadline_s=seconds(spec.progress_deadline),
        max_failures=_amount(spec.max_failures),
        min_success=_amount(spec.min_success),
        on_failure=spec.on_failure,
        approve=spec.approve,
    )


def to_windows(cluster: kinds.Cluster) -> tuple[Window, ...]:
    """Return a cluster's windows."""
    return tuple(Window(one.days, one.start, one.end, one.timezone) for one in cluster.spec.windows)


def _wave(spec: WaveSpec, number: int) -> Wave:
    name = spec.name or (f"{spec.percent}%" if spec.percent is not None else f"wave-{number}")
    return Wave(
        name=name,
        percent=spec.percent,
        max_concurrent=_amount(spec.max_concurrent),
        max_failures=_amount(spec.max_failures),
        min_success=_amount(spec.min_success),
        approve=spec.approve,
    )


def _amount(text: AmountText | None) -> Amount | None:
    return None if text is None else Amount(int(text.rstrip("%")), text.endswith("%"))


def _members(wave: WaveSpec, index: FleetIndex) -> frozenset[str] | None:
    if wave.percent is not None:
        return None
    term = kinds.ClusterTerm(
        match_labels=wave.match_labels,
        match_expressions=tuple(
            kinds.Expression(key=one.key, operator=one.operator, values=one.values) for one in wave.match_expressions
        ),
    )
    return frozenset(index.names(select([to_term(term)], index)))


@dataclass(frozen=True, slots=True)
class _Shared:
    """What is the same for all decisions."""

    windows: Mapping[str, tuple[Window, ...]]
    carried: frozenset[str]
    halted: frozenset[str]
    offline_after_s: float


def _shared(catalog: Catalog, present: Present) -> _Shared:
    return _Shared(
        windows={name: to_windows(one) for name, one in catalog.special.items() if one.spec.windows},
        carried=frozenset(name for name, one in catalog.special.items() if one.spec.connection == "carried"),
        halted=frozenset(present.kept),
        offline_after_s=seconds(catalog.fleet.offline_after),
    )


def _scene(
    decision: Decision,
    policy: RolloutPolicy,
    spec: RolloutSpec | None,
    mine: Sequence[Group],
    index: FleetIndex,
    present: Present,
    shared: _Shared,
) -> Field:
    kind, subject = decision.policy.kind, decision.policy.subject
    key, published = (kind, subject), present.published
    want: dict[str, str] = {}
    for group in mine:
        want.update(dict.fromkeys(group.clusters, group.rendered.entry.digest))
    has = {}
    for name in want:
        release = published.get(name)
        if release is not None:
            found = release.entries.get(key)
            if found is not None:
                has[name] = found[1]
    hours = {}
    for name, windows in shared.windows.items():
        if name in has:  # where nothing runs, a window has nothing to guard
            found_hours = opening(windows, present.now)
            hours[name] = Hours(found_hours.open, found_hours.since, found_hours.until)
    waves = () if spec is None else spec.waves
    members = tuple(_members(one, index) for one in waves)
    number = present.records[decision.policy.name].state.number if decision.policy.name in present.records else 0
    return Field(
        policy=policy,
        want=want,
        has=has,
        now=present.now,
        told=Telling(present.reports, kind, subject, present.known.setdefault(key, {})),
        seen=present.seen,
        members=members + (None,) * (len(policy.waves) - len(members)),
        hours=hours,
        carried=shared.carried,
        halted=shared.halted,
        orders=present.ordered.of(decision.policy.name, number),
        offline_after_s=shared.offline_after_s,
    )


def _given(name: str, advanced: Advanced, index: FleetIndex, entry: Callable[[str, str], Rendered]) -> list[Group]:
    by_digest: dict[str, list[str]] = {}
    for cluster, digest in advanced.give.items():
        if digest:
            by_digest.setdefault(digest, []).append(cluster)
    return [
        Group(name, entry(digest, clusters[0]), ClusterSet(index, index.bits(clusters)))
        for digest, clusters in sorted(by_digest.items())
    ]


def _record(advanced: Advanced, before: RolloutRecord | None, entry: Callable[[str, str], Rendered]) -> RolloutRecord:
    """Return the rollout with every entry that somebody may have to go back to."""
    if not advanced.essential and before is not None:
        return before
    state = advanced.state
    needed: dict[str, str] = {}
    if state.phase != "complete":
        for cluster, place in state.places.items():
            if place.previous:
                needed.setdefault(place.previous, cluster)
    return RolloutRecord(state, {digest: entry(digest, cluster) for digest, cluster in sorted(needed.items())})
