"""Unpacked artifacts: made strictly, listed file by file, read-only.

A tree holds plain files and directories only, under names that mean the same on every disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent import durable
from agent.wire.canonical import canonical, digest
from agent.wire.errors import Stop
from agent.wire.fields import Fields
from agent.wire.overlay import OverlayRefused, check_path

MOST_FILES: Final = 100_000
MOST_BYTES: Final = 1 << 40
_READ_BYTES: Final = 1 << 20


class ArtifactRefused(Stop):
    """An artifact holds what no artifact may hold: links, devices, unsafe or colliding names, too much."""

    code = "EF2102"


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One file of a tree."""

    path: str
    size_bytes: int
    digest: str


@dataclass(slots=True)
class NewTree:
    """A tree in the making.

    Attributes:
        root: its directory, empty at first.
        where: the artifact, for messages.
        most_bytes: of all files together.
        files: what is in it.
    """

    root: Path
    where: str
    most_bytes: int = MOST_BYTES
    files: list[TreeFile] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)
    _size_bytes: int = 0

    def link(self, path: str, blob: Path, size_bytes: int, digest: str) -> None:
        """Put a verified blob at ``path``: as a hard link, or as a copy where the disk knows none.

        Raises:
            ArtifactRefused: an unsafe or colliding path, or too much.
            OSError: the disk is full, or broken.
        """
        self._grow(size_bytes)
        target = self._claim(path)
        try:
            os.link(blob, target)
        except OSError:
            with blob.open("rb") as source:
                self._write(target, iter(lambda: source.read(_READ_BYTES), b""), executable=False)
        self.files.append(TreeFile(path, size_bytes, digest))

    def write(self, path: str, parts: Iterable[bytes], *, executable: bool) -> None:
        """Write a file, and bring it to disk; raises as ``link`` does."""
        size, digest = self._write(self._claim(path), parts, executable=executable)
        self.files.append(TreeFile(path, size, digest))

    def directory(self, path: str) -> None:
        """Make a directory that may stay empty; raises as ``link`` does."""
        self._check(path, f"{path}/")
        (self.root / path).mkdir(parents=True, exist_ok=True)

    def seal(self) -> bytes:
        """Make directories read-only and durable, and return the list of files.

        Raises:
            ArtifactRefused: there is no file.
        """
        if not self.files:
            raise ArtifactRefused("no files", where=self.where, do="push the artifact again")
        for here, _, _ in os.walk(self.root, topdown=False):
            if here != str(self.root):
                Path(here).chmod(0o555)
            durable.sync_directory(Path(here))
        files = sorted(self.files, key=lambda file: file.path)
        return canonical({"files": [{"path": f.path, "size": f.size_bytes, "digest": f.digest} for f in files]})

    def _claim(self, path: str) -> Path:
        self._check(path, path)
        if len(self.files) >= MOST_FILES:
            raise ArtifactRefused(f"more than {MOST_FILES} files", where=self.where)
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _check(self, path: str, claimed: str) -> None:
        try:
            check_path(path, self.where)
        except OverlayRefused as error:
            raise ArtifactRefused(error.what, where=self.where, do="push it again without this file") from None
        parts = path.split("/")
        if any(len(part.encode()) > 255 for part in parts):
            raise ArtifactRefused(f"name too long: {path[:200]!r}", where=self.where)
        # A file under the name of a directory, and names that differ only in case, collide on some disks.
        for taken in (*("/".join(parts[:n]) + "/" for n in range(1, len(parts))), claimed):
            folded = taken.rstrip("/").casefold()
            if self._names.setdefault(folded, taken) != taken or (taken == claimed == path and self._is_file(path)):
                raise ArtifactRefused(f"{taken!r} and {self._names[folded]!r} collide", where=self.where)

    def _is_file(self, path: str) -> bool:
        return os.path.lexists(self.root / path)

    def _grow(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        if self._size_bytes > self.most_bytes:
            raise ArtifactRefused(f"more than {self.most_bytes} bytes when unpacked", where=self.where)

    def _write(self, target: Path, parts: Iterable[bytes], *, executable: bool) -> tuple[int, str]:
        hashed, size = hashlib.sha256(), 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(target, flags, 0o600), "wb") as file:
            for part in parts:
                self._grow(len(part))
                size += len(part)
                hashed.update(part)
                file.write(part)
            os.fchmod(file.fileno(), 0o555 if executable else 0o444)
            file.flush()
            os.fsync(file.fileno())
        return size, f"sha256:{hashed.hexdigest()}"


def read_list(data: bytes, where: str) -> tuple[TreeFile, ...]:
    """Read the list of a tree.

    Raises:
        Malformed: it is none.
    """
    return Fields.parse(data, where).each(
        "files", lambda item: TreeFile(item.text("path"), item.integer("size"), item.digest("digest"))
    )


def as_listed(path: Path, file: TreeFile, *, deep: bool) -> bool:
    """Tell whether the file at ``path`` is the listed one, by its size, or by its bytes where ``deep``."""
    try:
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode) or about.st_size != file.size_bytes:
            return False
        if not deep:
            return True
        with path.open("rb") as opened:
            return f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}" == file.digest
    except OSError:
        return False


def fingerprint(target: str | Path) -> str:
    """Return what changes when somebody changes the bytes: names, sizes, times and inodes; empty where nothing is.

    It is asked for at every look, of every delivered file: one call to the system for a file.
    """
    path = str(target)
    try:
        about = os.lstat(path)
        if not stat.S_ISDIR(about.st_mode):
            return digest(_line(path, about).encode())
        found = [(str(one), one.lstat()) for one in sorted(Path(path).rglob("*"))]
    except OSError:
        return ""
    return digest("\n".join(_line(*one) for one in found if not stat.S_ISDIR(one[1].st_mode)).encode())


def _line(path: str, about: os.stat_result) -> str:
    return f"{path}:{about.st_size}:{about.st_mtime_ns}:{about.st_ino}"


def remove(path: Path) -> None:
    """Remove a file or a tree, read-only directories included; what is not there is removed already."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for here, _, _ in os.walk(path):
        Path(here).chmod(0o700)
    shutil.rmtree(path)
