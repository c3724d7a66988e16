"""Why a model or workload runs where it runs, and why the others lost, for any commit of a model repository."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.wire.errors import Stop
from gitops.catalog_types import Catalog
from gitops.deciding import Decided, Fleet, Previous, decide_all, incumbents
from gitops.decisions import DecisionRecord
from gitops.intake import Intake
from gitops.ledger import read_ledger
from gitops.opening import FleetHome, open_repository, revisions, source_opener
from gitops.policies import to_subject, to_workload_subject
from gitops.snapshot import NO_FACTS, Snapshot, now_of
from placement.explain import Explanation, Summary, explain_cluster, explain_model
from placement.scene import Scene
from placement.types import Subject


class NothingToExplain(Stop):
    """No model, workload or cluster bears this name, or no placement names it."""

    code = "EF1103"


@dataclass(frozen=True, slots=True)
class Explained:
    """The answer: one part for every placement of the model or workload.

    Attributes:
        facts_at: time of the facts that were looked at; None for none.
        facts_refused: facts that did not count.
        published: placement → version that the fleet repository gives the cluster; empty for one that waits.
    """

    parts: tuple[Summary | Explanation, ...]
    facts_at: datetime | None = None
    facts_refused: tuple[str, ...] = ()
    published: Mapping[str, str] = field(default_factory=dict)


def explain(
    folder: str, revision: str | None, fleet: str | None, name: str, cluster: str | None, snapshot: Snapshot = NO_FACTS
) -> Explained:
    """Explain a model or workload, for the whole fleet or for one cluster.

    Args:
        folder: model repository: a path, or a URL with ``revision``.
        revision: branch, tag or commit; None for what stands in the folder.
        fleet: fleet repository, for who was chosen before; None decides as if for the first time.
        name: of a model or workload.
        cluster: its name; None for the whole fleet.
        snapshot: facts of the clusters; it is decided for the time that they are of.

    Raises:
        NothingToExplain: a name is unknown.
        EdgeferryError: the documents have faults.
    """
    now = now_of(snapshot)
    records: Mapping[str, DecisionRecord] = {}
    with TemporaryDirectory(prefix="edgeferry-explain-") as work:
        previous: Previous = {}
        known: dict[str, str] = {}
        if fleet is not None:
            repository = open_repository(FleetHome(fleet), Path(work, "fleet.git"), create=False)
            ledger = read_ledger(repository.head, (), repository.walk("decisions"))
            records = ledger.records
            previous = {key: incumbents(record) for key, record in ledger.records.items()}
            known = revisions(repository)
        intake = Intake(source_opener(folder, revision, Path(work, "sources")), known)
        taken = intake.take({}, lambda catalog: _decide(catalog, previous, snapshot, now))
    catalog, decided = taken.catalog, taken.checked
    subject = _subject(catalog, name)
    mine = [one for one in decided.decisions.values() if (one.policy.kind, one.policy.subject) == (subject.kind, name)]
    if not mine:
        raise NothingToExplain(f"no placement names {subject.kind} {name}", do="write one under placements/")
    if cluster is None:
        return Explained(tuple(explain_model(one) for one in mine), snapshot.at, snapshot.faults)
    if cluster not in catalog.clusters:
        raise NothingToExplain(f"no cluster {cluster}", do=_near(cluster, catalog.clusters))
    every = [(one, decided.subjects[key]) for key, one in decided.decisions.items()]
    parts = tuple(
        explain_cluster(one, subject, cluster, decided.scenes.get(one.policy.name, Scene()), now, every) for one in mine
    )
    published = {
        one.policy.name: records[one.policy.name].chosen[cluster].version
        for one in mine
        if one.policy.name in records and cluster in records[one.policy.name].chosen
    }
    return Explained(parts, snapshot.at, snapshot.faults, published)


def _decide(
    catalog: Catalog, previous: Previous, snapshot: Snapshot, now: datetime
) -> tuple[Decided, tuple[()]]:  # fmt: skip
    index = Fleet().index(catalog, snapshot.clusters)
    return decide_all(catalog, index, previous, now), ()


def _subject(catalog: Catalog, name: str) -> Subject:
    if name in catalog.models:
        return to_subject(catalog.models[name])
    if name in catalog.workloads:
        return to_workload_subject(catalog.workloads[name])
    raise NothingToExplain(f"no model or workload {name}", do=_near(name, [*catalog.models, *catalog.workloads]))


def _near(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {found[0]}?" if found else "see `edgeferry validate`"
