"""Sources → catalog: the newest commit of each source that has no fault, every source for itself.

A source with a fault stays at its last faultless commit, and so does one that cannot be read: silence is never an
instruction to delete. The other sources go on.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from agent.wire.errors import EdgeferryError
from gitops import kinds
from gitops.absent import Absent, Waiting, decidable
from gitops.catalog import Cache, SourceDocuments, merge, read
from gitops.catalog_types import Catalog
from gitops.faults import Fault, FaultyCatalog
from gitops.tree import Tree

T = TypeVar("T")
MAIN = "main"


class Source(Protocol):
    """Where one source's trees come from."""

    def newest(self) -> Tree:
        """Return the newest tree.

        Raises:
            EdgeferryError: it cannot be read now.
        """

    def at(self, revision: str) -> Tree:
        """Return the tree of an earlier commit."""


@dataclass(frozen=True, slots=True)
class Held:
    """Why a source is not at its newest commit.

    Attributes:
        revision: the commit that is not used; empty where the source cannot be read.
        faults: of that commit.
        message: one sentence.
        note: what else people should know of that commit; empty for nothing.
    """

    revision: str
    faults: tuple[Fault, ...]
    message: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Taken(Generic[T]):
    """What the sources declare now.

    Attributes:
        catalog: of the commits in ``catalog.revisions``.
        checked: what the check made of it.
        trees: source name → the tree in use; model bytes are read from it.
        held: source name → why it is not at its newest commit.
        waiting: models and workloads that cannot be decided, as a source was never readable and faultless.
    """

    catalog: Catalog
    checked: T
    trees: Mapping[str, Tree]
    held: Mapping[str, Held]
    waiting: Waiting


@dataclass(slots=True)
class Intake:
    """Remembers the last faultless commit of every source.

    Attributes:
        open_source: opens a source by its name and document; None for the main one.
        revisions: source name → last faultless commit known from the fleet repository, for the first read.
    """

    open_source: Callable[[str, kinds.Source | None], Source]
    revisions: Mapping[str, str] = field(default_factory=dict)
    _good: dict[str, tuple[Tree, SourceDocuments]] = field(default_factory=dict)
    _cache: Cache = field(default_factory=Cache)
    _last: tuple[tuple[SourceDocuments, ...], Absent, Catalog, Waiting] | None = None

    def take(self, published: Mapping[str, str], check: Callable[[Catalog], tuple[T, Sequence[Fault]]]) -> Taken[T]:
        """Read every source and return the newest faultless catalog.

        Args:
            published: identities of the versions that were published: they may not change.
            check: looks at a merged catalog as a whole, and returns what it made of it and the faults it found.

        Raises:
            FaultyCatalog: there is no faultless commit to fall back to.
            EdgeferryError: the main source cannot be read, and never could.
        """
        held: dict[str, Held] = {}
        parts = {MAIN: self._part(MAIN, None, held)}
        for name, document in sorted(parts[MAIN][1].sources().items()):
            part = self._optional(name, document, held)
            if part is not None:
                parts[name] = part
        while True:
            try:
                catalog, waiting = self._merged(parts, published)
                checked, faults = check(catalog)
                if faults:
                    raise FaultyCatalog(faults)
            except FaultyCatalog as error:
                self._fall_back(parts, held, error)
            else:
                self._good.update(parts)
                return Taken(catalog, checked, {name: tree for name, (tree, _) in parts.items()}, held, waiting)

    def _part(self, name: str, document: kinds.Source | None, held: dict[str, Held]) -> tuple[Tree, SourceDocuments]:
        """Return the newest part without faults of its own, or the last good one."""
        try:
            tree = self.open_source(name, document).newest()
        except EdgeferryError as error:
            known = self._last_good(name, document)
            if known is None:
                raise
            held[name] = Held("", (), str(error))
            return known
        good = self._good.get(name)
        if good is not None and good[0].revision == tree.revision and good[1].document == document:
            return good
        documents = read(tree, self._cache, document)
        if not documents.faults:
            return tree, documents
        known = self._last_good(name, document)
        if known is None:
            raise FaultyCatalog(documents.faults)
        held[name] = Held(tree.revision, documents.faults, str(FaultyCatalog(documents.faults)), tree.note)
        return known

    def _optional(
        self, name: str, document: kinds.Source, held: dict[str, Held]
    ) -> tuple[Tree, SourceDocuments] | None:
        """Return a further source's part; None, and a note, where it never was readable and faultless."""
        try:
            return self._part(name, document, held)
        except FaultyCatalog as error:
            held[name] = Held("", error.faults, str(error))
        except EdgeferryError as error:
            held[name] = Held("", (), str(error))
        return None

    def _last_good(self, name: str, document: kinds.Source | None) -> tuple[Tree, SourceDocuments] | None:
        good = self._good.get(name)
        if good is not None:
            return good if good[1].document == document else (good[0], read(good[0], self._cache, document))
        revision = self.revisions.get(name)
        if revision is None:
            return None
        try:
            tree = self.open_source(name, document).at(revision)
        except EdgeferryError:
            return None
        documents = read(tree, self._cache, document)
        return None if documents.faults else (tree, documents)

    def _merged(
        self, parts: Mapping[str, tuple[Tree, SourceDocuments]], published: Mapping[str, str]
    ) -> tuple[Catalog, Waiting]:
        documents = tuple(one for _, one in parts.values())
        absent = Absent(tuple(one for name, one in sorted(documents[0].sources().items()) if name not in parts))
        last = self._last
        same = last is not None and len(last[0]) == len(documents) and all(map(operator.is_, last[0], documents))
        if last is not None and same and last[1] == absent:
            return last[2], last[3]
        catalog, waiting = decidable(merge(documents, published, absent.may_hold), absent, published)
        self._last = (documents, absent, catalog, waiting)
        return catalog, waiting

    def _fall_back(
        self, parts: dict[str, tuple[Tree, SourceDocuments]], held: dict[str, Held], error: FaultyCatalog
    ) -> None:
        """Put the sources that the faults name back to their last good commit; else all; else give up."""
        named = {fault.source for fault in error.faults} & parts.keys()
        for names in (named - {MAIN}, named, set(parts)):
            moved = False
            for name in sorted(names):
                moved = self._put_back(name, parts, held, error) or moved
            if moved:
                return
        raise error

    def _put_back(
        self, name: str, parts: dict[str, tuple[Tree, SourceDocuments]], held: dict[str, Held], error: FaultyCatalog
    ) -> bool:
        tree, documents = parts[name]
        known = self._last_good(name, documents.document)
        faults = tuple(fault for fault in error.faults if fault.source == name) or error.faults
        if known is None or known[0].revision == tree.revision:
            if name == MAIN or not any(fault.source == name for fault in error.faults):
                return False
            del parts[name]  # a further source that never was faultless together with the others
        else:
            parts[name] = known
        held[name] = Held(tree.revision, faults, str(error), tree.note)
        return True
