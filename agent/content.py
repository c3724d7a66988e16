"""Artifacts at the site, by digest. What has its final name is complete and verified, also after a power cut.

    ROOT/blobs/sha256/<hex>         verified bytes: manifests, layers, plain files
    ROOT/partial/<hex>              bytes on their way; <hex>.mark says how many of them are surely on disk
    ROOT/trees/<hex>/               an unpacked artifact, read-only; its files are hard links to blobs where they can be
    ROOT/trees/<hex>.list           its files with sizes and digests
    ROOT/making/                    trees in the making; nothing here counts

One process writes; several of its threads may.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

from agent import durable
from agent.http import Unreachable
from agent.oci import MOST_MANIFEST_BYTES, OtherBytes, Stream
from agent.partial import Partial, mark_of
from agent.tree import MOST_BYTES, NewTree, TreeFile, as_listed, read_list, remove
from agent.wire.canonical import is_digest
from agent.wire.errors import Malformed, Retry

RESERVE_BYTES: Final = 64 << 20
"""Room that staging leaves free: for the journal, for logs, for what runs."""

_LOOK_BYTES: Final = 1 << 20
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Progress = Callable[[int], None]
"""Told how many bytes are here; may raise to stop."""

Fetch = Callable[[int], AbstractContextManager[Stream]]
"""Offset → the bytes from there on, or from 0 where that cannot be."""


class DiskFull(Retry):
    """There is no room for an artifact. What runs, and what is needed to go back, is left alone."""

    code = "EF2101"
    delay_s = 60.0


class Content:
    """The store under one directory.

    Args:
        root: made where it is absent.
        reserve_bytes: room to leave free on its disk.
    """

    def __init__(self, root: Path, reserve_bytes: int = RESERVE_BYTES) -> None:
        self._root = root
        self._reserve_bytes = reserve_bytes
        self._making: set[str] = set()
        self._lock = threading.Lock()
        for part in ("blobs/sha256", "partial", "trees", "making"):
            (root / part).mkdir(parents=True, exist_ok=True)

    def blob(self, digest: str) -> Path | None:
        """Return the file of a blob; None where it is not here."""
        path = self._root / "blobs" / "sha256" / _hex(digest)
        return path if path.is_file() else None

    def put(self, digest: str, data: bytes) -> Path:
        """Keep bytes that the caller has verified to be ``digest``.

        Raises:
            DiskFull: no room.
        """
        path = self._root / "blobs" / "sha256" / _hex(digest)
        with full_disk_named(path):
            durable.write(path, data, 0o444)
        return path

    def bytes_here(self, digest: str) -> int:
        """Return how much of a blob is here, complete or not."""
        for path in (self._root / "blobs" / "sha256" / _hex(digest), self._partial(digest)):
            with suppress(FileNotFoundError):
                return path.stat().st_size
        return 0

    def bring(self, digest: str, size_bytes: int, fetch: Fetch, progress: Progress = lambda _: None) -> Path:
        """Return the file of a blob, fetched where it is not here, going on where an earlier attempt ended.

        Args:
            digest: of the blob.
            size_bytes: of the blob; not one byte more is kept.
            fetch: gives the bytes from an offset on.
            progress: told how many bytes of this blob are here.

        Raises:
            DiskFull: no room.
            OtherBytes: what came is not ``digest``; it is thrown away.
            Retry: what ``fetch`` raises; what came until then is kept.
        """
        found = self.blob(digest)
        if found is not None:
            progress(size_bytes)
            return found
        partial = self._partial(digest)
        with full_disk_named(partial):
            self.make_room(size_bytes - self.bytes_here(digest))
            with Partial(partial) as kept:
                if kept.size_bytes < size_bytes:
                    self._receive(kept, size_bytes, fetch, progress)
                self._finish(kept, digest, size_bytes)
            target = self._root / "blobs" / "sha256" / _hex(digest)
            partial.chmod(0o444)
            partial.rename(target)
            durable.sync_directory(target.parent)
            mark_of(partial).unlink(missing_ok=True)
        return target

    def rebuild(self, digest: str, size_bytes: int, make: Callable[[Path], None]) -> Path:
        """Return the file of a blob that is made here, of what is here, instead of fetched.

        Args:
            digest: of the blob.
            size_bytes: of the blob.
            make: writes it to the path that it is given; may leave anything there.

        Raises:
            DiskFull: no room.
            OtherBytes: what was made is not ``digest``; it is thrown away.
        """
        name = f"{_hex(digest)}.{secrets.token_hex(4)}"
        beside, target = self._root / "making" / name, self._root / "blobs" / "sha256" / _hex(digest)
        with self._lock:
            self._making.add(name)
        try:
            with full_disk_named(beside):
                self.make_room(size_bytes)
                make(beside)
                with beside.open("rb+") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != _hex(digest):
                        raise OtherBytes(f"rebuilt to {file.tell()} bytes that are not {digest}", where=digest)
                    os.fsync(file.fileno())
                beside.chmod(0o444)
                beside.rename(target)
                durable.sync_directory(target.parent)
        finally:
            beside.unlink(missing_ok=True)
            with self._lock:
                self._making.discard(name)
        self.drop_partial(digest)
        return target

    def drop_partial(self, digest: str) -> None:
        """Throw away what came of a blob that is not wanted any more, or is here by another way."""
        partial = self._partial(digest)
        partial.unlink(missing_ok=True)
        mark_of(partial).unlink(missing_ok=True)

    def make_room(self, size_bytes: int) -> None:
        """Say whether so many bytes fit, the reserve left free.

        Raises:
            DiskFull: they do not.
        """
        about = os.statvfs(self._root)
        free = about.f_bavail * about.f_frsize
        if size_bytes > 0 and free < size_bytes + self._reserve_bytes:
            raise DiskFull(
                f"{size_bytes} bytes are to come, {free} are free, {self._reserve_bytes} stay so",
                where=str(self._root),
                do="make room; nothing that runs is touched",
            )

    def tree(self, digest: str) -> Path | None:
        """Return the directory of an unpacked artifact; None where it is not here."""
        path = self._root / "trees" / _hex(digest)
        return path if path.is_dir() else None

    def verify_tree(self, digest: str, *, deep: bool = False) -> bool:
        """Tell whether an unpacked artifact is as it was made.

        Args:
            digest: of the artifact.
            deep: read every byte again, instead of looking at names and sizes only.
        """
        path = self.tree(digest)
        if path is None:
            return False
        listing = path.with_name(f"{path.name}.list")
        try:
            listed = read_list(listing.read_bytes(), str(listing))
        except (OSError, Malformed):
            return False
        return all(as_listed(path / file.path, file, deep=deep) for file in listed)

    def files(self, digest: str) -> dict[str, str]:
        """Return path → digest of an unpacked artifact's files; nothing where it is not here."""
        listing = self._root / "trees" / f"{_hex(digest)}.list"
        try:
            return {file.path: file.digest for file in read_list(listing.read_bytes(), str(listing))}
        except (OSError, Malformed):
            return {}

    @contextmanager
    def making(self, digest: str, most_bytes: int = MOST_BYTES) -> Iterator[NewTree]:
        """Give an empty tree to fill. It becomes the tree of ``digest`` when the block ends well.

        Args:
            digest: of the artifact.
            most_bytes: of all its files.

        Raises:
            DiskFull: no room.
            ArtifactRefused: what is put into it is refused, or nothing is.
        """
        name = f"{_hex(digest)}.{secrets.token_hex(4)}"
        beside, target = self._root / "making" / name, self._root / "trees" / _hex(digest)
        aside = beside.with_name(f"{name}.old")
        with self._lock:
            self._making |= {name, aside.name}
        try:
            with full_disk_named(beside):
                beside.mkdir()
                tree = NewTree(beside, digest, most_bytes)
                yield tree
                durable.write(target.with_name(f"{target.name}.list"), tree.seal())
                if target.is_dir():  # a damaged one: it is out of the way at once, and taken apart afterwards
                    target.chmod(0o755)
                    target.rename(aside)
                beside.rename(target)
                target.chmod(0o555)
                durable.sync_directory(target.parent)
        finally:
            remove(beside)
            remove(aside)
            with self._lock:
                self._making -= {name, aside.name}

    def distrust(self, digest: str, *, doubted: bool = False) -> None:
        """Where an artifact has a tree, and it is not sound, read its blobs again and remove the damaged ones.

        The tree stays until a sound one takes its place: a damaged file may still serve better than none.

        Args:
            digest: of the artifact.
            doubted: also where the tree is gone: it may have shared its bytes with the blobs.
        """
        if self.tree(digest) is None and not doubted:
            return
        for name in {_hex(digest), *self._layers(digest)}:
            path = self._root / "blobs" / "sha256" / name
            if path.is_file() and not as_listed(path, TreeFile("", path.stat().st_size, f"sha256:{name}"), deep=True):
                path.unlink()

    def drop_blob(self, digest: str) -> None:
        """Remove a blob whose content stands in a tree by now."""
        (self._root / "blobs" / "sha256" / _hex(digest)).unlink(missing_ok=True)

    def collect(self, keep: Collection[str]) -> int:
        """Remove what none of the artifacts in ``keep`` needs; return how many bytes that were.

        Args:
            keep: digests of artifacts: those that run, those to go back to, those being brought.
        """
        before = self._used_bytes()
        kept = {_hex(digest) for digest in keep}
        needed = kept | {layer for digest in keep for layer in self._layers(digest)}
        for path in [*(self._root / "trees").iterdir()]:
            if path.name.removesuffix(".list") not in kept:
                remove(path)
        for path in [*(self._root / "partial").iterdir()]:
            if path.name.removesuffix(".mark") not in needed:
                remove(path)
        for path in [*(self._root / "blobs" / "sha256").iterdir()]:
            if path.name not in needed and path.stat().st_nlink == 1:
                remove(path)
        with self._lock:
            made = set(self._making)
        for path in [*(self._root / "making").iterdir()]:
            if path.name not in made:
                remove(path)
        return max(0, before - self._used_bytes())

    def _layers(self, digest: str) -> Iterator[str]:
        path = self.blob(digest)
        if path is None or path.stat().st_size > MOST_MANIFEST_BYTES:
            return
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            for layer in json.loads(path.read_bytes())["layers"]:
                yield _hex(layer["digest"])

    def _receive(self, kept: Partial, size_bytes: int, fetch: Fetch, progress: Progress) -> None:
        looked = kept.size_bytes
        with fetch(kept.size_bytes) as stream:
            if stream.first != kept.size_bytes:
                kept.begin_again()
                looked = 0
            progress(kept.size_bytes)
            while data := stream.read():
                kept.add(data)
                if kept.size_bytes > size_bytes:
                    kept.begin_again()
                    raise OtherBytes(f"more than the {size_bytes} bytes that were announced", where=kept.path.name)
                if kept.size_bytes - looked >= _LOOK_BYTES:
                    looked = kept.size_bytes
                    self.make_room(min(size_bytes - kept.size_bytes, _LOOK_BYTES))
                progress(kept.size_bytes)

    def _finish(self, kept: Partial, digest: str, size_bytes: int) -> None:
        if kept.size_bytes < size_bytes:
            raise Unreachable(f"{kept.size_bytes} bytes came, {size_bytes} were announced", where=digest)
        if kept.digest != digest:
            kept.begin_again()
            raise OtherBytes(f"{size_bytes} bytes that are not {digest}", where=digest)
        kept.sync()

    def _partial(self, digest: str) -> Path:
        return self._root / "partial" / _hex(digest)

    def _used_bytes(self) -> int:
        about = os.statvfs(self._root)
        return (about.f_blocks - about.f_bfree) * about.f_frsize


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turn the system's word for a full disk into ours."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        do = "make room; nothing that runs is touched"
        raise DiskFull(error.strerror or str(error), where=str(path), do=do) from None


def _hex(digest: str) -> str:
    if not is_digest(digest):
        raise ValueError(f"{digest[:80]!r} is not a sha256 digest")
    return digest.removeprefix("sha256:")
