"""A version's bytes → the artifact store: files of Git and Git LFS are packed once, references stay references."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from agent.wire.canonical import canonical, digest
from agent.wire.release import Artifact
from gitops import kinds
from gitops.artifacts import ArtifactStore
from gitops.catalog_types import Catalog, Content
from gitops.charts import pack_chart
from gitops.oci_manifest import OCI_MANIFEST
from gitops.packing import PackFile, pack
from gitops.tree import File, Tree

_POINTER_BYTES: Final = 1024

OpenLarge = Callable[[Tree, File, bytes], tuple[int, Callable[[], BinaryIO]] | None]
"""(tree, file, its first bytes) → size and opener of the large file that it points to; None where it is no pointer."""


@dataclass(frozen=True, slots=True)
class Ingest:
    """Packs versions into a store, and remembers which are there.

    Attributes:
        store: where to.
        memory: directory with one small file per packed version, named after its identity.
        open_large: resolves Git LFS pointers.
    """

    store: ArtifactStore
    memory: Path
    open_large: OpenLarge

    def __call__(
        self, catalog: Catalog, trees: Mapping[str, Tree], kind: str, name: str, version: str, variant: str = ""
    ) -> tuple[Artifact, ...]:
        """Return where a version's bytes are; they are brought into the store first where they stand in Git.

        Args:
            catalog: checked.
            trees: source name → the tree that the catalog was read from.
            kind: ``model`` or ``workload``.
            name: of the model or workload.
            version: one of its versions.
            variant: of the version; empty for the version itself.

        Returns:
            At most one artifact; of a chart the chart, and after it the model that goes with it.

        Raises:
            EdgeferryError: a Git LFS file cannot be fetched, or the store cannot keep it.
        """
        repository = f"{kind}s/{name}"
        found: list[Artifact] = []
        if kind == "workload":
            chosen = catalog.workloads[name].versions[version]
            if isinstance(chosen.chart, kinds.WorkloadSource):
                found.append(Artifact(chosen.chart.digest, 0, OCI_MANIFEST, chosen.chart.chart))
            elif chosen.chart is not None:
                found.append(self._packed(f"charts/{repository}", name, version, chosen.identity, chosen.chart, trees))
            if chosen.content is not None:
                found.append(self._packed(repository, name, version, chosen.identity, chosen.content, trees))
            return tuple(found)
        model = catalog.models[name].versions[version]
        chart = model.spec.chart
        if model.chart is not None:
            found.append(self._packed(f"charts/{repository}", name, version, model.identity, model.chart, trees))
        elif chart is not None and chart.ref is not None and chart.digest is not None:
            found.append(Artifact(chart.digest, 0, OCI_MANIFEST, chart.ref))
        form = model.variant(variant)
        content, artifact = model.content, model.spec.artifact
        identity, tag = model.identity, version
        if form is not None:
            content, artifact = model.contents.get(variant), form.artifact
            identity, tag = f"{model.identity} {variant}", f"{version}-{variant}"
        if content is not None:
            found.append(self._packed(repository, name, tag, identity, content, trees))
        elif artifact is not None:
            found.append(_referred(artifact))
        return tuple(found)

    def _packed(
        self, repository: str, name: str, version: str, identity: str, content: Content, trees: Mapping[str, Tree]
    ) -> Artifact:
        note = self.memory / digest(f"{repository}@{version} {identity}".encode()).removeprefix("sha256:")
        known = _read(note)
        if known is not None and self.store.has(known.digest):
            return known
        tree = trees[content.source]
        files = [self._file(tree, file, content.root) for file in content.files]
        if repository.startswith("charts/"):
            artifact = pack_chart(self.store, repository, files, version)
        else:
            artifact = pack(self.store, repository, files, name, version)
        _write(note, artifact)
        return artifact

    def _file(self, tree: Tree, file: File, root: str) -> PackFile:
        path = file.path[len(root) :].lstrip("/") if root else file.path
        if file.size_bytes <= _POINTER_BYTES:
            large = self.open_large(tree, file, tree.blobs.read(file, _POINTER_BYTES))
            if large is not None:
                return PackFile(path, *large)
        return PackFile(path, file.size_bytes, lambda: io.BytesIO(tree.blobs.read(file, file.size_bytes)))


def _referred(spec: kinds.ArtifactSpec) -> Artifact:
    assert spec.ref is not None and spec.digest is not None  # checked with the catalog
    if spec.ref.startswith(("oci://", "hub://")):
        return Artifact(spec.digest, spec.size or 0, OCI_MANIFEST, spec.ref)
    return Artifact(spec.digest, spec.size or 0, "application/octet-stream", spec.ref, spec.ref.rpartition("/")[2])


def _read(note: Path) -> Artifact | None:
    try:
        found = json.loads(note.read_bytes())
        return Artifact(found["digest"], found["size"], OCI_MANIFEST, found["ref"])
    except (OSError, ValueError, LookupError, TypeError):
        return None  # not packed yet, or torn by a power cut: packing again gives the same


def _write(note: Path, artifact: Artifact) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    beside = note.with_name(f"{note.name}.{os.getpid()}")
    beside.write_bytes(canonical({"digest": artifact.digest, "size": artifact.size_bytes, "ref": artifact.ref}))
    beside.rename(note)
