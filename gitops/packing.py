"""Packing files into a ModelPack artifact: the same files give the same digest, on every machine, at any time.

One layer a file, uncompressed, so that a file that several versions share is stored and sent once.

Source: CNCF model-spec 0.0.7, OCI image manifest 1.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from agent.wire.canonical import Json, canonical, digest
from agent.wire.errors import Stop
from agent.wire.release import Artifact
from gitops.artifacts import ArtifactStore, Stored
from gitops.oci_manifest import MAX_MANIFEST_BYTES, OCI_MANIFEST

ARTIFACT_TYPE: Final = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.cncf.model.config.v1+json"
MAX_FILES: Final = 4096

_KINDS: Final = {
    "weight.config": {".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".txt", ".pbtxt", ".tiktoken"},
    "doc": {".md", ".rst", ".pdf"},
    "code": {".py", ".sh", ".js", ".lua"},
}
_FORMATS: Final = {
    ".onnx": "onnx",
    ".safetensors": "safetensors",
    ".gguf": "gguf",
    ".pt": "pytorch",
    ".pth": "pytorch",
    ".tflite": "tflite",
    ".pb": "tensorflow",
    ".keras": "keras",
}


class UnsafeContent(Stop):
    """A file's path cannot be unpacked safely everywhere."""

    code = "EF2184"


class TooMuchContent(Stop):
    """An artifact has no files, or more than its manifest can list."""

    code = "EF2185"


class ContentChanged(Stop):
    """A file is not as long as its tree says."""

    code = "EF2186"


@dataclass(frozen=True, slots=True)
class PackFile:
    """One file to pack.

    Attributes:
        path: relative, with slashes: where the file stands when unpacked.
        size_bytes: how long it is.
        open: gives its bytes, from the start; called once.
    """

    path: str
    size_bytes: int
    open: Callable[[], BinaryIO]


def pack(store: ArtifactStore, repository: str, files: Sequence[PackFile], name: str, version: str) -> Artifact:
    """Put files into the store as one artifact of ``repository``, tagged with its version.

    Args:
        store: where to.
        repository: as ``models/defect-detector``.
        files: in any order.
        name: of the model.
        version: of the model.

    Returns:
        The artifact: digest of its manifest, size of all its files, reference ``hub://REPOSITORY``.

    Raises:
        UnsafeContent: a path leaves the directory, is not portable, or stands there twice but for case.
        TooMuchContent: no files, or too many.
        ContentChanged: a file is not as long as it said.
        StoreFull: no room.
    """
    ordered = checked(files, f"{name} {version}")
    stored = [_put(store, file) for file in ordered]
    config, manifest = assembled(ordered, stored, name, version)
    store.put_bytes(config)
    return Artifact(
        digest=store.put_manifest(repository, manifest, tag=version),
        size_bytes=sum(blob.size_bytes for blob in stored),
        media_type=OCI_MANIFEST,
        ref=f"hub://{repository}",
    )


def assembled(files: Sequence[PackFile], stored: Sequence[Stored], name: str, version: str) -> tuple[bytes, bytes]:
    """Return the config and the manifest of an artifact.

    Args:
        files: as ``checked`` gives them.
        stored: digest and size of each.
        name: of the model.
        version: of the model.

    Raises:
        TooMuchContent: the manifest would be too large.
    """
    config = canonical(_config(name, version, files, stored))
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": digest(config), "size": len(config)},
            "layers": [_layer(file, blob) for file, blob in zip(files, stored, strict=True)],
        }
    )
    if len(manifest) > MAX_MANIFEST_BYTES:
        raise TooMuchContent(f"{len(files)} files make a manifest of {len(manifest)} bytes", where=f"{name} {version}")
    return config, manifest


def checked(files: Sequence[PackFile], where: str) -> list[PackFile]:
    """Return files in the order of their paths.

    Args:
        files: in any order.
        where: for messages.

    Raises:
        UnsafeContent: a path leaves the directory, is not portable, or stands there twice but for case.
        TooMuchContent: no files, or too many.
    """
    ordered = sorted(files, key=lambda file: file.path)
    _check(ordered, where)
    return ordered


def _check(files: Sequence[PackFile], where: str) -> None:
    if not files or len(files) > MAX_FILES:
        raise TooMuchContent(
            f"{len(files)} files, wanted 1 to {MAX_FILES}", where=where, do="pack many small files into one archive"
        )
    seen: dict[str, str] = {}
    for path in (file.path for file in files):
        parts = path.split("/")
        if len(path) > 512 or not path.isprintable() or "\\" in path or any(part in ("", ".", "..") for part in parts):
            raise UnsafeContent(f"path {path[:200]!r}", where=where, do="rename the file")
        # A file under the name of a directory, and names that differ only in case, collide on some disks.
        for taken in (path, *("/".join(parts[:n]) + "/" for n in range(1, len(parts)))):
            folded = taken.rstrip("/").casefold()
            if seen.setdefault(folded, taken) != taken:
                raise UnsafeContent(f"{taken!r} and {seen[folded]!r} collide", where=where, do="rename one of them")
    if len({file.path for file in files}) != len(files):
        raise UnsafeContent("a path stands there twice", where=where, do="remove one of them")


def _put(store: ArtifactStore, file: PackFile) -> Stored:
    with file.open() as stream:
        blob = store.put_blob(stream)
    if blob.size_bytes != file.size_bytes:
        raise ContentChanged(
            f"{file.path!r} has {blob.size_bytes} bytes, not {file.size_bytes}", do="fetch the source again"
        )
    return blob


def _config(name: str, version: str, files: Sequence[PackFile], stored: Sequence[Stored]) -> dict[str, Json]:
    formats = sorted({_FORMATS[suffix] for suffix in (_suffix(file.path) for file in files) if suffix in _FORMATS})
    return {
        "descriptor": {"name": name, "version": version},
        "config": {"format": formats[0]} if len(formats) == 1 else {},
        "modelfs": {"type": "layers", "diffIds": [blob.digest for blob in stored]},
    }


def _layer(file: PackFile, blob: Stored) -> dict[str, Json]:
    kind = next((kind for kind, suffixes in _KINDS.items() if _suffix(file.path) in suffixes), "weight")
    metadata = {
        "name": file.path.rpartition("/")[2],
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "size": blob.size_bytes,
        "mtime": "1970-01-01T00:00:00Z",
        "typeflag": 48,
    }
    return {
        "mediaType": f"application/vnd.cncf.model.{kind}.v1.raw",
        "digest": blob.digest,
        "size": blob.size_bytes,
        "annotations": {
            "org.cncf.model.filepath": file.path,
            "org.cncf.model.file.metadata+json": canonical(metadata).decode().rstrip(),
            "org.opencontainers.image.title": file.path,
        },
    }


def _suffix(path: str) -> str:
    name = path.rpartition("/")[2]
    return "." + name.rpartition(".")[2].lower() if "." in name else ""
