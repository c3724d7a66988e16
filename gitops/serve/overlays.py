"""What a cluster may see: the files of its current and of its previous overlay, and the artifacts they name."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.wire.errors import EdgeferryError
from agent.wire.release import NAME, Artifact, decode_release
from gitops.artifacts import ArtifactStore
from gitops.serve.view import FleetReader, ObjectReader

_HUB: Final = "hub://"
_GRANTS_KEPT: Final = 4096
_TREE: Final = b"40000"


@dataclass(frozen=True, slots=True)
class GitObject:
    """One object of an overlay's commit."""

    oid: str
    kind: str
    data: bytes


class Overlays:
    """Current and previous commit of each cluster, as they were given out.

    The previous one is remembered since the hub started: it serves who was told of it a moment ago. Safe for
    several threads.

    Args:
        clusters: says which commit is current.
        objects: reads them.
        artifacts: for what their releases lead to.
    """

    def __init__(self, clusters: FleetReader, objects: ObjectReader, artifacts: ArtifactStore) -> None:
        self._clusters = clusters
        self._objects = objects
        self._artifacts = artifacts
        self._current: dict[str, str] = {}
        self._previous: dict[str, str] = {}
        self._grants: OrderedDict[str, frozenset[tuple[str, str]]] = OrderedDict()
        self._lock = threading.Lock()

    def current(self, cluster: str) -> str | None:
        """Return the commit with the cluster's overlay; None before the first publication."""
        commit = self._clusters.cluster_commit(cluster)
        known = self._current.get(cluster)
        if commit is not None and commit != known:
            with self._lock:
                if known is not None:
                    self._previous[cluster] = known
                self._current[cluster] = commit
        return commit

    def commits(self, cluster: str) -> tuple[str, ...]:
        """Return the commits that the cluster may see, current first."""
        current = self.current(cluster)
        if current is None:
            return ()
        previous = self._previous.get(cluster)
        return (current,) if previous is None or previous == current else (current, previous)

    def files(self, commit: str) -> dict[str, bytes]:
        """Return path → bytes of a commit that ``commits`` named."""
        kind, data = self._objects(commit)
        assert kind == "commit"
        return {path: one.data for path, one in self._walk(_tree_of(data), "") if one.kind == "blob"}

    def closure(self, commit: str) -> list[GitObject]:
        """Return all objects of a commit that ``commits`` named, itself first, each once."""
        kind, data = self._objects(commit)
        assert kind == "commit"
        found = {commit: GitObject(commit, kind, data)}
        for _, one in self._walk(_tree_of(data), ""):
            found.setdefault(one.oid, one)
        return list(found.values())

    def grants(self, cluster: str) -> frozenset[tuple[str, str]]:
        """Return (repository, digest) of every manifest and blob that the cluster may fetch."""
        granted: frozenset[tuple[str, str]] = frozenset()
        for commit in self.commits(cluster):
            granted |= self._granted_by(commit)
        return granted

    def refers(self, cluster: str, repository: str, wanted: str) -> bool:
        """Tell whether a manifest or blob belongs to what refers to an artifact that the cluster may fetch: a delta."""
        granted = {digest for name, digest in self.grants(cluster) if name == repository}
        for one in self._artifacts.repositories.entries(repository):
            if one.subject in granted and (one.digest == wanted or wanted in self._artifacts.blobs_of(one.digest)):
                return True
        return False

    def _granted_by(self, commit: str) -> frozenset[tuple[str, str]]:
        with self._lock:
            if commit in self._grants:
                self._grants.move_to_end(commit)
                return self._grants[commit]
        release = decode_release(self.files(commit)[NAME], f"{NAME} of commit {commit}")
        found: set[tuple[str, str]] = set()
        complete = True
        for artifact in (one for entry in release.entries for one in entry.artifacts if one.ref.startswith(_HUB)):
            try:
                found.update((artifact.ref.removeprefix(_HUB), blob) for blob in self._reached(artifact))
            except EdgeferryError:
                complete = False  # it is not in the store, or not yet: nothing to give, and nothing to remember
        granted = frozenset(found)
        with self._lock:
            if complete:
                self._grants[commit] = granted
            while len(self._grants) > _GRANTS_KEPT:
                self._grants.popitem(last=False)
        return granted

    def _reached(self, artifact: Artifact) -> frozenset[str]:
        if artifact.media_type.endswith("+json"):
            return self._artifacts.blobs_of(artifact.digest)
        return frozenset({artifact.digest})

    def _walk(self, tree: str, prefix: str) -> Iterator[tuple[str, GitObject]]:
        kind, data = self._objects(tree)
        assert kind == "tree"
        yield prefix, GitObject(tree, kind, data)
        for mode, name, oid in _entries(data):
            if mode == _TREE:
                yield from self._walk(oid, f"{prefix}{name}/")
            else:
                blob_kind, blob = self._objects(oid)
                yield f"{prefix}{name}", GitObject(oid, blob_kind, blob)


def _tree_of(commit: bytes) -> str:
    return commit[5:45].decode()


def _entries(tree: bytes) -> Iterator[tuple[bytes, str, str]]:
    at = 0
    while at < len(tree):
        space, end = tree.index(b" ", at), tree.index(b"\0", at)
        yield tree[at:space], tree[space + 1 : end].decode(), tree[end + 1 : end + 21].hex()
        at = end + 21
