"""One tree → everything it declares, and every fault that it has by itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from gitops import faults, kinds, layout, version_folders
from gitops.catalog_types import CatalogVersion, WorkloadVersion
from gitops.documents import Located
from gitops.faults import Fault
from gitops.names import fits
from gitops.source_files import Cache, SourceFiles
from gitops.tree import Tree
from gitops.version_folders import Folder

_OWN_FILE: Final = re.compile(r"(?:models|workloads)/([^/]+)/(?:model|workload)\.ya?ml\Z")


@dataclass(frozen=True, slots=True, eq=False)
class SourceDocuments:
    """What one source declares at one commit.

    Attributes:
        tree: that it was read from.
        document: the Source that admits it; None for the main source.
        by_kind: kind → name (of a ModelVersion: ``NAME@VERSION``; of the Fleet: empty) → document.
        models: model → version → version, of every version that stands here.
        workloads: workload → version → version.
        self_tests: model → path within its directory → bytes.
        broken: (kind, name) of what has faults: references to it do not dangle.
        faults: every fault that this source has by itself, sorted.
    """

    tree: Tree
    document: kinds.Source | None
    by_kind: Mapping[str, Mapping[str, Located]]
    models: Mapping[str, Mapping[str, CatalogVersion]]
    workloads: Mapping[str, Mapping[str, WorkloadVersion]]
    self_tests: Mapping[str, Mapping[str, bytes]]
    broken: frozenset[tuple[str, str]]
    faults: tuple[Fault, ...]

    def sources(self) -> dict[str, kinds.Source]:
        """Return the further sources that this one admits."""
        found = {name: one.document for name, one in self.by_kind.get("Source", {}).items()}
        return {name: one for name, one in found.items() if isinstance(one, kinds.Source)}


def read(tree: Tree, cache: Cache, document: kinds.Source | None = None) -> SourceDocuments:
    """Return everything that a tree declares; its faults are in the result, all of them.

    Documents and versions that did not change since the last read with the same cache are the same objects.

    Args:
        tree: one source at one commit.
        cache: of earlier reads; it is brought up to date.
        document: the Source that admits it, with what it may declare; None for the main source.
    """
    files = cache.sources.setdefault(tree.source, SourceFiles())
    known: SourceDocuments | None = cache.results.get(tree.source)
    if files.update(tree) or known is None or known.document != document:
        known = _Fold(files, tree).result(document)
    else:
        known = replace(known, tree=tree)
    cache.results[tree.source] = known
    return known


def duplicate(tree: Tree, located: Located, other: str) -> Fault:
    """Return the fault of a document that stands somewhere else too."""
    kind, name = located.document.kind, name_of(located.document)
    what = f"{kind} {name} stands at {other} too" if name else f"a {kind} stands at {other} too"
    place = ("metadata", "name")
    return version_folders.at(tree, located, place, faults.DUPLICATE_DOCUMENT, what, "keep one of them, or rename one")


def name_of(document: kinds.Document) -> str:
    """Return a document's name among those of its kind."""
    match document:
        case kinds.Fleet():
            return ""
        case kinds.ModelVersion():
            return f"{document.metadata.name}@{document.metadata.version}"
    name: str = document.metadata.name
    return name


def _order(located: Located) -> tuple[str, int]:
    return located.file.path, located.number


class _Fold:
    """Puts together what the files of one source say; faults gather on the way."""

    def __init__(self, files: SourceFiles, tree: Tree) -> None:
        self.files, self.tree = files, tree
        self.faults = list(files.collisions)
        self.by_kind: dict[str, dict[str, Located]] = {}
        self.broken: set[tuple[str, str]] = set()
        self.spoilt: set[str] = set()  # directories with a faulty file
        self.models: dict[str, dict[str, CatalogVersion]] = {}
        self.workloads: dict[str, dict[str, WorkloadVersion]] = {}
        self.self_tests: dict[str, Mapping[str, bytes]] = {}

    def result(self, document: kinds.Source | None) -> SourceDocuments:
        self.gather()
        self.folders(self.owners())
        if document is not None:
            self.check_allowed(document)
        if not self.by_kind and not self.faults:
            do = "`edgeferry init` makes a start; losing everything is not taken for an order to delete it"
            self.note(faults.SOURCE_EMPTY, ".", "no document of ours in this source", do)
        return SourceDocuments(
            tree=self.tree,
            document=document,
            by_kind=self.by_kind,
            models=self.models,
            workloads=self.workloads,
            self_tests=self.self_tests,
            broken=frozenset(self.broken),
            faults=tuple(sorted(set(self.faults))),
        )

    def note(self, code: faults.Code, path: str, what: str, do: str) -> None:
        self.faults.append(code.at(path, what, do, source=self.tree.source))

    def note_at(self, code: faults.Code, located: Located, place: tuple[str, ...], what: str, do: str) -> None:
        self.faults.append(version_folders.at(self.tree, located, place, code, what, do))

    def gather(self) -> None:
        twice: dict[tuple[str, str], list[Located]] = {}
        for path, parsed in self.files.parsed.items():
            if parsed.faults:
                self.spoilt.add(layout.parent(path))
                self.faults += parsed.faults
                self.broken |= parsed.broken
            for located in parsed.documents:
                name = name_of(located.document)
                kind = located.document.kind
                other = self.by_kind.setdefault(kind, {}).setdefault(name, located)
                if other is not located:
                    twice.setdefault((kind, name), [other]).append(located)
        for (kind, name), same in twice.items():
            first, *others = sorted(same, key=_order)
            self.by_kind[kind][name] = first
            self.faults += [duplicate(self.tree, one, first.where) for one in others]

    def owners(self) -> dict[str, list[Located]]:
        """Return directory → the models and workloads in it, whose ``versions/`` stand beside them."""
        owners: dict[str, list[Located]] = {}
        for kind in ("Model", "Workload"):
            for name, located in self.by_kind.get(kind, {}).items():
                path = located.file.path
                owners.setdefault(layout.parent(path), []).append(located)
                own = _OWN_FILE.match(path)
                if own is not None and own[1] != name:
                    do = f"rename the folder to {name}, or the {kind.lower()} to {own[1]}"
                    what = f"{kind} {name} stands in the folder {own[1]}"
                    self.note_at(faults.WRONG_FOLDER, located, ("metadata", "name"), what, do)
        return owners

    def folders(self, owners: Mapping[str, list[Located]]) -> None:
        for name, located in self.by_kind.get("Model", {}).items():
            self.read_self_test(name, located)
        for located in self.by_kind.get("Workload", {}).values():
            self.add_sourced(located)
        in_files: dict[tuple[str, str], Located] = {}
        for located in sorted(self.by_kind.get("ModelVersion", {}).values(), key=_order):
            stands = layout.standing(located.file.path)
            if stands.role != "version":
                self.stand_alone(located)
            elif in_files.setdefault((stands.owner, stands.version), located) is not located:
                do = "give each version a folder of its own"
                self.note_at(faults.WRONG_FOLDER, located, ("metadata", "version"), "a second version here", do)
        for key in sorted({*self.files.folders, *in_files}):
            folder = self.files.folders.get(key) or Folder(*key, {})
            self.folder(folder, owners.get(folder.owner, []), in_files.get(key))

    def folder(self, folder: Folder, owners: list[Located], located: Located | None) -> None:
        if len(owners) > 1:
            names = " and ".join(sorted(one.where for one in owners))
            do = "give each model and workload a directory of its own"
            self.note(faults.WRONG_FOLDER, folder.path, f"it could belong to {names}", do)
            return
        if not owners and located is None:
            self.ownerless(folder)
            return
        wrong = version_folders.misnamed(folder, self.tree.source)
        self.faults += wrong
        if wrong:
            return
        owner = owners[0].document if owners else None
        if not isinstance(owner, kinds.Workload):
            self.add_model(folder, None if owner is None else owner.metadata.name, located)
        elif located is None:
            self.add_workload(folder, owner)
        else:
            do = "take it out: a workload's version has no document"
            self.note_at(faults.WRONG_FOLDER, located, ("kind",), "a ModelVersion in a workload's folder", do)

    def ownerless(self, folder: Folder) -> None:
        top = folder.owner.partition("/")[0]
        if top not in ("models", "workloads") or folder.owner in self.spoilt:
            return  # somebody else's folder, or its model.yaml has faults of its own
        do = f"add {folder.owner}{top[:-1]}.yaml"
        self.note(faults.WRONG_FOLDER, folder.path, f"a version without its {top[:-1]}", do)

    def add_sourced(self, located: Located) -> None:
        document = located.document
        assert isinstance(document, kinds.Workload)
        if document.spec.source is not None:
            made = version_folders.sourced_version(located, document.spec.source)
            self.workloads.setdefault(document.metadata.name, {})[made.version] = made

    def add_workload(self, folder: Folder, document: kinds.Workload) -> None:
        key = ("workload", folder.owner, folder.version)
        made = self.files.once(key, self.faults, version_folders.workload_version, self.tree, folder, document)
        name = document.metadata.name
        if made is None:
            self.broken.add(("WorkloadVersion", name))
        else:
            other = self.workloads.setdefault(name, {}).setdefault(made.version, made)
            if other is not made:
                what = f"version {made.version} of {name} stands at {other.where} too"
                self.note(faults.DUPLICATE_DOCUMENT, folder.path, what, "keep one of them")

    def add_model(self, folder: Folder, model: str | None, located: Located | None) -> None:
        if located is not None:
            given = located.document.metadata
            for field, wanted in (("name", model or given.name), ("version", folder.version)):
                if getattr(given, field) != wanted:
                    what = f"{field} {getattr(given, field)} in the folder of {wanted}"
                    self.note_at(faults.WRONG_FOLDER, located, ("metadata", field), what, f"write {wanted}, or move it")
                    return
            model = given.name
        assert model is not None  # an owner or a version.yaml names it
        spoilt = located is None and any(f"{folder.path}version.{end}" in self.files.parsed for end in ("yaml", "yml"))
        key = ("model", folder.owner, folder.version)
        made = None
        if not spoilt:
            made = self.files.once(key, self.faults, version_folders.model_version, self.tree, folder, located)
        if made is None:
            self.broken.add(("ModelVersion", model))
        else:
            self.add_version(model, made, folder.path)

    def stand_alone(self, located: Located) -> None:
        document = located.document
        assert isinstance(document, kinds.ModelVersion)
        spec = document.spec
        places = [spec.artifact, spec.chart, *(one.artifact for one in spec.variants)]
        if any(one is not None and one.path is not None for one in places):
            do = "move it to models/NAME/versions/VERSION/version.yaml, or give a `ref`"
            place = ("spec", "artifact" if spec.chart is None or spec.chart.path is None else "chart", "path")
            self.note_at(faults.WRONG_FOLDER, located, place, "`path` outside a version's folder", do)
            self.broken.add(("ModelVersion", document.metadata.name))
            return
        made = version_folders.registered_version(located)
        self.add_version(document.metadata.name, made, located.file.path)

    def add_version(self, model: str, made: CatalogVersion, path: str) -> None:
        other = self.models.setdefault(model, {}).setdefault(made.version, made)
        if other is not made:
            what = f"version {made.version} of {model} stands at {other.where} too"
            self.note(faults.DUPLICATE_DOCUMENT, path, what, "keep one of them")

    def read_self_test(self, name: str, located: Located) -> None:
        assert isinstance(located.document, kinds.Model)
        test = located.document.spec.self_test
        if test is None:
            return
        folder = layout.parent(located.file.path)
        question, answer = self.files.files.get(folder + test.input), self.files.files.get(folder + test.output)
        made = self.files.once(
            ("self-test", name), self.faults, version_folders.self_test, self.tree, located, question, answer
        )
        self.self_tests[name] = made

    def check_allowed(self, document: kinds.Source) -> None:
        allow = document.spec.allow
        for kind, found in self.by_kind.items():
            for name, located in found.items():
                if kind not in allow.kinds:
                    what = f"source {document.metadata.name} may not hold a {kind}"
                    do = f"its Source allows {', '.join(allow.kinds)}"
                    self.note_at(faults.NOT_ALLOWED, located, ("kind",), what, do)
                elif not any(fits(one, name.partition("@")[0]) for one in allow.names):
                    what = f"source {document.metadata.name} may not use the name {name.partition('@')[0]}"
                    do = f"its Source allows {', '.join(allow.names)}"
                    self.note_at(faults.NOT_ALLOWED, located, ("metadata", "name"), what, do)
