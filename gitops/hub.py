"""One step of the hub, stage by stage: the only module that knows the whole order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from agent.wire.errors import Stop
from agent.wire.release import Artifact
from agent.wire.signature import SigningKey, fingerprint
from gitops import changes, drafting, keeping
from gitops.catalog_types import Catalog
from gitops.changes import Edges, Move, Published
from gitops.commands import Command, command_path, encode_command
from gitops.deciding import Decided, Facts, Fleet, decide_all, hands_over, incumbents
from gitops.decisions import DecisionRecord
from gitops.drafting import Desk, drawn, limits
from gitops.faults import Fault
from gitops.fleet import FleetRepository
from gitops.guards import Guarded
from gitops.intake import Intake, Taken
from gitops.ledger import PROTECTED, Ledger, encode_protected, read_ledger
from gitops.manners import manners
from gitops.news import news
from gitops.orders import Ordered, ordered
from gitops.publish import Change, publish
from gitops.render.entries import Rendered, Wanted, render
from gitops.render.groups import Group, Stuck, groups, wanted
from gitops.render.kept import from_overlay
from gitops.render.overlay import PLAIN, Manner, Stamp, signed
from gitops.rolling import Present, Rolled, roll, rollout_of, to_rollout
from gitops.rollout_records import RolloutRecord, changed_files
from gitops.rollout_spec import RolloutSpec
from gitops.telling import Known, Reports, arrived_at
from gitops.tree import Tree
from placement.rollout_types import RolloutState
from placement.types import Decision

Pack = Callable[[Catalog, Mapping[str, Tree], str, str, str, str], tuple[Artifact, ...]]
"""(catalog, its trees, kind, name, version, variant) → where its bytes are: of a chart the chart first."""

_Cache = dict[tuple[object, ...], tuple[tuple[object, ...], Rendered]]
"""What was asked to be rendered → what it was rendered from, and the result: for the next step, no longer."""


@dataclass(frozen=True, slots=True)
class World:
    """What a step is told besides Git.

    Attributes:
        now: time of the step, UTC.
        facts: the latest of every cluster.
        keys: cluster → public key of its agent, as registered.
        highest: cluster → highest sequence that it reported.
        reports: cluster → its newest report, and when the hub took it.
        seen: cluster → when it was heard of last.
        commands: orders that are to be recorded with this step.
    """

    now: datetime
    facts: Facts = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    highest: Mapping[str, int] = field(default_factory=dict)
    reports: Reports = field(default_factory=dict)
    seen: Mapping[str, datetime] = field(default_factory=dict)
    commands: Sequence[Command] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """What a step decided; ``Hub.publish`` makes it so.

    Attributes:
        taken: catalog, sources in use, and sources held back.
        change: for the fleet repository; None where nothing differs.
        moves: what it means entry by entry.
        changed: clusters whose overlay changes, with their new release.
        records: every decision as it is to stand.
        kept: cluster → why its overlay is left as it is.
        targets: which clusters get which entry in the end, whatever waves it goes by.
        rolled: who gets what in this step.
        guarded: what is held back.
        rollouts: every rollout as it is to stand.
        protected: ``Kind/NAME`` of the documents that may not be deleted.
        commands: orders that it records.
        gone: clusters whose last release has stood long enough.
        ordered: what people ordered, taken together.
    """

    taken: Taken[Decided]
    change: Change | None
    moves: Sequence[Move]
    changed: Mapping[str, Published]
    records: Mapping[str, DecisionRecord]
    kept: Mapping[str, str]
    targets: Sequence[Group]
    rolled: Rolled
    guarded: Guarded
    rollouts: Mapping[str, RolloutRecord]
    protected: frozenset[str]
    commands: Sequence[Command]
    gone: frozenset[str]
    ordered: Ordered

    @property
    def next_at(self) -> datetime | None:
        """Step again then at the latest, even when nothing wakes the hub."""
        return self.rolled.next_at


class EntryLost(Stop):
    """An entry that a cluster is to keep, or to go back to, is not in the fleet repository."""

    code = "EF3201"


@dataclass(slots=True)
class Hub:
    """One fleet, and what the last step left in memory: all of it can be read again from Git.

    Attributes:
        intake: the sources.
        repository: the fleet repository.
        key: release key, in force by ``trust``.
        trust: number of the trust in force.
        fleet_id: id of the fleet.
        pack: brings a version's bytes into the artifact store.
        verify: checks that a head which is not our own doing is a publisher's; returns trust and release key in force.
        genesis: path → bytes that the very first commit has besides: trust 1.
    """

    intake: Intake
    repository: FleetRepository
    key: SigningKey
    trust: int
    fleet_id: str
    pack: Pack
    verify: Callable[[], tuple[int, SigningKey]]
    genesis: Mapping[str, bytes] = field(default_factory=dict)
    fleet: Fleet = field(default_factory=Fleet)
    _ledger: Ledger = field(default_factory=Ledger)
    _decisions: Mapping[str, Decision] = field(default_factory=dict)
    _rendered: _Cache = field(default_factory=dict)
    _settled: dict[str, tuple[Sequence[Rendered], str, Manner]] = field(default_factory=dict)
    _progress: Mapping[str, RolloutState] = field(default_factory=dict)
    _kept: dict[str, Rendered] = field(default_factory=dict)
    _told: dict[tuple[str, str], Known] = field(default_factory=dict)

    @property
    def published(self) -> Mapping[str, Published]:
        """Cluster → its release, as of the last step."""
        return self._ledger.published

    def step(self, world: World) -> Step:
        """Read, decide, render and compare; nothing outside this object changes.

        Raises:
            EdgeferryError: the sources or the fleet repository cannot be used; what is published stands.
        """
        ledger = self._read_ledger()
        taken = self.intake.take(ledger.identities(), lambda catalog: self._decide(catalog, world, ledger))
        catalog, decisions, index = taken.catalog, taken.checked.decisions, taken.checked.index
        told = ordered((*ledger.commands, *world.commands), world.now)
        used: _Cache = {}
        found, stuck = groups(catalog, decisions, index, partial(self._render, taken, used))
        kept = keeping.kept(catalog, ledger.published, taken.waiting, stuck, told.clusters)
        rolled = roll(catalog, decisions, index, found, self._present(world, ledger, told, kept, stuck), self._keep)
        manner = manners(catalog, decisions, rolled, told)
        running = {name: (one.sequence, one.content) for name, (one, _) in world.reports.items() if one.content}
        late = changes.ahead(ledger.published, world.highest, running)
        edges = Edges(_fingerprints(catalog, world.keys), world.highest, late)
        stamp = Stamp(self.fleet_id, self.trust, world.now, catalog.revisions)

        def settled(name: str, entries: Sequence[Rendered], key: str) -> bool:
            return self._settled.get(name) == (entries, key, manner.get(name, PLAIN))

        desk = Desk(ledger.published, edges, stamp, kept, settled, manner, catalog.fleet.retire)
        approved = told.approved.union(*(tree.approvals for tree in taken.trees.values()))
        lists = wanted(rolled.groups, index)
        guards = limits(catalog, rolled, approved, ledger.published)
        made = drawn(lists, desk, decisions, rolled, told, guards, self._keep)
        kept |= keeping.clashing(made.clashes)
        decided = changes.records(catalog, decisions, rolled.groups, ledger.records)
        records = keeping.standing(decided, ledger.records, taken.waiting, stuck)
        rollouts = {**_of_absent(ledger, records, decisions), **rolled.records}
        shielded = guards.documents
        files = changes.record_files(records, ledger.records) | changed_files(rollouts, ledger.rollouts)
        if shielded != ledger.protected:
            files[PROTECTED] = encode_protected(shielded) if shielded else None
        files.update((command_path(one), encode_command(one)) for one in world.commands)
        if ledger.head is None:
            files.update(self.genesis)
        self._decisions = {name: one for name, one in decisions.items() if records.get(name) is decided[name]}
        self._rendered = used
        self._kept = {one.rendered.entry.digest: one.rendered for one in rolled.groups}
        left = kept.keys() | {one.cluster for one in made.drafts}
        key = partial(edges.key, before=ledger.published)
        self._settled = {
            name: (entries, key(name), manner.get(name, PLAIN))
            for name, entries in made.lists.items()
            if name not in left
        }
        gone = changes.expired(made.lists.keys(), ledger.published, world.now)
        change = None
        if made.drafts or files or gone:
            policies = {name: to_rollout(rollout_of(catalog, name) or RolloutSpec()) for name in rolled.progress}
            said = news(rollouts, ledger.rollouts, policies, world.commands)
            text = changes.message(catalog.revisions, made.moves, len(made.drafts), said)
            overlays = {one.cluster: signed(one, self.key) for one in made.drafts} | {name: {} for name in gone}
            change = Change(overlays, files, text, world.now)
        return Step(
            taken,
            change,
            made.moves,
            changes.releases(made.drafts, made.lists, ledger.published, edges, world.now),
            records,
            kept,
            found,
            rolled,
            made.guarded,
            rollouts,
            shielded,
            world.commands,
            gone,
            told,
        )

    def look(self) -> None:
        """Read what is published, and decide nothing: for a hub that follows another."""
        self._read_ledger()

    def publish(self, step: Step) -> str | None:
        """Write what a step changes; return the new head, or None where nothing differs.

        Raises:
            FleetMoved: somebody else published since; step again.
        """
        head = None
        if step.change is not None:
            head = publish(self.repository, step.change, self.key, self._ledger.head)
            before = self._ledger
            published = {**before.published, **step.changed}
            for name in step.gone:
                del published[name]
            self._ledger = Ledger(
                head, published, step.records, step.rollouts, (*before.commands, *step.commands), step.protected
            )
        self._progress = step.rolled.progress
        return head

    def _read_ledger(self) -> Ledger:
        head = self.repository.head
        if head is not None and head != self._ledger.head:
            self.trust, self.key = self.verify()
            fleet = self.repository
            self._ledger = read_ledger(
                head, fleet.releases(), fleet.walk("decisions"), fleet.walk("commands"), fleet.read(PROTECTED)
            )
            self._decisions, self._settled, self._progress, self._kept = {}, {}, {}, {}
        return self._ledger

    def _decide(self, catalog: Catalog, world: World, ledger: Ledger) -> tuple[Decided, Sequence[Fault]]:
        index = self.fleet.index(catalog, world.facts)
        previous = {name: self._decisions.get(name) or incumbents(record) for name, record in ledger.records.items()}
        arrived = {
            name: arrived_at(record, world.reports)
            for name, record in ledger.records.items()
            if hands_over(catalog, name)
        }
        decided = decide_all(catalog, index, previous, world.now, arrived)
        return decided, (*decided.faults, *drafting.missing(catalog, ledger.protected))

    def _present(
        self, world: World, ledger: Ledger, told: Ordered, kept: Mapping[str, str], stuck: Sequence[Stuck]
    ) -> Present:
        return Present(
            now=world.now,
            published=ledger.published,
            records=ledger.rollouts,
            progress=self._progress,
            reports=world.reports,
            seen=world.seen,
            ordered=told,
            known=self._told,
            kept=kept.keys(),
            stuck={one.decision for one in stuck},
        )

    def _keep(self, digest: str, cluster: str, kind: str, name: str) -> Rendered:
        """Return an entry as it is published to a cluster."""
        known = self._kept.get(digest)
        if known is None:
            known = from_overlay(self.repository.overlay(cluster), kind, name)
            if known is None or known.entry.digest != digest:
                raise EntryLost(
                    f"{kind} {name} with entry digest {digest} is not in the overlay of {cluster}",
                    where=str(self.repository.path),
                    do="restore the fleet repository from a clone",
                )
            self._kept[digest] = known
        return known

    def _render(
        self, taken: Taken[Decided], used: _Cache, decision: Decision, variant: str, values: Mapping[str, str]
    ) -> Rendered:
        policy, version = decision.policy, decision.version
        document = policy.document
        parts = taken.catalog.parts(policy.kind, policy.subject, version, document)
        parts = (*parts, taken.catalog.nodes(document))
        key = (document, policy.kind, policy.subject, version, variant, tuple(sorted(values.items())))
        known = used.get(key) or self._rendered.get(key)
        if known is not None and known[0] == parts:
            used[key] = known
            return known[1]
        artifacts = self.pack(taken.catalog, taken.trees, policy.kind, policy.subject, version, variant)
        wanted = Wanted(policy.kind, policy.subject, version, variant, document, values)
        made = render(taken.catalog, wanted, artifacts)
        used[key] = (parts, made)
        return made


def _of_absent(
    ledger: Ledger, records: Mapping[str, DecisionRecord], decisions: Mapping[str, Decision]
) -> dict[str, RolloutRecord]:
    """Return the rollouts of decisions that stand as they are, as their source cannot be used."""
    return {name: one for name, one in ledger.rollouts.items() if name in records and name not in decisions}


def _fingerprints(catalog: Catalog, registered: Mapping[str, str]) -> dict[str, str]:
    """Return cluster → fingerprint; the key in a Cluster document outranks the registered one."""
    keys = dict(registered)
    keys.update((name, one.spec.key) for name, one in catalog.special.items() if one.spec.key is not None)
    return {name: fingerprint(key) for name, key in keys.items() if name in catalog.clusters}
