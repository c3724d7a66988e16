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
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from agent.wire.canonical import digest, is_digest
from agent.wire.errors import DigestMismatch, Retry, Stop
from gitops.oci_manifest import MAX_MANIFEST_BYTES, BadManifest, children, read_manifest, required, subject_of
from gitops.repository_index import EMPTY_INDEX, LAYOUT, Listed, RepositoryIndex

_CHUNK_BYTES: Final = 1 << 20
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_LEFT_BEHIND_S: Final = 86400.0


class NoSuchBlob(Stop):
    """The store does not have these bytes."""

    code = "EF2180"


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
        for directory in (store._blobs, root / "repositories", store.incoming):
            directory.mkdir(parents=True, exist_ok=True)
        for name, data in (("index.json", EMPTY_INDEX), ("oci-layout", LAYOUT)):
            if not (root / name).exists():
                store._replace(root / name, data)
        for path in store.incoming.iterdir():
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

    def put_manifest(self, repository: str, data: bytes, tag: str = "", media_type: str = "") -> str:
        """Keep a manifest, list it in its repository, and return its digest.

        Args:
            repository: as ``models/defect-detector``.
            data: the manifest's bytes, kept as they are.
            tag: a name for it, moved from whatever manifest bore it; empty for none.
            media_type: what it is, where it does not say so itself.

        Raises:
            BadRepository: not the name of a repository.
            BadManifest: not an OCI manifest or index, too large, or a blob of it is missing.
            StoreFull: no room.
        """
        directory = self.repositories.directory(repository)
        top = read_manifest(data, media_type)
        for blob in required(top):
            if not self.has(blob):
                raise BadManifest(
                    f"names {blob}, which is not there", where=str(directory.name), do="put the blobs first"
                )
        stored = self.put_bytes(data)
        listed = Listed(stored.digest, tag, top["mediaType"], stored.size_bytes, subject_of(top))
        self.repositories.add(repository, listed)
        return stored.digest

    def manifest(self, repository: str, wanted: str) -> bytes:
        """Return the bytes of a manifest of a repository.

        Raises:
            NoSuchBlob: the repository does not have it.
        """
        if all(one.digest != wanted for one in self.repositories.entries(repository)):
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
        found, left = {wanted}, [wanted]
        while left:
            top = read_manifest(self.manifest_bytes(left.pop()))
            inner = [one["digest"] for one in top.get("manifests", [])]
            left += [one for one in inner if one not in found]
            found.update(children(top))
        return frozenset(found)

    def note_use(self, blob: str) -> None:
        """Remember that somebody asked for a blob: what nobody asks for is thrown away first."""
        with suppress(OSError):
            os.utime(self.path(blob))

    def unused_s(self, blob: str, now_s: float) -> float:
        """Return for how many seconds nobody asked for a blob; 0 where it is not there."""
        with suppress(OSError):
            return max(0.0, now_s - self.path(blob).stat().st_mtime)
        return 0.0

    def user_of(self, blob: str) -> str:
        """Return ``REPOSITORY@DIGEST`` of a manifest that leads to a blob; empty for none. Reads every manifest."""
        for repository in self.repositories.names():
            for one in self.repositories.entries(repository):
                if one.digest == blob or blob in children(read_manifest(self.manifest_bytes(one.digest))):
                    return f"{repository}@{one.digest}"
        return ""

    @property
    def repositories(self) -> RepositoryIndex:
        """Which manifests stand in which repository."""
        return RepositoryIndex(self.root / "repositories", self._replace)

    def adopt(self, path: Path, expected: str) -> Stored:
        """Take a file that was written beside, and hand it its final name.

        Args:
            path: below ``incoming``; gone afterwards.
            expected: the digest that its bytes must have.

        Raises:
            DigestMismatch: the bytes are others; the file stays.
        """
        with path.open("r+b") as file:
            found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            if found != expected:
                raise DigestMismatch(f"the bytes are {found}, not {expected[:80]}", do="send them again")
            if self.has(found):
                path.unlink()
            else:
                _durable(file, path, self.path(found))
        return Stored(found, size)

    @property
    def incoming(self) -> Path:
        """Where files are written that get their names later; on the same disk."""
        return self.root / "incoming"

    @property
    def _blobs(self) -> Path:
        return self.root / "blobs" / "sha256"

    def _replace(self, path: Path, data: bytes) -> None:
        with self._beside() as (file, beside):
            file.write(data)
            _durable(file, beside, path)

    @contextmanager
    def _beside(self) -> Iterator[tuple[BinaryIO, Path]]:
        descriptor, name = tempfile.mkstemp(dir=self.incoming)
        beside = Path(name)
        try:
            with self.full_named(), os.fdopen(descriptor, "wb") as file:
                yield file, beside
        finally:
            beside.unlink(missing_ok=True)

    @contextmanager
    def full_named(self) -> Iterator[None]:
        """Turn the system's word for a disk that takes nothing more into ours."""
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise StoreFull(
                f"cannot be written: {error.strerror}", where=str(self.root), do="make room on its disk"
            ) from None


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


def _absent(blob: str) -> NoSuchBlob:
    return NoSuchBlob(f"no {blob[:80]} in the store")
