"""A folder on this machine → a tree, as it stands now: what the next commit would hold, were everything added."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.wire.errors import Stop
from gitops.tree import File, Tree

REVISION: Final = "worktree"
_CHUNK: Final = 1 << 20
_SYMLINK_OR_MODULE: Final = (b"120000", b"160000")


class FolderUnreadable(Stop):
    """A folder, or a file in it, cannot be read."""

    code = "EF1040"


@dataclass(frozen=True, slots=True)
class FolderBlobs:
    """Bytes of a folder's files, as they are now."""

    folder: Path

    def read(self, file: File, at_most: int) -> bytes:
        """Return the file's first ``at_most`` bytes."""
        try:
            with (self.folder / file.path).open("rb") as opened:
                return opened.read(at_most)
        except OSError as error:
            raise _unreadable(self.folder / file.path, error) from None


def read_folder(folder: Path, source: str = "main") -> Tree:
    """Return what stands in a folder.

    In a Git work tree, ignored files are left out, and a file has the id that it would have when committed (so that a
    large file of Git LFS has its pointer's). Symbolic links and submodules are left out everywhere.

    Args:
        folder: the root of the source.
        source: its name.

    Raises:
        FolderUnreadable: the folder, or a file in it, cannot be read.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        raise FolderUnreadable("no such folder", where=str(folder), do="name one that is there")
    try:
        committed_at = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        found = _in_git(folder) if _is_work_tree(folder) else _in_plain_folder(folder)
    except OSError as error:
        raise _unreadable(folder, error) from None
    files = {file.path: file for file in sorted(found, key=lambda one: one.path)}
    return Tree(source, REVISION, committed_at, files, FolderBlobs(folder))


def git(folder: Path, *arguments: str, given: bytes | None = None) -> bytes | None:
    """Run git in a folder; return what it printed, or None where it failed or is not installed."""
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", *arguments]
    try:
        done = subprocess.run(command, input=given, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _is_work_tree(folder: Path) -> bool:
    inside = git(folder, "rev-parse", "--is-inside-work-tree")
    return inside is not None and inside.strip() == b"true" and git(folder, "check-ignore", "--quiet", ".") is None


def _in_git(folder: Path) -> Iterator[File]:
    staged: dict[str, str] = {}
    for line in _lines(git(folder, "ls-files", "--stage", "-z")):
        about, _, name = line.partition(b"\t")
        mode, oid, _ = about.split(b" ")
        staged[_text(name)] = "" if mode in _SYMLINK_OR_MODULE else oid.decode()
    changed = {_text(name) for name in _lines(git(folder, "ls-files", "--modified", "-z"))}
    others = {_text(name) for name in _lines(git(folder, "ls-files", "--others", "--exclude-standard", "-z"))}
    unknown = []
    for path in {*(path for path, oid in staged.items() if oid), *(others - staged.keys())}:
        size = _size(folder / path)
        if size is None or not path.isprintable():
            continue
        if path in staged and path not in changed:
            yield File(path, staged[path], size)
        else:
            unknown.append((path, size))
    yield from _hashed(folder, sorted(unknown))


def _hashed(folder: Path, unknown: list[tuple[str, int]]) -> Iterator[File]:
    """Yield files with the ids that they would have when committed."""
    up, prefix = git(folder, "rev-parse", "--show-cdup"), git(folder, "rev-parse", "--show-prefix")
    if not unknown or up is None or prefix is None:
        return
    below = _text(prefix).rstrip("\n")
    given = "".join(f"{below}{path}\n" for path, _ in unknown).encode()
    done = git(folder / (_text(up).strip() or "."), "hash-object", "--stdin-paths", given=given)
    oids = [] if done is None else done.decode().split()
    if len(oids) != len(unknown):  # a filter that Git is configured to use is not installed here
        oids = [_blob_id(folder / path, size) for path, size in unknown]
    for (path, size), oid in zip(unknown, oids, strict=True):
        yield File(path, oid, size)


def _in_plain_folder(folder: Path) -> Iterator[File]:
    for directory, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".git"]
        for name in names:
            path = Path(directory) / name
            size = _size(path)
            relative = path.relative_to(folder).as_posix()
            if size is not None and relative.isprintable():
                yield File(relative, _blob_id(path, size), size)


def _blob_id(path: Path, size: int) -> str:
    """Return the id that Git gives to the file's bytes. Source: gitformat-objects."""
    state = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def _size(path: Path) -> int | None:
    """Return the size of a plain file; None for anything else."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _lines(printed: bytes | None) -> list[bytes]:
    return [line for line in (printed or b"").split(b"\0") if line]


def _text(path: bytes) -> str:
    return path.decode(errors="surrogateescape")


def _unreadable(path: Path, error: OSError) -> FolderUnreadable:
    return FolderUnreadable(error.strerror or str(error), where=str(path), do="make it readable")
