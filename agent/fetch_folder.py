"""Overlays from a folder: an overlay at its root, or a checkout of a whole fleet repository.

For sites to which somebody carries a disk, for shared folders, and for a checkout that something else keeps up.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.fetch import NothingPublished, Received
from agent.wire.canonical import digest
from agent.wire.errors import Stop
from agent.wire.overlay import Limits, OverlayRefused, check_path
from agent.wire.release import NAME

_LOOK_S: Final = 1.0
_MOST_DEPTH: Final = 32
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LIMITS: Final = Limits()


def fleet_path(cluster: str) -> str:
    """Return where a cluster's overlay stands in a fleet repository."""
    h = hashlib.sha256(cluster.encode()).hexdigest()
    return f"clusters/{h[0]}/{h[1]}/{h[2]}/{cluster}"


@dataclass(frozen=True, slots=True)
class _File:
    """One file, seen and not yet read; equal ones hold the same bytes."""

    path: str
    size_bytes: int
    plain: bool
    mark: tuple[int, ...]


class FolderTransport:
    """Reads a folder when something in it changed. It follows no link below it and opens nothing but plain files.

    Args:
        root: the folder; may be absent for now, as a disk that is carried is.
        cluster: name of this cluster.
        limits: of an overlay.
    """

    def __init__(self, root: Path, cluster: str, limits: Limits = _LIMITS) -> None:
        self._root = root
        self._below = fleet_path(cluster)
        self._limits = limits
        self._seen: tuple[_File, ...] = ()
        self._refused: tuple[_File, ...] = ()
        self._revision = ""
        self._woken = threading.Event()

    def poll(self, revision: str, wait_s: float) -> Received | None:
        """See ``Transport``; a change is seen within a second."""
        end = time.monotonic() + wait_s
        while not self._woken.is_set():
            found = self._look(revision)
            left_s = end - time.monotonic()
            if found is not None or left_s <= 0:
                return found
            self._woken.wait(min(left_s, _LOOK_S))
        self._woken.clear()
        return None

    def wake(self) -> None:
        """See ``Transport``."""
        self._woken.set()

    def close(self) -> None:
        """See ``Transport``."""

    def _look(self, revision: str) -> Received | None:
        try:
            root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NothingPublished(f"cannot open the folder: {error.strerror}", where=str(self._root)) from None
        try:
            return self._read(root, revision)
        except OSError as error:
            raise NothingPublished(f"cannot read the folder: {error.strerror}", where=str(self._root)) from None
        finally:
            os.close(root)

    def _read(self, root: int, revision: str) -> Received | None:
        top = self._overlay(root)
        try:
            seen = tuple(_scan(top, "", self._limits.files + 1))
            if seen == self._refused or (seen == self._seen and self._revision == revision):
                return None
            try:
                _check(seen, self._limits, str(self._root))
            except Stop:
                self._refused = seen
                raise
            files = {file.path: _bytes(top, file) for file in seen}
        finally:
            os.close(top)
        self._seen, self._revision = seen, _revision(files)
        return None if self._revision == revision else Received(files, self._revision, "folder")

    def _overlay(self, root: int) -> int:
        """Return the overlay's directory, open."""
        try:
            os.stat(NAME, dir_fd=root, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            return os.dup(root)
        try:
            return _open(root, self._below, _DIRECTORY)
        except OSError as error:
            raise NothingPublished(
                f"no {NAME} there, and {self._below}: {error.strerror}", where=str(self._root)
            ) from None


def _open(directory: int, path: str, flags: int) -> int:
    """Open a path below a directory; a link on the way is an OSError."""
    *above, last = path.split("/")
    here = os.dup(directory)
    try:
        for part in above:
            following = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = following
        return os.open(last, flags, dir_fd=here)
    finally:
        os.close(here)


def _scan(directory: int, prefix: str, most: int, depth: int = 0) -> Iterator[_File]:
    """Yield what stands below a directory, in order, ``most`` of each; nothing is opened but directories."""
    with os.scandir(directory) as entries:
        names = sorted(entry.name for _, entry in zip(range(most + 1), entries, strict=False))
    for name in names:
        if not prefix and name == ".git":
            continue
        about = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(about.st_mode) and depth < _MOST_DEPTH:
            below = os.open(name, _DIRECTORY, dir_fd=directory)
            try:
                yield from _scan(below, f"{prefix}{name}/", most, depth + 1)
            finally:
                os.close(below)
        else:
            mark = (about.st_mtime_ns, about.st_ctime_ns, about.st_ino)
            yield _File(prefix + name, about.st_size, stat.S_ISREG(about.st_mode), mark)


def _check(seen: tuple[_File, ...], limits: Limits, where: str) -> None:
    if len(seen) > limits.files or sum(file.size_bytes for file in seen) > limits.total_bytes:
        raise OverlayRefused(
            f"more than {limits.files} files, or than {limits.total_bytes} bytes",
            where=where,
            do="see what else is there",
        )
    for file in seen:
        if not file.plain:
            raise OverlayRefused(f"{file.path[:200]!r} is a link, a device, or too deep", where=where)
        if file.size_bytes > limits.file_bytes:
            raise OverlayRefused(f"{file.path!r} has {file.size_bytes} bytes", where=where)
        check_path(file.path, where)


def _bytes(directory: int, file: _File) -> bytes:
    descriptor = _open(directory, file.path, _FILE)
    with os.fdopen(descriptor, "rb") as opened:
        # What was exchanged for something longer since the scan is cut, and refused for its digest.
        return opened.read(file.size_bytes) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""


def _revision(files: dict[str, bytes]) -> str:
    return digest("".join(f"{path}\0{digest(files[path])}\n" for path in sorted(files)).encode())
