"""The embedded OCI store: a directory of blobs by digest.

Layout, readable by any tool that knows OCI image layouts with shared blobs, and by agents over a shared folder:

    ROOT/oci-layout  index.json                    marks ROOT as a layout; its index stays empty
    ROOT/blobs/sha256/<hex>                        every blob and manifest, once, whatever repositories hold it
    ROOT/repositories/<repository>/oci-layout      a layout of its own whose blobs are the shared ones
    ROOT/repositories/<repository>/index.json      the manifests of this repository, with their tags
    ROOT/incoming/                                 what is being written; nothing here counts

An agent needs ``blobs/sha256`` alone. Others: ``skopeo copy --src-shared-blob-dir ROOT/blobs
oci:ROOT/repositories/REPOSITORY:TAG …``.

Source: OCI image layout 1.1.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from agent.wire.canonical import Json, canonical, digest, is_digest
from agent.wire.errors import DigestMismatch, Retry, Stop
from gitops.oci_manifest import MAX_MANIFEST_BYTES, OCI_INDEX, BadManifest, children, read_manifest

_CHUNK_BYTES: Final = 1 << 20
_PART: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_PART}(?:/{_PART})*\Z")
_RESERVED: Final = {"index.json", "oci-layout"}
_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}\n'
_EMPTY_INDEX: Final = canonical({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_LEFT_BEHIND_S: Final = 86400.0


class NoSuchBlob(Stop):
    """The store does not have these bytes."""

    code = "EF2180"


class BadRepository(Stop):
    """The name of a repository is not one."""

    code = "EF2181"


class StoreFull(Retry):
    """The disk under the store is full, or refuses to be written."""

    code = "EF2183"
    delay_s = 60.0


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes in the store."""

    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ArtifactStore:
    """Blobs and manifests under one directory. Safe for several threads and processes at once.

    A blob is there completely or not at all: it is written beside, flushed to disk, and renamed.

    Attributes:
        root: the directory.
    """

    root: Path

    @classmethod
    def open(cls, root: Path) -> ArtifactStore:
        """Make the layout where it is absent, and drop what interrupted writers left behind a day ago."""
        store = cls(root)
        for directory in (store._blobs, root / "repositories", store._incoming):
            directory.mkdir(parents=True, exist_ok=True)
        for name, data in (("index.json", _EMPTY_INDEX), ("oci-layout", _LAYOUT)):
            if not (root / name).exists():
                store._replace(root / name, data)
        for path in store._incoming.iterdir():
            if time.time() - path.stat().st_mtime > _LEFT_BEHIND_S:
                path.unlink(missing_ok=True)
        return store

    def has(self, blob: str) -> bool:
        """Tell whether the blob is there."""
        return self.path(blob).is_file()

    def path(self, blob: str) -> Path:
        """Return where the blob stands, or would.

        Raises:
            NoSuchBlob: ``blob`` is not a sha256 digest.
        """
        if not is_digest(blob):
            raise NoSuchBlob(f"{blob[:80]!r} is not a sha256 digest")
        return self._blobs / blob.removeprefix("sha256:")

    def size_bytes(self, blob: str) -> int:
        """Return how long the blob is.

        Raises:
            NoSuchBlob: it is not there.
        """
        try:
            return self.path(blob).stat().st_size
        except FileNotFoundError:
            raise _absent(blob) from None

    def open_blob(self, blob: str) -> BinaryIO:
        """Return the blob for reading; the caller closes it.

        Raises:
            NoSuchBlob: it is not there.
        """
        try:
            return self.path(blob).open("rb")
        except FileNotFoundError:
            raise _absent(blob) from None

    def put_blob(self, stream: BinaryIO, expected: str | None = None) -> Stored:
        """Keep the bytes of a stream, read once and in bounded memory.

        Args:
            stream: read to its end.
            expected: the digest that the bytes must have; None where it is not known before.

        Raises:
            DigestMismatch: the bytes are others; nothing is kept.
            StoreFull: they do not fit on the disk; nothing is kept.
        """
        with self._beside() as (file, beside):
            hashed, size = hashlib.sha256(), 0
            while chunk := stream.read(_CHUNK_BYTES):
                hashed.update(chunk)
                size += len(chunk)
                file.write(chunk)
            found = "sha256:" + hashed.hexdigest()
            if expected is not None and found != expected:
                raise DigestMismatch(f"the bytes are {found}, not {expected}", do="send them again")
            if not self.has(found):
                _durable(file, beside, self.path(found))
        return Stored(found, size)

    def put_bytes(self, data: bytes) -> Stored:
        """Keep a small blob."""
        blob = digest(data)
        if not self.has(blob):
            self._replace(self.path(blob), data)
        return Stored(blob, len(data))

    def put_manifest(self, repository: str, data: bytes, tag: str = "") -> str:
        """Keep a manifest, list it in its repository, and return its digest.

        Args:
            repository: as ``models/defect-detector``.
            data: the manifest's bytes, kept as they are.
            tag: a name for it, moved from whatever manifest bore it; empty for none.

        Raises:
            BadRepository: not the name of a repository.
            BadManifest: not an OCI manifest or index, too large, or a blob of it is missing.
            StoreFull: no room.
        """
        directory = self._repository(repository)
        top = read_manifest(data)
        for blob in children(top):
            if not self.has(blob):
                raise BadManifest(f"names {blob}, which is not there", where=repository, do="put the blobs first")
        stored = self.put_bytes(data)
        self._list(directory, top, stored, tag)
        return stored.digest

    def manifest(self, repository: str, wanted: str) -> bytes:
        """Return the bytes of a manifest of a repository.

        Raises:
            NoSuchBlob: the repository does not have it.
        """
        if all(one["digest"] != wanted for one in _entries(self._repository(repository) / "index.json")):
            raise _absent(wanted)
        return self.manifest_bytes(wanted)

    def manifest_bytes(self, wanted: str) -> bytes:
        """Return the bytes of a manifest, whatever repository it is in.

        Raises:
            NoSuchBlob: it is not there.
            BadManifest: too large for a manifest.
        """
        with self.open_blob(wanted) as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
        if len(data) > MAX_MANIFEST_BYTES:
            raise BadManifest(f"more than {MAX_MANIFEST_BYTES} bytes", where=wanted)
        return data

    def blobs_of(self, wanted: str) -> frozenset[str]:
        """Return the digests of everything that a manifest or an index leads to, itself included.

        Raises:
            NoSuchBlob: a manifest is not there.
            BadManifest: what stands there is no manifest.
        """
        top = read_manifest(self.manifest_bytes(wanted))
        found = {wanted, *children(top)}
        for one in top.get("manifests", []):
            found.update(children(read_manifest(self.manifest_bytes(one["digest"]))))
        return frozenset(found)

    @property
    def _blobs(self) -> Path:
        return self.root / "blobs" / "sha256"

    @property
    def _incoming(self) -> Path:
        return self.root / "incoming"

    def _repository(self, name: str) -> Path:
        if len(name) > 255 or not _REPOSITORY.match(name) or not _RESERVED.isdisjoint(name.split("/")):
            raise BadRepository(f"{name[:80]!r} is not the name of a repository", do="use a-z 0-9 . _ - and /")
        return self.root / "repositories" / name

    def _list(self, directory: Path, top: dict[str, Json], stored: Stored, tag: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (directory / "oci-layout").exists():
                self._replace(directory / "oci-layout", _LAYOUT)
            listed = {(one["digest"], _tag(one)): one for one in _entries(directory / "index.json")}
            wanted = dict(listed)
            if tag:
                wanted = {key: one for key, one in wanted.items() if key[1] != tag}
            if tag or all(key[0] != stored.digest for key in wanted):
                wanted[stored.digest, tag] = {
                    "mediaType": top["mediaType"],
                    "digest": stored.digest,
                    "size": stored.size_bytes,
                } | ({"annotations": {"org.opencontainers.image.ref.name": tag}} if tag else {})
            if wanted != listed:
                manifests = [wanted[key] for key in sorted(wanted)]
                index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
                self._replace(directory / "index.json", canonical(index))

    def _replace(self, path: Path, data: bytes) -> None:
        with self._beside() as (file, beside):
            file.write(data)
            _durable(file, beside, path)

    @contextmanager
    def _beside(self) -> Iterator[tuple[BinaryIO, Path]]:
        descriptor, name = tempfile.mkstemp(dir=self._incoming)
        beside = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file, beside
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise StoreFull(
                f"cannot be written: {error.strerror}", where=str(self.root), do="make room on its disk"
            ) from None
        finally:
            beside.unlink(missing_ok=True)


def _durable(file: BinaryIO, beside: Path, path: Path) -> None:
    """Flush ``file`` and move it into place so that it is there after a power cut."""
    file.flush()
    os.fchmod(file.fileno(), 0o644)
    os.fsync(file.fileno())
    beside.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _entries(path: Path) -> list[dict[str, Json]]:
    try:
        listed: list[dict[str, Json]] = json.loads(path.read_bytes())["manifests"]
    except FileNotFoundError:
        return []
    return listed


def _tag(entry: dict[str, Json]) -> str:
    return str(entry.get("annotations", {}).get("org.opencontainers.image.ref.name", ""))


def _absent(blob: str) -> NoSuchBlob:
    return NoSuchBlob(f"no {blob[:80]} in the store")
