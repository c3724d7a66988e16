"""Why a model or workload runs where it runs, and why the others lost, for any commit of a model repository."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.wire.errors import Stop
from gitops.catalog_types import Catalog
from gitops.deciding import Decided, Fleet, Previous, decide_all, incumbents
from gitops.intake import Intake
from gitops.ledger import read_ledger
from gitops.opening import FleetHome, open_repository, revisions, source_opener
from gitops.policies import to_subject, to_workload_subject
from placement.explain import Explanation, Summary, explain_cluster, explain_model
from placement.scene import Scene
from placement.types import Subject


class NothingToExplain(Stop):
    """No model, workload or cluster bears this name, or no placement names it."""

    code = "EF1103"


@dataclass(frozen=True, slots=True)
class Explained:
    """The answer: one part for every placement of the model or workload."""

    parts: tuple[Summary | Explanation, ...]


def explain(folder: str, revision: str | None, fleet: str | None, name: str, cluster: str | None) -> Explained:
    """Explain a model or workload, for the whole fleet or for one cluster.

    Args:
        folder: model repository: a path, or a URL with ``revision``.
        revision: branch, tag or commit; None for what stands in the folder.
        fleet: fleet repository, for who was chosen before; None decides as if for the first time.
        name: of a model or workload.
        cluster: its name; None for the whole fleet.

    Raises:
        NothingToExplain: a name is unknown.
        EdgeferryError: the documents have faults.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    with TemporaryDirectory(prefix="edgeferry-explain-") as work:
        previous: Previous = {}
        known: dict[str, str] = {}
        if fleet is not None:
            repository = open_repository(FleetHome(fleet), Path(work, "fleet.git"), create=False)
            ledger = read_ledger(repository.head, (), repository.walk("decisions"))
            previous = {key: incumbents(record) for key, record in ledger.records.items()}
            known = revisions(repository)
        intake = Intake(source_opener(folder, revision, Path(work, "sources")), known)
        taken = intake.take({}, lambda catalog: _decide(catalog, previous, now))
    catalog, decided = taken.catalog, taken.checked
    subject = _subject(catalog, name)
    mine = [one for one in decided.decisions.values() if (one.policy.kind, one.policy.subject) == (subject.kind, name)]
    if not mine:
        raise NothingToExplain(f"no placement names {subject.kind} {name}", do="write one under placements/")
    if cluster is None:
        return Explained(tuple(explain_model(one) for one in mine))
    if cluster not in catalog.clusters:
        raise NothingToExplain(f"no cluster {cluster}", do=_near(cluster, catalog.clusters))
    every = [(one, decided.subjects[key]) for key, one in decided.decisions.items()]
    return Explained(
        tuple(
            explain_cluster(one, subject, cluster, decided.scenes.get(one.policy.name, Scene()), now, every)
            for one in mine
        )
    )


def _decide(catalog: Catalog, previous: Previous, now: datetime) -> tuple[Decided, tuple[()]]:
    index = Fleet().index(catalog, {})
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
