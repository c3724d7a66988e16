"""Files of one source at one commit: what the catalog is read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class File:
    """One file of a tree: a plain blob (symbolic links and submodules are left out by who reads the tree).

    Attributes:
        path: from the root of the source, with slashes.
        oid: hex id of the Git blob; equal ids are equal bytes.
        size_bytes: of the blob; for a Git LFS pointer, of the pointer.
    """

    path: str
    oid: str
    size_bytes: int


class Blobs(Protocol):
    """Gives bytes for blob ids."""

    def read(self, file: File, at_most: int) -> bytes:
        """Return the blob's bytes; at most ``at_most`` are read (a longer blob gives its first bytes)."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One source at one commit.

    Attributes:
        source: ``main``, or the name of the Source document that admits it.
        revision: commit id; ``worktree`` for a folder that is not committed.
        committed_at: committer time, UTC.
        files: path → file, sorted by path, below the source's ``path``.
        blobs: where the bytes come from.
        approvals: hashes that the newest commits approve changes by, in trailers of their messages.
        note: what people should know of how it came to be the newest: that the branch was rewritten. Empty for none.
    """

    source: str
    revision: str
    committed_at: datetime
    files: Mapping[str, File]
    blobs: Blobs
    note: str = ""
    approvals: frozenset[str] = frozenset()
