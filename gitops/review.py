"""A folder → what is wrong with it, before it is pushed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.wire.errors import EdgeferryError, Stop
from gitops.absent import Absent
from gitops.catalog import Cache, SourceDocuments, merge, nowhere, read
from gitops.catalog_checks import Checked, Elsewhere, notes
from gitops.deciding import Fleet, decide_all
from gitops.faults import Fault, FaultyCatalog
from gitops.folder import git, read_folder
from gitops.policy_notes import policy_notes
from gitops.snapshot import NO_FACTS, Snapshot
from gitops.source import SourceMirror


class BaseNotFound(Stop):
    """The commit to compare with is not there."""

    code = "EF1041"


@dataclass(frozen=True, slots=True)
class Review:
    """What was found in a folder.

    Attributes:
        faults: sorted; empty for none.
        notes: what is no fault and worth a look, sorted.
        counts: what → how many, of what can be read.
        elsewhere: references that were not checked, as what they name may stand in another source: ``Kind/name``.
    """

    faults: tuple[Fault, ...]
    notes: tuple[Fault, ...]
    counts: Mapping[str, int]
    elsewhere: tuple[str, ...]


def review(
    folder: Path, base: str | None, partial: bool, now: datetime, snapshot: Snapshot = NO_FACTS
) -> Review:  # fmt: skip
    """Return everything that is wrong with a folder, as the hub would find it.

    Args:
        folder: a model repository's, or any directory within one that a source would read.
        base: commit, branch or tag whose versions count as published; None to compare with nothing.
        partial: whether the folder is a further source: what it refers to may stand in the main one.
        now: for deciding, which finds placements that clash.
        snapshot: facts of the clusters, for what they can never meet.

    Raises:
        BaseNotFound: there is no such commit.
        FolderUnreadable: the folder cannot be read.
    """
    documents = read(read_folder(folder), Cache())
    published = {} if base is None else _identities(_base(folder, base))
    unseen: set[str] = set()
    elsewhere = _elsewhere(documents, partial, unseen)
    try:
        catalog = merge([documents], published, elsewhere)
    except FaultyCatalog as error:
        return Review(error.faults, (), _counts(documents), tuple(sorted(unseen)))
    faults: tuple[Fault, ...] = ()
    worth_a_look: list[Fault] = []
    if not unseen and not partial:
        checked = Checked(catalog, {documents.tree.source: documents}, nowhere)
        decided = decide_all(catalog, Fleet().index(catalog, snapshot.clusters), {}, snapshot.at or now)
        faults = tuple(sorted(decided.faults))
        worth_a_look = [*notes(checked), *policy_notes(checked, decided, with_facts=snapshot.at is not None)]
    elif not partial:
        worth_a_look = notes(Checked(catalog, {documents.tree.source: documents}, nowhere))
    return Review(faults, tuple(sorted(worth_a_look)), _counts(documents), tuple(sorted(unseen)))


def _elsewhere(documents: SourceDocuments, partial: bool, unseen: set[str]) -> Elsewhere:
    """Return what may stand in a source that is not read here; what was asked for is noted."""
    others = Absent(tuple(documents.sources().values()))

    def may(kind: str, name: str) -> bool:
        if not partial and not others.may_hold(kind, name):
            return False
        if not kind.endswith("Version"):
            unseen.add(f"{kind}/{name}")
        return True

    return may


def _base(folder: Path, base: str) -> SourceDocuments:
    commit = git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}")
    root = git(folder, "rev-parse", "--show-toplevel")
    prefix = git(folder, "rev-parse", "--show-prefix")
    if commit is None or root is None or prefix is None:
        raise BaseNotFound(f"no commit {base}", where=str(folder), do="fetch it first, or name another one")
    with TemporaryDirectory() as cache:
        mirror = SourceMirror("main", root.decode().rstrip("\n"), Path(cache), path=prefix.decode().strip() or ".")
        try:
            return read(mirror.tree(commit.decode().strip()), Cache())
        except EdgeferryError as error:
            raise BaseNotFound(f"{base} cannot be read: {error}", where=str(folder), do="name another one") from None


def _identities(documents: SourceDocuments) -> dict[str, str]:
    models = {f"model/{n}@{v}": one.identity for n, known in documents.models.items() for v, one in known.items()}
    workloads = {
        f"workload/{n}@{v}": one.identity for n, known in documents.workloads.items() for v, one in known.items()
    }
    return models | workloads


def _counts(documents: SourceDocuments) -> dict[str, int]:
    def count(kind: str) -> int:
        return len(documents.by_kind.get(kind, {}))

    versions = sum(len(known) for known in (*documents.models.values(), *documents.workloads.values()))
    return {
        "models": count("Model"),
        "workloads": count("Workload"),
        "versions": versions,
        "runtimes": count("Runtime"),
        "clusters": count("Cluster"),
        "placements": count("Placement"),
        "sources": count("Source"),
    }
