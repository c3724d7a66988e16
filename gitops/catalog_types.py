"""The catalog: everything that one faultless set of source commits declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gitops import kinds
from gitops.tree import File

APPLICATION: Final = "app.kubernetes.io/part-of"
"""Label of models and workloads that belong together."""


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes of a version that stand in Git: one file, or the files of a folder.

    Attributes:
        source: of which source.
        root: directory that the paths of the packed artifact are relative to.
        files: sorted by path; Git LFS pointers among them are not resolved yet.
    """

    source: str
    root: str
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class CatalogVersion:
    """One model version.

    Attributes:
        version: semantic version.
        identity: digest that changes when the version's content does; known without reading model bytes.
        content: the bytes in Git, or None where ``spec`` refers to a registry.
        spec: of version.yaml; empty spec where there is none.
        contents: variant → its bytes in Git, of those that have any.
        chart: the chart in Git, or None where ``spec`` refers to a registry or there is none.
        withdrawn: the reason; empty for none.
        where: file:line:column, for messages.
        signature: ``model.sig`` of the version's folder; empty for none.
    """

    version: str
    identity: str
    content: Content | None
    spec: kinds.ModelVersionSpec
    withdrawn: str = ""
    where: str = ""
    signature: bytes = b""
    contents: Mapping[str, Content] = field(default_factory=dict)
    chart: Content | None = None

    def variant(self, name: str) -> kinds.VariantSpec | None:
        """Return a variant; None for the version itself."""
        return next((one for one in self.spec.variants if one.name == name), None)

    @property
    def has_chart(self) -> bool:
        """Whether it holds a chart, in Git or by reference."""
        return self.chart is not None or self.spec.chart is not None


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """One model with its versions.

    Attributes:
        files: path within the model's directory → bytes, of the small files that go into overlays (self-test).
    """

    name: str
    source: str
    document: kinds.Model
    versions: Mapping[str, CatalogVersion]
    files: Mapping[str, bytes] = field(default_factory=dict)
    where: str = ""


@dataclass(frozen=True, slots=True)
class WorkloadVersion:
    """One workload version.

    Attributes:
        identity: digest that changes when the folder's content does.
        manifests: file name → YAML bytes of the Kubernetes manifests in the version's folder, checked.
        content: the whole folder, packed for hosts; None where the workload has no ``host``.
        chart: the chart in Git, or by reference; None where it is manifests.
    """

    version: str
    identity: str
    manifests: Mapping[str, bytes]
    content: Content | None = None
    where: str = ""
    chart: Content | kinds.WorkloadSource | None = None


@dataclass(frozen=True, slots=True)
class CatalogWorkload:
    """One workload with its versions."""

    name: str
    source: str
    document: kinds.Workload
    versions: Mapping[str, WorkloadVersion]
    where: str = ""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything declared, cross-checked: no reference dangles.

    Attributes:
        revisions: source name → commit.
        where: ``Kind/name`` → file:line:column.
        special: those of ``clusters`` with any setting of their own, or annotations: few of many.
    """

    revisions: Mapping[str, str]
    fleet: kinds.FleetSpec
    sources: Mapping[str, kinds.Source]
    clusters: Mapping[str, kinds.Cluster]
    models: Mapping[str, CatalogModel]
    workloads: Mapping[str, CatalogWorkload]
    runtimes: Mapping[str, kinds.Runtime]
    placements: Mapping[str, kinds.Placement]
    where: Mapping[str, str] = field(default_factory=dict)
    special: Mapping[str, kinds.Cluster] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "special", {name: one for name, one in self.clusters.items() if _is_special(one)})

    def named(self) -> dict[str, frozenset[tuple[str, str]]]:
        """Return name of an application, model or workload → the entries, as (kind, name), that it stands for."""
        found: dict[str, set[tuple[str, str]]] = {}
        documents: list[tuple[str, Mapping[str, CatalogModel] | Mapping[str, CatalogWorkload]]]
        documents = [("model", self.models), ("workload", self.workloads)]
        for kind, known in documents:
            for name, one in known.items():
                found.setdefault(name, set()).add((kind, name))
                application = one.document.metadata.labels.get(APPLICATION)
                if application:
                    found.setdefault(application, set()).add((kind, name))
        return {name: frozenset(entries) for name, entries in found.items()}

    def must_be_signed(self, placement: str) -> bool:
        """Tell whether models that a placement places must be signed."""
        found = self.placements.get(placement)
        asked = None if found is None else found.spec.require_model_signature
        return self.fleet.require_model_signature if asked is None else asked

    def parts(self, kind: str, name: str, version: str, placement: str) -> tuple[object, ...]:
        """Return everything that a version is rendered from: equal parts render to equal entries."""
        if kind == "workload":
            workload = self.workloads[name]
            return (workload.document, workload.versions[version].identity)
        model = self.models[name]
        runtime = self.runtimes.get(model.document.spec.runtime or "")
        found = model.versions[version]
        signed = (found.signature, self.must_be_signed(placement))
        return (model.document, found.identity, runtime, model.files, signed)

    def nodes(self, placement: str) -> kinds.NodesSpec | None:
        """Return the nodes that a placement's pods may run on; None for any."""
        found = self.placements.get(placement)
        return None if found is None else found.spec.nodes


def _is_special(one: kinds.Cluster) -> bool:
    spec = one.spec
    plain = not spec.paused and not spec.windows and spec.connection == "online" and spec.key is None
    return not plain or spec.max_offline_age is not None or bool(one.metadata.annotations)
