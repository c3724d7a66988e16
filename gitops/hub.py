"""One step of the hub, stage by stage: the only module that knows the whole order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from agent.wire.release import Artifact
from agent.wire.signature import SigningKey, fingerprint
from gitops import changes, keeping
from gitops.catalog_types import Catalog
from gitops.changes import Edges, Move, Published
from gitops.deciding import Decided, Facts, Fleet, decide_all
from gitops.decisions import DecisionRecord
from gitops.faults import Fault
from gitops.fleet import FleetRepository
from gitops.intake import Intake, Taken
from gitops.ledger import Ledger, read_ledger
from gitops.publish import Change, publish
from gitops.render.entries import Rendered, render
from gitops.render.groups import groups, wanted
from gitops.render.overlay import Stamp, signed
from gitops.tree import Tree
from placement.types import Decision

Pack = Callable[[Catalog, Mapping[str, Tree], str, str, str], Artifact | None]
"""(catalog, its trees, kind, name, version) → where the version's bytes are; None where it has none of its own."""

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
    """

    now: datetime
    facts: Facts = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    highest: Mapping[str, int] = field(default_factory=dict)


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
    """

    taken: Taken[Decided]
    change: Change | None
    moves: Sequence[Move]
    changed: Mapping[str, Published]
    records: Mapping[str, DecisionRecord]
    kept: Mapping[str, str] = field(default_factory=dict)


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
        verify: checks that a head which is not our own doing is a publisher's, and returns the trust in force.
        genesis: path → bytes that the very first commit has besides: trust 1.
    """

    intake: Intake
    repository: FleetRepository
    key: SigningKey
    trust: int
    fleet_id: str
    pack: Pack
    verify: Callable[[], int]
    genesis: Mapping[str, bytes] = field(default_factory=dict)
    fleet: Fleet = field(default_factory=Fleet)
    _ledger: Ledger = field(default_factory=Ledger)
    _decisions: Mapping[str, Decision] = field(default_factory=dict)
    _rendered: _Cache = field(default_factory=dict)
    _settled: dict[str, tuple[Sequence[Rendered], str]] = field(default_factory=dict)

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
        catalog, decisions = taken.catalog, taken.checked.decisions
        index = taken.checked.index
        used: _Cache = {}
        found, stuck = groups(catalog, decisions, index, partial(self._render, taken, used))
        lists = wanted(found, index)
        edges = Edges(_fingerprints(catalog, world.keys), world.highest)
        stamp = Stamp(self.fleet_id, self.trust, world.now, catalog.revisions)
        kept = keeping.kept(catalog, ledger.published, taken.waiting, stuck)
        drafts, clashes = changes.drafts(lists, ledger.published, edges, stamp, kept, self._is_settled)
        kept |= keeping.clashing(clashes)
        made = changes.records(catalog, decisions, found, ledger.records)
        records = keeping.standing(made, ledger.records, taken.waiting, stuck)
        happened = changes.moves(drafts, lists, ledger.published)
        files = changes.record_files(records, ledger.records)
        if ledger.head is None:
            files.update(self.genesis)
        self._decisions = {name: one for name, one in decisions.items() if records.get(name) is made[name]}
        self._rendered = used
        compared = lists.keys() - kept.keys() - {one.cluster for one in drafts}
        self._settled = {name: (lists[name], edges.key(name, ledger.published)) for name in compared}
        change = None
        if drafts or files:
            text = changes.message(catalog.revisions, happened, len(drafts))
            change = Change({one.cluster: signed(one, self.key) for one in drafts}, files, text, world.now)
        return Step(taken, change, happened, changes.releases(drafts, lists, ledger.published, edges), records, kept)

    def publish(self, step: Step) -> str | None:
        """Write what a step changes; return the new head, or None where nothing differs.

        Raises:
            FleetMoved: somebody else published since; step again.
        """
        if step.change is None:
            return None
        head = publish(self.repository, step.change, self.key, self._ledger.head)
        self._ledger = self._ledger.after(head, step.changed, step.records)
        return head

    def _read_ledger(self) -> Ledger:
        head = self.repository.head
        if head is not None and head != self._ledger.head:
            self.trust = self.verify()
            self._ledger = read_ledger(head, self.repository.releases(), self.repository.walk("decisions"))
            self._decisions, self._settled = {}, {}
        return self._ledger

    def _decide(self, catalog: Catalog, world: World, ledger: Ledger) -> tuple[Decided, Sequence[Fault]]:
        index = self.fleet.index(catalog, world.facts)
        previous = {name: self._decisions.get(name, record.chosen) for name, record in ledger.records.items()}
        decided = decide_all(catalog, index, previous, world.now)
        return decided, decided.faults

    def _render(self, taken: Taken[Decided], used: _Cache, decision: Decision, values: Mapping[str, str]) -> Rendered:
        policy, version = decision.policy, decision.version
        parts = taken.catalog.parts(policy.kind, policy.subject, version)
        key = (policy.name, policy.kind, policy.subject, version, tuple(sorted(values.items())))
        known = used.get(key) or self._rendered.get(key)
        if known is not None and known[0] == parts:
            used[key] = known
            return known[1]
        artifact = self.pack(taken.catalog, taken.trees, policy.kind, policy.subject, version)
        made = render(taken.catalog, policy.kind, policy.subject, version, policy.name, values, artifact)
        used[key] = (parts, made)
        return made

    def _is_settled(self, name: str, entries: Sequence[Rendered], key: str) -> bool:
        return self._settled.get(name) == (entries, key)


def _fingerprints(catalog: Catalog, registered: Mapping[str, str]) -> dict[str, str]:
    """Return cluster → fingerprint; the key in a Cluster document outranks the registered one."""
    keys = dict(registered)
    keys.update((name, one.spec.key) for name, one in catalog.clusters.items() if one.spec.key is not None)
    return {name: fingerprint(key) for name, key in keys.items() if name in catalog.clusters}
