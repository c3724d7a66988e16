"""Trees of a model repository: files by path, read again only where they differ. Nothing in them is trusted."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import Final

import pygit2

from agent.wire.errors import Retry, Stop
from gitops.fleet_tree import TREE, decode_tree
from gitops.lfs import LargeFileStore, Pointer
from gitops.tree import File

Parts = dict[str, tuple[bytes, tuple[File, ...]]]
"""Directory → its tree, and the files below it: what need not be read again."""

MAX_FILES: Final = 200_000
MAX_DEPTH: Final = 64

_FILES: Final = (b"100644", b"100755", b"100664")
_BIG_BYTES: Final = 16 << 20


class SourceUnreadable(Retry):
    """A model repository cannot be read now, or its branch is not there: what it declared before stays in force."""

    code = "EF1201"
    delay_s = 30.0


class SourceTooLarge(Stop):
    """A commit has more files, or deeper folders, than a model repository may have."""

    code = "EF1203"


def read_files(odb: pygit2.Odb, parts: Parts, tree: bytes) -> tuple[File, ...]:
    """Return the plain files of a tree, in Git's order, which is that of their paths.

    Symbolic links, submodules and names that no file system should see are left out.

    Args:
        odb: where the trees are.
        parts: what was read before; brought up to date.
        tree: id of the topmost tree.

    Raises:
        SourceTooLarge: more files, or deeper folders, than a model repository may have.
        KeyError: a tree is missing.
    """
    if len(parts) > MAX_FILES:
        parts.clear()
    return _files(odb, parts, "", tree, 0)


class SourceBlobs:
    """Bytes of a source's files. Safe for several threads.

    Args:
        directory: Git directory.
        lock: guards ``repository``.
        repository: where they are.
        large: the source's Git LFS files.
    """

    def __init__(
        self, directory: Path, lock: threading.RLock, repository: pygit2.Repository, large: LargeFileStore
    ) -> None:
        self._directory, self._lock, self._repository, self._large = directory, lock, repository, large

    def read(self, file: File, at_most: int) -> bytes:
        """Return the blob's first ``at_most`` bytes; a large blob is not held in memory for a few of them."""
        if file.size_bytes > max(at_most, _BIG_BYTES):
            return self._first_bytes(file, at_most)
        try:
            with self._lock:
                _, data = self._repository.odb.read(file.oid)
        except (KeyError, pygit2.GitError) as error:
            raise _gone(file, str(error)) from None
        return bytes(data[:at_most])

    def large_file(self, pointer: Pointer) -> Path:
        """Return the large file on this machine, fetched if need be, and verified."""
        return self._large.get(pointer)

    def _first_bytes(self, file: File, at_most: int) -> bytes:
        command = ["git", f"--git-dir={self._directory}", "cat-file", "blob", file.oid]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            data = process.stdout.read(at_most)
            process.kill()
        if len(data) < at_most:
            raise _gone(file, "cut short")
        return data


def _gone(file: File, why: str) -> SourceUnreadable:
    return SourceUnreadable(f"{file.oid[:12]}: {why}", where=file.path, do="the repository lost a file: mend it")


def _files(odb: pygit2.Odb, parts: Parts, prefix: str, tree: bytes, depth: int) -> tuple[File, ...]:
    known = parts.get(prefix)
    if known is not None and known[0] == tree:
        return known[1]
    if depth > MAX_DEPTH:
        raise SourceTooLarge(f"folders nest deeper than {MAX_DEPTH}", where=prefix[:80], do="flatten them")
    if len(parts) > 2 * MAX_FILES:
        raise SourceTooLarge(f"more than {MAX_FILES} folders", where=prefix[:80], do="split the repository")
    found: list[File] = []
    for name, (mode, oid) in decode_tree(bytes(odb.read(tree.hex())[1])).items():
        text = _plain_name(name)
        if text is None:
            continue
        if mode == TREE:
            found += _files(odb, parts, f"{prefix}{text}/", oid, depth + 1)
        elif mode in _FILES:
            found.append(File(prefix + text, oid.hex(), odb.read_header(oid.hex())[1]))
        if len(found) > MAX_FILES:
            raise SourceTooLarge(f"more than {MAX_FILES} files", where=prefix[:80], do="split the repository")
    parts[prefix] = (tree, tuple(found))
    return parts[prefix][1]


def _plain_name(name: bytes) -> str | None:
    """Return the name of a file or directory; None for one that no file system should see."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return None
    plain = text.isprintable() and "/" not in text and "\\" not in text and text.lower() not in ("", ".", "..", ".git")
    return text if plain else None
