"""Which clusters keep the overlay that they have, and why: a fault holds back where it is, and nothing else. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from gitops.absent import Waiting
from gitops.catalog_types import Catalog
from gitops.changes import Published
from gitops.decisions import DecisionRecord
from gitops.render.groups import Stuck
from gitops.render.overlay import ObjectClash

PAUSED = "paused by its document"


def kept(
    catalog: Catalog,
    published: Mapping[str, Published],
    waiting: Waiting,
    stuck: Sequence[Stuck],
    paused: Collection[str] = (),
) -> dict[str, str]:
    """Return cluster → why its overlay is left as it is.

    Args:
        catalog: of this step.
        published: cluster → its release in the fleet repository.
        waiting: models and workloads that wait for a source: where they run, they stay.
        stuck: what could not be rendered, and for whom.
        paused: clusters that people have paused by an order.
    """
    found = {name: PAUSED for name, cluster in catalog.special.items() if cluster.spec.paused}
    found.update((name, "paused by an order") for name in paused if name not in found)
    for one in stuck:
        found.update((name, str(one.fault)) for name in one.clusters if name not in found)
    if waiting.absent.sources:
        for name, release in published.items():
            for kind, subject in release.entries:
                source = waiting.source(kind, subject)
                if source is not None:
                    found.setdefault(name, f"{kind} {subject} waits for source {source}, which cannot be used yet")
    return found


def clashing(clashes: Sequence[ObjectClash]) -> dict[str, str]:
    """Return cluster → the clash of its entries."""
    return {clash.where: str(clash) for clash in clashes}


def standing(
    records: Mapping[str, DecisionRecord],
    before: Mapping[str, DecisionRecord],
    waiting: Waiting,
    stuck: Sequence[Stuck],
) -> dict[str, DecisionRecord]:
    """Return the decisions as they are to stand: one that could not be carried out, or made, stays as it was.

    Args:
        records: of this step.
        before: in the fleet repository.
        waiting: see ``kept``.
        stuck: see ``kept``.
    """
    found = dict(records)
    for name in {one.decision for one in stuck}:
        found.pop(name)
        if name in before:
            found[name] = before[name]
    if waiting.absent.sources:
        found |= {
            name: record
            for name, record in before.items()
            if name not in records and waiting.source(record.kind, record.subject) is not None
        }
    return dict(sorted(found.items()))
