"""Sources that were never readable: what refers to them waits, and what runs stays. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from gitops import kinds
from gitops.catalog_types import Catalog, CatalogModel, CatalogWorkload
from gitops.names import fits


@dataclass(frozen=True, slots=True)
class Absent:
    """Sources that are admitted and not there."""

    sources: tuple[kinds.Source, ...] = ()

    def holder(self, kind: str, name: str) -> str | None:
        """Return the source that may hold a document; None where none of these may."""
        for source in self.sources:
            allow = source.spec.allow
            if kind.replace("WorkloadVersion", "Workload") in allow.kinds and any(fits(n, name) for n in allow.names):
                return source.metadata.name
        return None

    def may_hold(self, kind: str, name: str) -> bool:
        """Tell whether a reference that is not found may be found there."""
        return self.holder(kind, name) is not None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Models and workloads that cannot be decided until a source is there.

    Attributes:
        absent: those sources.
        named: (kind, name) → the source that it waits for, of what the documents at hand name.
        present: (kind, name) of what can be decided.
    """

    absent: Absent = field(default_factory=Absent)
    named: Mapping[tuple[str, str], str] = field(default_factory=dict)
    present: frozenset[tuple[str, str]] = frozenset()

    def source(self, kind: str, name: str) -> str | None:
        """Return the source that a model or workload waits for; None where it waits for none."""
        if not self.absent.sources or (kind, name) in self.present:
            return None
        return self.named.get((kind, name)) or self.absent.holder(kind.title(), name)


def decidable(catalog: Catalog, absent: Absent, published: Mapping[str, str]) -> tuple[Catalog, Waiting]:
    """Return the part of a catalog in which no reference dangles, and what waits.

    Args:
        catalog: merged; what it refers to may stand in ``absent``.
        absent: sources that are not part of it.
        published: ``model/NAME@VERSION`` → identity; a model whose published version is not there waits, as it would
            go back to an older one.
    """
    if not absent.sources:
        return catalog, Waiting()
    found = {name: _awaited(catalog, model, absent, published) for name, model in catalog.models.items()}
    models = {name: model for name, model in catalog.models.items() if found[name] is None}
    waits = {("model", name): source for name, source in found.items() if source is not None}
    placements = {}
    for name, placement in catalog.placements.items():
        if placement.spec.models is not None:
            placements[name] = placement  # it selects among the models that are there
            continue
        kind, subject = _subject(placement)
        if subject in (models if kind == "model" else catalog.workloads):
            placements[name] = placement
        else:
            waits.setdefault((kind, subject), absent.holder(kind.title(), subject) or "")
    workloads = {}
    for name, workload in catalog.workloads.items():
        source = _followed(catalog, workload, models.keys(), waits, absent)
        if source is None:
            workloads[name] = workload
        else:
            waits["workload", name] = source
    present = {("model", name) for name in models} | {("workload", name) for name in workloads}
    left = replace(catalog, models=models, workloads=workloads, placements=placements)
    return left, Waiting(absent, waits, frozenset(present))


def _awaited(catalog: Catalog, model: CatalogModel, absent: Absent, published: Mapping[str, str]) -> str | None:
    spec = model.document.spec
    if spec.runtime is not None and spec.runtime not in catalog.runtimes:
        return absent.holder("Runtime", spec.runtime)
    source = absent.holder("ModelVersion", model.name)
    if source is None:
        return None
    prefix = f"model/{model.name}@"
    before = {one.removeprefix(prefix) for one in published if one.startswith(prefix)}
    wanted = before | set(spec.channels.values()) | {one.version for one in spec.withdrawn}
    return None if model.versions and wanted <= model.versions.keys() else source


def _followed(
    catalog: Catalog,
    workload: CatalogWorkload,
    models: Collection[str],
    waits: Mapping[tuple[str, str], str],
    absent: Absent,
) -> str | None:
    """Return the source that a workload waits for because it goes where its models go; None for none."""
    follows = workload.document.spec.placement
    if follows is None:
        return None
    leader = catalog.placements.get(follows.same_as)
    subjects = [("model", use.name) for use in workload.document.spec.models if use.name not in models]
    if leader is not None and leader.spec.models is None and _subject(leader) in waits:
        subjects.append(_subject(leader))
    sources = [waits.get(one) or absent.holder("Model", one[1]) for one in subjects]
    return next((one for one in sources if one), None)


def _subject(placement: kinds.Placement) -> tuple[str, str]:
    spec = placement.spec
    return ("model", spec.model) if spec.model is not None else ("workload", spec.workload or "")
