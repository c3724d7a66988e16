"""Catalog and decision → entries: everything that makes one model or workload run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from agent.wire.canonical import Json, digest
from agent.wire.chart import helm_values
from agent.wire.errors import Stop
from agent.wire.model_signature import NAME as SIGNATURE
from agent.wire.model_signature import REQUIREMENT
from agent.wire.release import Artifact, Entry, ModelUse, Runtime, SelfTest, encode_entry, with_digest
from gitops import kinds, manifests
from gitops.catalog_types import Catalog, CatalogModel, CatalogWorkload, WorkloadVersion
from gitops.policies import merged_needs
from gitops.render import kubernetes
from gitops.render.mounts import mounted
from gitops.render.resources import pod_parts, resources


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """One entry as clusters get it; shared by all clusters that get the same.

    Attributes:
        entry: with its digest.
        encoded: the entry as JSON, made once.
        files: path within the overlay → bytes.
        digests: path within the overlay → sha256.
        manifests: those of ``files`` that Kustomize builds.
        objects: ``apiVersion/kind/namespace/name`` of every object in them.
    """

    entry: Entry
    encoded: dict[str, Json]
    files: Mapping[str, bytes]
    digests: Mapping[str, str]
    manifests: tuple[str, ...]
    objects: frozenset[str]


class UnsignedVersion(Stop):
    """A version must be signed where it is placed, and has no signature."""

    code = "EF3310"


Artifacts = tuple[Artifact, ...]
"""Where a version's bytes are: of a chart the chart first."""


class NotRunnable(Stop):
    """A version has nothing that its delivery could run."""

    code = "EF3020"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be rendered.

    Attributes:
        kind: ``model`` or ``workload``.
        name: of the model or workload.
        version: one of its versions.
        variant: of the version; empty for the version itself.
        placement: name of the placement that chose it.
        values: overrides, over its own values.
    """

    kind: str
    name: str
    version: str
    variant: str
    placement: str
    values: Mapping[str, str]


def render(catalog: Catalog, wanted: Wanted, artifacts: Artifacts) -> Rendered:
    """Render one model or workload version.

    Args:
        catalog: checked, so that no reference dangles.
        wanted: what.
        artifacts: where its bytes are.

    Raises:
        NotRunnable: the delivery cannot run what the version holds.
    """
    return (_model if wanted.kind == "model" else _workload)(catalog, wanted, artifacts)


def _model(catalog: Catalog, wanted: Wanted, artifacts: Artifacts) -> Rendered:
    found = catalog.models[wanted.name]
    spec, version = found.document.spec, found.versions[wanted.version]
    form = version.variant(wanted.variant)
    image = version.spec.image if form is None else form.image
    entry = Entry(
        kind="model",
        name=wanted.name,
        version=wanted.version,
        delivery=spec.delivery,
        placement=wanted.placement,
        namespace=spec.namespace,
        artifacts=artifacts,
        images=() if image is None else (f"{image.ref}@{image.digest}",),
        values={**spec.values, **wanted.values},
        switch=spec.switch,
        runtime=None if spec.runtime is None else _runtime(spec.runtime, catalog.runtimes[spec.runtime].spec),
    )
    files: dict[str, bytes] = {}
    if spec.delivery == "chart":
        return _rendered(*_signed(catalog, wanted, _charted(entry), files), [])
    if spec.self_test is not None:
        entry, files = _self_test(entry, found, spec.self_test)
    if artifacts:
        entry, files = _signed(catalog, wanted, entry, files)
    needs = spec.needs if form is None else merged_needs(form.needs, spec.needs)
    ask = kubernetes.Ask(resources(needs), pod_parts(needs, catalog.nodes(wanted.placement)))
    return _rendered(entry, files, _model_objects(catalog, found, wanted, entry, ask))


def _signed(catalog: Catalog, wanted: Wanted, entry: Entry, files: dict[str, bytes]) -> tuple[Entry, dict[str, bytes]]:
    """Return a model's entry and files with its version's signature; a variant has none of its own."""
    version = catalog.models[wanted.name].versions[wanted.version]
    signature = b"" if wanted.variant else version.signature
    if catalog.must_be_signed(wanted.placement):
        if not signature:
            form = f" variant {wanted.variant}" if wanted.variant else ""
            what = f"model {wanted.name} {wanted.version}{form} has no model.sig"
            raise UnsignedVersion(
                f"{what}, and placement {wanted.placement} wants one",
                where=version.where,
                do="sign it: `edgeferry model sign`, and commit model.sig beside the version's files",
            )
        entry = replace(entry, requires=(*entry.requires, REQUIREMENT))
    return entry, files | ({f"{entry.directory}/{SIGNATURE}": signature} if signature else {})


def _workload(catalog: Catalog, wanted: Wanted, artifacts: Artifacts) -> Rendered:
    found: CatalogWorkload = catalog.workloads[wanted.name]
    spec = found.document.spec
    chosen: WorkloadVersion = found.versions[wanted.version]
    host = spec.host
    entry = Entry(
        kind="workload",
        name=wanted.name,
        version=wanted.version,
        delivery="manifests",
        placement=wanted.placement,
        namespace=spec.namespace,
        artifacts=artifacts,
        values={**spec.values, **wanted.values},
        runtime=None
        if host is None
        else Runtime(
            name="",
            protocol="http" if host.port and host.ready_path else "",
            port=1 if host.port else 0,
            path=host.ready_path,
            command=host.command,
        ),
        models=tuple(ModelUse(use.name, use.version, use.mount, use.on_change) for use in spec.models),
    )
    if chosen.chart is not None:
        return _rendered(_charted(entry), {}, [])
    objects = [
        (
            file.removesuffix(".yml").removesuffix(".yaml") + (f"-{n}" if n else ""),
            mounted(kubernetes.labelled(manifest, entry), entry.models),
        )
        for file, data in sorted(chosen.manifests.items())
        for n, manifest in enumerate(manifests.load(data))
    ]
    return _rendered(entry, {}, objects)


def _charted(entry: Entry) -> Entry:
    """Return the entry as a Helm release: the agent's Helm makes the objects.

    Raises:
        BadChartValue: a placement's values contradict the model's.
    """
    helm_values(entry.values, f"{entry.kind} {entry.name} {entry.version}")
    return replace(entry, delivery="chart", requires=("chart",), release=entry.name)


def _model_objects(
    catalog: Catalog, found: CatalogModel, wanted: Wanted, entry: Entry, ask: kubernetes.Ask
) -> Iterable[tuple[str, kubernetes.Object]]:
    spec = found.document.spec
    version = found.versions[wanted.version]
    form = version.variant(wanted.variant)
    if spec.delivery == "server":
        assert spec.runtime is not None
        runtime = catalog.runtimes[spec.runtime].spec
        if runtime.image is None:
            return []
        served = Runtime(spec.runtime, runtime.image, runtime.port, runtime.protocol, runtime.path, runtime.args)
        image = version.spec.image if form is None else form.image
        content = version.content if form is None else version.contents.get(form.name)
        path = image.path if image is not None else ""
        return _named(kubernetes.server(entry, served, _one_file(content), path, ask))
    if spec.delivery == "container":
        if not entry.images:
            what = f"model {entry.name} {wanted.version} has no image"
            raise NotRunnable(what, where=version.where, do="set spec.image")
        return _named(kubernetes.container(entry, spec.port or 0, ask))
    return []


def _one_file(content: Any) -> str:
    if content is None or len(content.files) != 1:
        return ""
    path: str = content.files[0].path
    return path[len(content.root) :].lstrip("/") if content.root else path


def _named(objects: Iterable[kubernetes.Object]) -> list[tuple[str, kubernetes.Object]]:
    return [(one["kind"].lower(), one) for one in objects]


def _runtime(name: str, spec: kinds.RuntimeSpec) -> Runtime:
    return Runtime(
        name=name,
        image=spec.image or "",
        port=spec.port,
        protocol=spec.protocol,
        path="" if spec.protocol == "v2" else spec.path,
        command=() if spec.host is None else spec.host.command,
    )


def _self_test(entry: Entry, found: CatalogModel, spec: kinds.SelfTestSpec) -> tuple[Entry, dict[str, bytes]]:
    question, answer = (f"{entry.directory}/selftest/{name}.json" for name in ("input", "output"))
    test = SelfTest(input=question, output=answer, tolerance=format(Decimal(repr(spec.tolerance)).normalize(), "f"))
    return replace(entry, self_test=test), {question: found.files[spec.input], answer: found.files[spec.output]}


def _rendered(entry: Entry, files: dict[str, bytes], objects: Iterable[tuple[str, kubernetes.Object]]) -> Rendered:
    built = {f"{entry.directory}/{name}.yaml": one for name, one in objects}
    files = files | {path: kubernetes.to_yaml(one) for path, one in built.items()}
    # The placement's name stands on the objects for people to see; it is no part of what runs.
    covered = {path: kubernetes.to_yaml(_without_placement(one)) for path, one in built.items()}
    entry = with_digest(entry, files | covered)
    return Rendered(
        entry=entry,
        encoded=encode_entry(entry),
        files=files,
        digests={path: digest(data) for path, data in files.items()},
        manifests=tuple(built),
        objects=identities(entry, built.values()),
    )


def _without_placement(one: kubernetes.Object) -> kubernetes.Object:
    metadata = one["metadata"]
    kept = {key: value for key, value in metadata["labels"].items() if key != "edgeferry.dev/placement"}
    return {**one, "metadata": {**metadata, "labels": kept}}


def identities(entry: Entry, objects: Iterable[kubernetes.Object]) -> frozenset[str]:
    """Return ``apiVersion/kind/namespace/name`` of what an entry brings: its objects, or its Helm release."""
    release = {f"helm.sh/v3/Release/{entry.namespace}/{entry.release}"} if entry.release else set()
    return frozenset({*release, *map(object_identity, objects)})


def object_identity(one: kubernetes.Object) -> str:
    """Return ``apiVersion/kind/namespace/name`` of an object."""
    metadata = one["metadata"]
    return f"{one['apiVersion']}/{one['kind']}/{metadata['namespace']}/{metadata['name']}"
