"""The fleet repository, read: overlays, releases, decisions and trust at its head."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, Self

import pygit2

from agent.wire.release import NAME
from gitops.fleet_tree import TREE, Trees, blobs_below, decode_tree
from gitops.refs import CLUSTERS, MAIN, FleetUnreadable, Refs, loose_main, read_refs

LOOK_S: Final = 0.1
"""A poll looks whether another process moved the references so often at most."""

_KINDS: Final = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}
_TREE_LINE: Final = re.compile(rb"tree ([0-9a-f]{40})\n")


class Upstream(Protocol):
    """The Git host that keeps the fleet repository, where it is not kept here."""

    def fetch(self, repository: Path) -> str | None:
        """Bring ``repository`` to the host's main and return its commit; None where there is none yet."""

    def push(self, repository: Path, head: str, expected: str | None, clusters: dict[str, str | None]) -> None:
        """Move main from ``expected`` to ``head``, and clusters' branches to their commits (None removes one).

        Raises:
            FleetMoved: main is not at ``expected``; nothing changed.
        """


@dataclass(slots=True)
class Known:
    """Objects that need not be written again.

    Attributes:
        head: commit for which this holds.
        objects: ids that are reachable from it.
        clusters: clusters whose overlay's objects are all among them.
    """

    head: str | None = None
    objects: set[bytes] = field(default_factory=set)
    clusters: set[str] = field(default_factory=set)


def shard(name: str) -> str:
    """Return three hex digits: the directories that a cluster stands in, as ten thousand in one are slow to write."""
    return hashlib.sha256(name.encode()).hexdigest()[:3]


def cluster_path(name: str) -> str:
    """Return where a cluster's overlay stands."""
    h = shard(name)
    return f"clusters/{h[0]}/{h[1]}/{h[2]}/{name}"


class FleetRepository:
    """One bare repository. Reading is safe from any thread; gitops/publish.py writes.

    Args:
        path: the Git directory.
        upstream: the Git host that it mirrors; None where it is the fleet repository itself.

    Attributes:
        trees: of this repository, remembered.
        known: what the publisher need not write again.
    """

    def __init__(self, path: Path, upstream: Upstream | None = None) -> None:
        self.path = path
        self.upstream = upstream
        self.trees = Trees(lambda oid: self._read("tree", oid))
        self.known = Known()
        self._odb = pygit2.Odb(str(path / "objects"))
        self._lock = threading.Lock()
        self._refs = Refs()
        self._look_s = 0.0

    @classmethod
    def open(cls, path: Path, *, create: bool = False, upstream: Upstream | None = None) -> Self:
        """Open a bare repository.

        Args:
            path: its Git directory.
            create: make it where nothing is there yet.
            upstream: the Git host that it mirrors.

        Raises:
            FleetUnreadable: nothing is there, or no bare SHA-1 repository.
        """
        if create and (not path.exists() or not any(path.iterdir())):
            pygit2.init_repository(str(path), bare=True, initial_head="main")
        check_bare(path)
        return cls(path, upstream)

    @property
    def refs(self) -> Refs:
        """The packed references as they are now."""
        self._refs = refs = read_refs(self.path, self._refs)
        return refs

    def fetch(self) -> None:
        """Bring a mirror to what its upstream has; without an upstream there is nothing to do.

        Raises:
            EdgeferryError: the upstream cannot be reached; what is here stands.
        """
        if self.upstream is not None:
            self.upstream.fetch(self.path)

    def settle(self, refs: Refs) -> None:
        """Take over the references that were just written, so that they need not be read again."""
        self._refs = refs
        self._look_s = 0.0

    @property
    def head(self) -> str | None:
        """Commit id of main; None before the first publication."""
        return loose_main(self.path) or self.refs.values.get(MAIN)

    def cluster_commit(self, cluster: str) -> str | None:
        """Return the id of the parentless commit with the cluster's overlay; None before its first publication.

        What this object published is seen at once, what another process did within ``LOOK_S``.
        """
        now_s = time.monotonic()
        if now_s >= self._look_s:
            self._look_s = now_s + LOOK_S  # before the look: what is settled meanwhile calls for another one
            self._refs = read_refs(self.path, self._refs)
        return self._refs.values.get(CLUSTERS + cluster)

    def read(self, path: str, at: str | None = None) -> bytes | None:
        """Return the bytes of a file; None for none.

        Args:
            path: from the top of the repository.
            at: commit; None for the head.
        """
        top = self.top(at)
        found = None if top is None else self.trees.find(top, path)
        return None if found is None or found[0] == TREE else self._read("blob", found[1])

    def walk(self, prefix: str, at: str | None = None) -> dict[str, bytes]:
        """Return path → bytes of every file below the directory ``prefix``, in Git's order; empty for the top."""
        top = self.top(at)
        found = None if top is None else self.trees.find(top, prefix)
        if found is None or found[0] != TREE:
            return {}
        return {path: self._read("blob", oid) for path, oid in blobs_below(self.trees, found[1], prefix)}

    def overlay(self, cluster: str, at: str | None = None) -> dict[str, bytes]:
        """Return path → bytes of a cluster's overlay, its trust chain included; empty where it has none."""
        top = self.top(at)
        found = None if top is None else self.trees.find(top, cluster_path(cluster))
        return {} if found is None else dict(self._plain(found[1], ""))

    def clusters(self, at: str | None = None) -> Iterator[tuple[str, bytes]]:
        """Yield name and tree id of every cluster that has an overlay."""
        top = self.top(at)
        found = None if top is None else self.trees.find(top, "clusters")
        if found is None:
            return
        for _, one in self.trees.entries(found[1]).values():
            for _, two in self.trees.entries(one).values():
                for _, three in self.trees.entries(two).values():
                    for name, (_, tree) in self.trees.entries(three).items():
                        yield name.decode(), tree

    def releases(self, at: str | None = None) -> Iterator[tuple[str, bytes]]:
        """Yield (cluster, bytes of release.json) of every cluster."""
        for cluster, tree in self.clusters(at):
            entry = decode_tree(self._read("tree", tree)).get(NAME.encode())
            if entry is not None:
                yield cluster, self._read("blob", entry[1])

    def top(self, at: str | None = None) -> bytes | None:
        """Return the top tree's id of a commit; of the head where none is given, and None where there is none."""
        commit = at or self.head
        if commit is None:
            return None
        found = _TREE_LINE.match(self.commit(commit))
        if found is None:
            raise FleetUnreadable(f"{commit} is no commit", where=str(self.path), do="restore the repository")
        return bytes.fromhex(found[1].decode())

    def commit(self, commit: str) -> bytes:
        """Return the bytes of a commit object."""
        return self._read("commit", bytes.fromhex(commit))

    def tree(self, tree: bytes) -> dict[bytes, tuple[bytes, bytes]]:
        """Return the entries of a tree that is not worth remembering: one of the many inside overlays."""
        return decode_tree(self._read("tree", tree))

    def _plain(self, tree: bytes, prefix: str) -> Iterator[tuple[str, bytes]]:
        for name, (mode, oid) in self.tree(tree).items():
            path = prefix + name.decode()
            if mode == TREE:
                yield from self._plain(oid, f"{path}/")
            else:
                yield path, self._read("blob", oid)

    def _read(self, kind: str, oid: bytes) -> bytes:
        with self._lock:
            try:
                number, data = self._odb.read(oid.hex())
            except (KeyError, pygit2.GitError):  # a repack took the pack away that was known to hold it: look again
                self._odb = pygit2.Odb(str(self.path / "objects"))
                try:
                    number, data = self._odb.read(oid.hex())
                except (KeyError, pygit2.GitError) as error:
                    raise FleetUnreadable(
                        f"object {oid.hex()} is missing or damaged: {error}",
                        where=str(self.path),
                        do="restore the repository from a backup or from an agent's branch",
                    ) from None
        if _KINDS[int(number)] != kind:
            raise FleetUnreadable(f"{oid.hex()} is no {kind}", where=str(self.path), do="restore the repository")
        return bytes(data)


def check_bare(path: Path) -> None:
    """Refuse what is no bare SHA-1 repository with its references in files.

    Raises:
        FleetUnreadable: with the reason.
    """
    advice = "publish to it first, or correct the path"
    if not (path / "objects").is_dir() or not (path / "HEAD").is_file():
        raise FleetUnreadable("no bare Git repository", where=str(path), do=advice)
    config = pygit2.Config(str(path / "config")) if (path / "config").is_file() else pygit2.Config()
    for name, wanted in (("extensions.objectformat", "sha1"), ("extensions.refstorage", "files")):
        if name in config and config[name] != wanted:
            raise FleetUnreadable(f"{name} is {config[name]}, not {wanted}", where=str(path), do=advice)
