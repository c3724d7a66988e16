"""Staging: everything that an entry needs, on this site's disk, verified, under its digest.

Nothing that runs is touched: new bytes stand beside, under names of their own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agent.actions import Staged
from agent.content import Content, Progress
from agent.oci import DOCKER_MANIFEST, MOST_MANIFEST_BYTES, OCI_MANIFEST, Stream
from agent.rebuilding import Rebuilding
from agent.sources import Source, Sources
from agent.tree import MOST_BYTES, NewTree, fingerprint
from agent.wire.canonical import Json, is_digest
from agent.wire.errors import EdgeferryError, Stop
from agent.wire.model_signature import NAME as SIGNATURE
from agent.wire.model_signature import REQUIREMENT, check_files, claimed_files
from agent.wire.release import Artifact, Entry

FILE: Final = "application/octet-stream"
FILE_PATH: Final = "org.cncf.model.filepath"
TITLE: Final = "org.opencontainers.image.title"

_MOST_LAYERS: Final = 10_000
_MANIFESTS: Final = (OCI_MANIFEST, DOCKER_MANIFEST)
_IMAGE_LAYERS: Final = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
_PROVENANCE: Final = "application/vnd.cncf.helm.chart.provenance.v1.prov"
_ORAS_UNPACK: Final = "io.deis.oras.content.unpack"
_INFLATION: Final = 256
_WORTH_BYTES: Final = 16 << 10
_INFLATION_LEAST_BYTES: Final = 64 << 20


class UnknownMediaType(Stop):
    """An artifact is of a kind that this agent cannot unpack."""

    code = "EF2103"


class BadArtifact(Stop):
    """A manifest is unreadable, or says what cannot be done."""

    code = "EF2104"


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob of an artifact, and what becomes of it.

    Attributes:
        kind: ``raw``, ``tar`` or ``tar+gzip``.
        path: of the one file, for ``raw``; else empty.
    """

    digest: str
    size_bytes: int
    kind: str
    path: str = ""


class SiteBytes:
    """The bytes of a site's entries: brought from their sources, kept in its content store.

    Args:
        content: the store.
        sources: where bytes come from; used by the thread that stages.
    """

    def __init__(self, content: Content, sources: Sources) -> None:
        self._content = content
        self._sources = sources
        self._sound: dict[str, str] = {}
        self._doubted: set[str] = set()
        self._signed: set[str] = set()
        self._rebuilding = Rebuilding(content)

    def present(self, entry: Entry, files: Mapping[str, bytes]) -> Staged | None:
        """Return the entry as staged where all of it is here; None else. Nobody is asked, nothing is written.

        Names and sizes of an artifact are compared with its list once in a process's life; after a doubt, its bytes.

        Args:
            entry: of a verified release.
            files: path within the overlay → bytes, of this entry.

        Raises:
            BadArtifact: the entry has more artifacts than its delivery takes.
        """
        chart, artifact = _artifacts(entry)
        folder = None if chart is None else self._tree(chart)
        tree = None if artifact is None else self._tree(artifact)
        if (folder is None) != (chart is None) or (tree is None) != (artifact is None):
            return None
        if tree is None or artifact is None:
            return Staged(entry, files, chart=folder)
        if self._wrongly_signed(entry, files) is not None:
            return None
        return Staged(entry, files, tree, _model(tree), self._sound[artifact.digest], chart=folder)

    def _wrongly_signed(self, entry: Entry, files: Mapping[str, bytes]) -> EdgeferryError | None:
        """Return why an entry that must be signed does not have the files that its signature covers; None for fine."""
        if REQUIREMENT not in entry.requires or entry.digest in self._signed:
            return None
        where = f"{entry.directory}/{SIGNATURE}"
        _, artifact = _artifacts(entry)
        try:
            there = {} if artifact is None else self._content.files(artifact.digest)
            check_files(claimed_files(files.get(where, b""), where), there, where)
        except EdgeferryError as fault:
            return fault
        self._signed.add(entry.digest)
        return None

    def doubt(self, entry: Entry) -> None:
        """Read an entry's bytes again before they count as present: somebody may have changed them."""
        for artifact in entry.artifacts:
            self._doubted.add(artifact.digest)
            self._sound.pop(artifact.digest, None)

    def stage(self, entry: Entry, files: Mapping[str, bytes], progress: Progress = lambda _: None) -> Staged:
        """Return the entry with all its bytes here, bringing what is missing. Done twice, it is done once.

        Args:
            entry: of a verified release.
            files: path within the overlay → bytes, of this entry.
            progress: told how many of the artifact's bytes are here; what it raises ends the staging.

        Raises:
            BadArtifact, ArtifactRefused, UnknownMediaType, BadReference: no attempt with this entry can work.
            OtherFilesSigned: it must be signed, and its signature covers other files.
            DiskFull: there is no room; what is half here stays.
            Retry: a source cannot give it now; what is half here stays.
        """
        found = self.present(entry, files)
        if found is not None:
            return found
        done_bytes, notes = 0, []
        for artifact in entry.artifacts:
            if self._tree(artifact) is None:

                def told(bytes_here: int, before: int = done_bytes) -> None:
                    progress(before + bytes_here)

                notes.append(self._stage(entry, artifact, told))
            done_bytes += artifact.size_bytes
        wrong = self._wrongly_signed(entry, files)
        if wrong is not None:
            raise wrong
        found = self.present(entry, files)
        if found is None:
            raise RuntimeError(f"{entry.directory} was unpacked, and a tree of it is not sound")
        return replace(found, note="; ".join(filter(None, notes)))

    def _tree(self, artifact: Artifact) -> Path | None:
        """Return an artifact's tree where it is here and sound."""
        tree = self._content.tree(artifact.digest)
        if tree is None:
            self._sound.pop(artifact.digest, None)
            return None
        if artifact.digest not in self._sound:
            deep = artifact.digest in self._doubted
            before = fingerprint(_model(tree)) if deep else ""
            if not self._content.verify_tree(artifact.digest, deep=deep):
                return None
            self._found_sound(artifact.digest, before if deep and before == fingerprint(_model(tree)) else "")
        return tree

    def _stage(self, entry: Entry, artifact: Artifact, progress: Progress) -> str:
        """Bring one artifact; return what there is to say of it."""
        if artifact.media_type not in (FILE, *_MANIFESTS):
            do = (
                "name the manifest of one platform"
                if "index" in artifact.media_type or "list" in artifact.media_type
                else ""
            )
            raise UnknownMediaType(f"media type {artifact.media_type[:100]!r}", where=entry.directory, do=do)
        self._content.distrust(artifact.digest, doubted=artifact.digest in self._doubted)
        source = self._sources.open(artifact.ref)
        if artifact.media_type == FILE:
            layers = [Layer(artifact.digest, artifact.size_bytes, "raw", artifact.path or entry.name)]
        else:
            layers = read_layers(self._manifest(artifact, source), f"{entry.directory} {artifact.digest}")
        note = self._bring(artifact, layers, source, progress)
        self._make(artifact, layers)
        return note

    def collect(self, keep: Collection[Entry]) -> None:
        """Remove what no entry of ``keep`` needs.

        Args:
            keep: every entry that runs, that could be returned to, or that is being brought.
        """
        kept = {artifact.digest for entry in keep for artifact in entry.artifacts}
        self._sound = {digest: one for digest, one in self._sound.items() if digest in kept}
        self._doubted &= kept
        self._signed &= {entry.digest for entry in keep}
        self._content.collect(kept)

    def close(self) -> None:
        """Let go of connections, after the last staging."""
        self._sources.close()

    def _manifest(self, artifact: Artifact, source: Source) -> bytes:
        blob = self._content.blob(artifact.digest)
        if blob is not None and blob.stat().st_size <= MOST_MANIFEST_BYTES:
            return blob.read_bytes()
        data = source.manifest(artifact.digest)
        self._content.put(artifact.digest, data)
        return data

    def _bring(self, artifact: Artifact, layers: list[Layer], source: Source, progress: Progress) -> str:
        """Have every layer here; return how many bytes that took, for people, where deltas made it fewer."""
        distinct = list({layer.digest: layer for layer in layers}.values())
        here = {layer.digest: self._content.bytes_here(layer.digest) for layer in distinct}
        missing = [layer for layer in distinct if here[layer.digest] < layer.size_bytes]
        self._content.make_room(sum(layer.size_bytes - here[layer.digest] for layer in missing))
        offers = {}
        if artifact.media_type != FILE and any(layer.size_bytes > _WORTH_BYTES for layer in missing):
            offers = self._rebuilding.offers(artifact.digest, source)
        sent = saved = 0
        for layer in distinct:

            def told(bytes_here: int, digest: str = layer.digest) -> None:
                here[digest] = bytes_here
                progress(sum(here.values()))

            def fetch(first: int, layer: Layer = layer) -> AbstractContextManager[Stream]:
                return source.blob(layer.digest, layer.size_bytes, first)

            offer, left = offers.get(layer.digest), layer.size_bytes - here[layer.digest]
            if offer is not None and offer.size_bytes < left:
                share = layer.size_bytes / max(1, offer.size_bytes)

                def scaled(got: int, share: float = share, told: Progress = told) -> None:
                    told(int(got * share))

                if self._rebuilding.make(layer.digest, layer.size_bytes, offer, source, scaled):
                    sent, saved = sent + offer.size_bytes, saved + left - offer.size_bytes
                    continue
            self._content.bring(layer.digest, layer.size_bytes, fetch, told)
            sent += left
        return f"{megabytes(sent)} sent, {megabytes(saved)} saved by deltas" if saved else ""

    def _make(self, artifact: Artifact, layers: list[Layer]) -> None:
        archives = [layer for layer in layers if layer.kind != "raw"]
        packed_bytes = sum(layer.size_bytes for layer in layers)
        most = max(packed_bytes * _INFLATION, _INFLATION_LEAST_BYTES) if archives else MOST_BYTES
        below = artifact.path if artifact.media_type != FILE else ""
        self._content.make_room(sum(layer.size_bytes for layer in archives))
        with self._content.making(artifact.digest, min(most, MOST_BYTES)) as tree:
            for layer in layers:
                self._unpack(layer, tree, below)
        tree_made = self._content.tree(artifact.digest)
        assert tree_made is not None
        self._found_sound(artifact.digest, fingerprint(_model(tree_made)))
        for layer in archives:
            self._content.drop_blob(layer.digest)

    def _found_sound(self, digest: str, verified: str) -> None:
        self._sound[digest] = verified
        self._doubted.discard(digest)

    def _unpack(self, layer: Layer, tree: NewTree, below: str) -> None:
        blob = self._content.blob(layer.digest)
        assert blob is not None
        if layer.kind != "raw":
            from agent.unpack import unpack_tar  # rare, and a megabyte of a small device's memory

            unpack_tar(blob, tree, compressed=layer.kind == "tar+gzip", below=below)
        elif not below or layer.path.startswith(f"{below}/"):
            tree.link(layer.path[len(below) + 1 :] if below else layer.path, blob, layer.size_bytes, layer.digest)


def megabytes(size_bytes: int) -> str:
    """Return a number of bytes for people."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"


def read_layers(manifest: bytes, where: str) -> list[Layer]:
    """Return what a verified manifest consists of.

    Raises:
        BadArtifact: it is no manifest, or a layer has no file name.
        UnknownMediaType: a layer is packed in a way that this agent does not know.
    """
    try:
        top = json.loads(manifest)
        layers = list(_layers(top, where))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadArtifact(f"unreadable manifest: {error}", where=where, do="push the artifact again") from None
    if not layers:
        raise BadArtifact("a manifest without layers", where=where, do="push the artifact again")
    return layers


def _layers(top: Json, where: str) -> Iterator[Layer]:
    if len(top["layers"]) > _MOST_LAYERS:
        raise BadArtifact(f"{len(top['layers'])} layers, at most {_MOST_LAYERS}", where=where)
    for one in top["layers"]:
        digest, size, media_type = one["digest"], one["size"], one["mediaType"]
        annotations = one.get("annotations") or {}
        if media_type == _PROVENANCE:
            continue
        path = annotations.get(FILE_PATH) or annotations.get(TITLE) or ""
        if not is_digest(digest) or type(size) is not int or not 0 <= size <= MOST_BYTES or type(path) is not str:
            raise ValueError(f"layer {str(digest)[:80]!r} of {str(size)[:20]} bytes")
        kind = _kind(media_type, path, annotations.get(_ORAS_UNPACK) == "true", where)
        if kind == "raw" and not path:
            raise BadArtifact(
                f"layer {digest} ({media_type[:100]}) has no file name", where=where, do=f"annotate it with {TITLE}"
            )
        yield Layer(digest, size, kind, path if kind == "raw" else "")


def _kind(media_type: str, path: str, unpack: bool, where: str) -> str:
    if path and media_type.startswith(_IMAGE_LAYERS) and not unpack:
        return "raw"  # what ORAS pushes: one file under the type of a layer
    if media_type.endswith((".tar+gzip", ".tar.gzip")):
        return "tar+gzip"
    if media_type.endswith(".tar"):
        return "tar"
    if media_type.endswith(("+zstd", ".zstd")):
        raise UnknownMediaType(
            f"{media_type[:100]!r}: zstd", where=where, do="push the layer raw, as tar, or as tar+gzip"
        )
    return "raw"


def _artifacts(entry: Entry) -> tuple[Artifact | None, Artifact | None]:
    """Return an entry's chart and its other artifact."""
    most = 2 if entry.delivery == "chart" else 1
    if len(entry.artifacts) > most:
        raise BadArtifact(
            f"{len(entry.artifacts)} artifacts, this agent takes {('', 'one', 'two')[most]}",
            where=entry.directory,
            do="upgrade the agent",
        )
    if entry.delivery == "chart":
        return (*entry.artifacts, None, None)[:2]  # type: ignore[return-value]  # two, as said
    return None, entry.artifacts[0] if entry.artifacts else None


def _model(tree: Path) -> Path:
    """Return the one file in a tree, or the tree itself where there are several."""
    here = tree
    while True:
        names = list(here.iterdir())
        if len(names) != 1:
            return tree
        if not names[0].is_dir():
            return names[0]
        here = names[0]
