"""Catalog and decision → entries: everything that makes one model or workload run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from agent.wire.canonical import Json, digest
from agent.wire.errors import Stop
from agent.wire.model_signature import NAME as SIGNATURE
from agent.wire.model_signature import REQUIREMENT
from agent.wire.release import Artifact, Entry, ModelUse, Runtime, SelfTest, encode_entry, with_digest
from gitops import kinds, manifests
from gitops.catalog_types import Catalog, CatalogModel, CatalogWorkload, WorkloadVersion
from gitops.render import kubernetes
from gitops.render.mounts import mounted


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


class NotRunnable(Stop):
    """A version has nothing that its delivery could run."""

    code = "EF3020"


def render(
    catalog: Catalog,
    kind: str,
    name: str,
    version: str,
    placement: str,
    values: Mapping[str, str],
    artifact: Artifact | None,
) -> Rendered:
    """Render one model or workload version.

    Args:
        catalog: checked, so that no reference dangles.
        kind: ``model`` or ``workload``.
        name: of the model or workload.
        version: one of its versions.
        placement: name of the placement that chose it.
        values: overrides, over its own values.
        artifact: where its bytes are; None where it has none of its own.

    Raises:
        NotRunnable: the delivery cannot run what the version holds.
    """
    make = _model if kind == "model" else _workload
    return make(catalog, name, version, placement, values, artifact)


def _model(
    catalog: Catalog, name: str, version: str, placement: str, values: Mapping[str, str], artifact: Artifact | None
) -> Rendered:
    found = catalog.models[name]
    spec, wanted = found.document.spec, found.versions[version].spec
    image = wanted.image
    entry = Entry(
        kind="model",
        name=name,
        version=version,
        delivery=spec.delivery,
        placement=placement,
        namespace=spec.namespace,
        artifacts=() if artifact is None else (artifact,),
        images=() if image is None else (f"{image.ref}@{image.digest}",),
        values={**spec.values, **values},
        switch=spec.switch,
        runtime=None if spec.runtime is None else _runtime(spec.runtime, catalog.runtimes[spec.runtime].spec),
    )
    files: dict[str, bytes] = {}
    if spec.self_test is not None:
        entry, files = _self_test(entry, found, spec.self_test)
    if artifact is not None:
        signature = found.versions[version].signature
        if catalog.must_be_signed(placement):
            if not signature:
                raise UnsignedVersion(
                    f"model {name} {version} has no model.sig, and placement {placement} wants one",
                    where=found.versions[version].where,
                    do="sign it: `edgeferry model sign`, and commit model.sig beside the version's files",
                )
            entry = replace(entry, requires=(*entry.requires, REQUIREMENT))
        if signature:
            files[f"{entry.directory}/{SIGNATURE}"] = signature
    return _rendered(entry, files, _model_objects(catalog, found, version, entry))


def _workload(
    catalog: Catalog, name: str, version: str, placement: str, values: Mapping[str, str], artifact: Artifact | None
) -> Rendered:
    found: CatalogWorkload = catalog.workloads[name]
    spec = found.document.spec
    chosen: WorkloadVersion = found.versions[version]
    host = spec.host
    entry = Entry(
        kind="workload",
        name=name,
        version=version,
        delivery="manifests",
        placement=placement,
        namespace=spec.namespace,
        artifacts=() if artifact is None else (artifact,),
        values={**spec.values, **values},
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
    objects = [
        (
            file.removesuffix(".yml").removesuffix(".yaml") + (f"-{n}" if n else ""),
            mounted(kubernetes.labelled(manifest, entry), entry.models),
        )
        for file, data in sorted(chosen.manifests.items())
        for n, manifest in enumerate(manifests.load(data))
    ]
    return _rendered(entry, {}, objects)


def _model_objects(
    catalog: Catalog, found: CatalogModel, version: str, entry: Entry
) -> Iterable[tuple[str, kubernetes.Object]]:
    spec = found.document.spec
    chosen = found.versions[version]
    if spec.delivery == "server":
        assert spec.runtime is not None
        runtime = catalog.runtimes[spec.runtime].spec
        if runtime.image is None:
            return []
        served = Runtime(spec.runtime, runtime.image, runtime.port, runtime.protocol, runtime.path, runtime.args)
        path = chosen.spec.image.path if chosen.spec.image is not None else ""
        return _named(kubernetes.server(entry, served, _one_file(chosen.content), path))
    if spec.delivery == "container":
        if not entry.images:
            raise NotRunnable(f"model {entry.name} {version} has no image", where=chosen.where, do="set spec.image")
        return _named(kubernetes.container(entry, spec.port or 0))
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
        objects=frozenset(map(object_identity, built.values())),
    )


def _without_placement(one: kubernetes.Object) -> kubernetes.Object:
    metadata = one["metadata"]
    kept = {key: value for key, value in metadata["labels"].items() if key != "edgeferry.dev/placement"}
    return {**one, "metadata": {**metadata, "labels": kept}}


def object_identity(one: kubernetes.Object) -> str:
    """Return ``apiVersion/kind/namespace/name`` of an object."""
    metadata = one["metadata"]
    return f"{one['apiVersion']}/{one['kind']}/{metadata['namespace']}/{metadata['name']}"
