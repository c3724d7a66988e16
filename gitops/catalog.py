"""Sources → one catalog, cross-checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from gitops import kinds
from gitops.catalog_checks import Checked, Elsewhere, check
from gitops.catalog_types import Catalog, CatalogModel, CatalogVersion, CatalogWorkload, WorkloadVersion
from gitops.documents import Located
from gitops.faults import DUPLICATE_DOCUMENT, Fault, FaultyCatalog
from gitops.source_documents import SourceDocuments as SourceDocuments
from gitops.source_documents import duplicate
from gitops.source_documents import read as read
from gitops.source_files import Cache as Cache

V = TypeVar("V", CatalogVersion, WorkloadVersion)
D = TypeVar("D", bound=kinds.Document)


def nowhere(kind: str, name: str) -> bool:
    """Say that everything was read: a reference that is not found dangles."""
    return False


def merge(sources: Sequence[SourceDocuments], published: Mapping[str, str], elsewhere: Elsewhere = nowhere) -> Catalog:
    """Return the catalog of all sources; mappings in it are sorted by name.

    Args:
        sources: as read, the main one first, the others in the order that settles who comes first.
        published: ``model/NAME@VERSION`` or ``workload/NAME@VERSION`` → identity that was published.
        elsewhere: what may stand in a source that was not read; nothing, unless only a part is looked at.

    Raises:
        FaultyCatalog: with every fault of every source, and between them.
    """
    found: list[Fault] = [fault for source in sources for fault in source.faults]
    catalog = _together(sources, found)
    found += check(Checked(catalog, {one.tree.source: one for one in sources}, elsewhere), published)
    if found:
        raise FaultyCatalog(list(dict.fromkeys(found)))
    return catalog


def _together(sources: Sequence[SourceDocuments], found: list[Fault]) -> Catalog:
    every = {kind: _union(sources, kind, found) for kind in kinds.KINDS}
    owners = {
        kind: {name: source.tree.source for source in reversed(sources) for name in source.by_kind.get(kind, {})}
        for kind in ("Model", "Workload")
    }
    self_tests = {name: files for source in reversed(sources) for name, files in source.self_tests.items()}
    model_versions = _versions([source.models for source in sources], sources, found)
    workload_versions = _versions([source.workloads for source in sources], sources, found)
    fleet = next(iter(_documents(every["Fleet"], kinds.Fleet).values()), None)
    return Catalog(
        revisions={source.tree.source: source.tree.revision for source in sources},
        fleet=kinds.FleetSpec() if fleet is None else fleet.spec,
        sources=_documents(every["Source"], kinds.Source),
        clusters=_documents(every["Cluster"], kinds.Cluster),
        models={
            name: CatalogModel(
                name=name,
                source=owners["Model"][name],
                document=document,
                versions=_withdrawn(document, model_versions.get(name, {})),
                files=self_tests.get(name, {}),
                where=every["Model"][name].where,
            )
            for name, document in _documents(every["Model"], kinds.Model).items()
        },
        workloads={
            name: CatalogWorkload(
                name=name,
                source=owners["Workload"][name],
                document=document,
                versions=workload_versions.get(name, {}),
                where=every["Workload"][name].where,
            )
            for name, document in _documents(every["Workload"], kinds.Workload).items()
        },
        runtimes=_documents(every["Runtime"], kinds.Runtime),
        placements=_documents(every["Placement"], kinds.Placement),
        where={f"{kind}/{name}": one.where for kind, known in every.items() for name, one in known.items()},
    )


def _union(sources: Sequence[SourceDocuments], kind: str, found: list[Fault]) -> dict[str, Located]:
    known: dict[str, Located] = {}
    for source in sources:
        mine = source.by_kind.get(kind, {})
        if kind != "ModelVersion":  # versions are looked at by themselves, with those that are only folders
            twice = known.keys() & mine.keys()
            found += [duplicate(source.tree, mine[name], known[name].where) for name in sorted(twice)]
        known = {**mine, **known}
    return dict(sorted(known.items()))


def _documents(known: Mapping[str, Located], kind: type[D]) -> dict[str, D]:
    return {name: one.document for name, one in known.items() if isinstance(one.document, kind)}


def _versions(
    parts: Sequence[Mapping[str, Mapping[str, V]]], sources: Sequence[SourceDocuments], found: list[Fault]
) -> dict[str, dict[str, V]]:
    together: dict[str, dict[str, V]] = {}
    for part, source in zip(parts, sources, strict=True):
        for name, versions in part.items():
            known = together.setdefault(name, {})
            for version, one in versions.items():
                other = known.setdefault(version, one)
                if other is not one:
                    what = f"version {version} of {name} stands at {other.where} too"
                    path = one.where.partition(":")[0]
                    found.append(DUPLICATE_DOCUMENT.at(path, what, "keep one of them", source=source.tree.source))
    return {name: dict(sorted(versions.items())) for name, versions in together.items()}


def _withdrawn(model: kinds.Model, versions: Mapping[str, CatalogVersion]) -> Mapping[str, CatalogVersion]:
    reasons = {one.version: one.reason for one in model.spec.withdrawn}
    if not reasons:
        return versions
    return {
        version: replace(one, withdrawn=reasons[version]) if version in reasons else one
        for version, one in versions.items()
    }
