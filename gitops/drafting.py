"""What every cluster is to have → overlays that change, with what the guards hold back left as it is. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from agent.wire.release import Retire
from gitops import changes
from gitops.catalog_types import Catalog
from gitops.changes import Edges, Move, Published
from gitops.document_checks import PROTECT
from gitops.faults import PROTECTED, Fault
from gitops.guards import Guarded, Limits, guard
from gitops.orders import Ordered
from gitops.render.entries import Rendered
from gitops.render.overlay import Draft, Manner, ObjectClash, Stamp
from gitops.rolling import Kept, Rolled
from placement.types import Decision

Lists = Mapping[str, Sequence[Rendered]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """The overlays of a step.

    Attributes:
        drafts: that differ from what is published.
        lists: cluster → its entries, with what the guards hold back.
        moves: what the drafts mean, entry by entry.
        guarded: what is held back.
        clashes: clusters whose entries declare the same object.
    """

    drafts: list[Draft]
    lists: dict[str, Sequence[Rendered]]
    moves: list[Move]
    guarded: Guarded
    clashes: list[ObjectClash]


@dataclass(frozen=True, slots=True)
class Desk:
    """What drawing up overlays needs besides the entries; see ``changes.drafts``."""

    before: Mapping[str, Published]
    edges: Edges
    stamp: Stamp
    kept: Collection[str]
    settled: Callable[[str, Sequence[Rendered], str], bool]
    manners: Mapping[str, Manner]
    retire: Retire

    def draw(self, lists: Lists, before: Mapping[str, Published]) -> tuple[list[Draft], list[ObjectClash]]:
        """Return the overlays that differ, and those that clash within themselves."""
        return changes.drafts(lists, before, self.edges, self.stamp, self.kept, self.settled, self.manners, self.retire)


def drawn(
    lists: Mapping[str, Sequence[Rendered]],
    desk: Desk,
    decisions: Mapping[str, Decision],
    rolled: Rolled,
    ordered: Ordered,
    limits: Limits,
    kept: Kept,
) -> Drawn:
    """Draw up the overlays, and again without the moves that the guards hold back.

    Args:
        lists: cluster → its entries.
        desk: see there.
        decisions: by name.
        rolled: whose changes go by waves.
        ordered: what people ordered.
        limits: of the guards.
        kept: gives the entry that a cluster has.
    """
    drafts, clashes = desk.draw(lists, desk.before)
    moves = changes.moves(drafts, lists, desk.before)
    guarded = guard(moves, _owners(moves, decisions), desk.before, ordered, limits)
    after = dict(lists)
    if guarded.moves:
        touched = {move.cluster for move in guarded.moves}
        for move in guarded.moves:
            if move.cluster not in lists:
                continue  # its document is gone: it is not retired yet
            others = [one for one in after[move.cluster] if (one.entry.kind, one.entry.name) != (move.kind, move.name)]
            if move.before:
                others.append(kept(move.before_digest, move.cluster, move.kind, move.name))
            after[move.cluster] = tuple(others)
        some = {name: after[name] for name in touched if name in after}
        again, more = desk.draw(some, {name: desk.before[name] for name in some if name in desk.before})
        drafts = [one for one in drafts if one.cluster not in touched] + again
        clashes = [one for one in clashes if one.where not in touched] + more
        moves = changes.moves(drafts, after, desk.before)
    return Drawn(drafts, after, moves, guarded, clashes)


def limits(catalog: Catalog, rolled: Rolled, approved: Collection[str], published: Mapping[str, Published]) -> Limits:
    """Return what the guards of a fleet go by."""
    text = catalog.fleet.blast_radius
    documents = protected(catalog)
    stays = catalog.fleet.retire == "keep"
    return Limits(
        staged=rolled.staged,
        reverted=rolled.reverted,
        protected={name[0].lower() + name[1:] for name in documents},
        documents=documents,
        leaving=published.keys() - catalog.clusters.keys() if stays else frozenset(),
        percent=int(text[:-1]) if text.endswith("%") else None,
        most=0 if text.endswith("%") else int(text),
        approved=approved,
    )


def protected(catalog: Catalog) -> frozenset[str]:
    """Return ``Kind/NAME`` of the documents that may not be deleted."""
    documents = {
        "Cluster": catalog.special,
        "Model": {name: one.document for name, one in catalog.models.items()},
        "Placement": catalog.placements,
        "Workload": {name: one.document for name, one in catalog.workloads.items()},
    }
    return frozenset(
        f"{kind}/{name}"
        for kind, known in documents.items()
        for name, one in known.items()
        if one.metadata.annotations.get(PROTECT) == "true"
    )


def missing(catalog: Catalog, before: Collection[str]) -> list[Fault]:
    """Return a fault for every protected document that is gone; one that was freed first may go.

    Args:
        catalog: of the commit.
        before: ``Kind/NAME`` of what was protected when it was published last.
    """
    known = {
        "Cluster": catalog.clusters,
        "Model": catalog.models,
        "Placement": catalog.placements,
        "Workload": catalog.workloads,
    }
    found = []
    for one in sorted(before):
        kind, _, name = one.partition("/")
        if name not in known.get(kind, {}):
            what = f"{kind} {name} is protected, and its document is gone"
            do = f"put it back; to delete it, first commit it without the annotation {PROTECT}"
            found.append(PROTECTED.at(f"{kind.lower()}s/{name}", what, do))
    return found


def _owners(moves: Sequence[Move], decisions: Mapping[str, Decision]) -> dict[tuple[str, str, str], str]:
    by_subject: dict[tuple[str, str], list[Decision]] = {}
    for one in decisions.values():
        by_subject.setdefault((one.policy.kind, one.policy.subject), []).append(one)
    return {
        (move.cluster, move.kind, move.name): one.policy.name
        for move in moves
        for one in by_subject.get((move.kind, move.name), ())
        if move.cluster in one.chosen
    }
