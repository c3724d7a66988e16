"""Overlays → the fleet repository: one signed commit, one pack, one compare-and-swap of all references.

A crash, a full disk or a lost race at any point leaves the state before or the state after, for every reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from agent.wire.errors import Retry
from agent.wire.overlay import check_path
from agent.wire.signature import GIT, SigningKey
from gitops.fleet import FleetRepository, Known, shard
from gitops.fleet_tree import BLOB, TREE, Edits, Entries, Layout, encode_tree, insert
from gitops.pack import PackWriter
from gitops.refs import CLUSTERS, MAIN, absorb_loose, locked, loose_main, move_refs

AUTHOR: Final = b"Edgeferry <edgeferry@localhost>"

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_OBJECTS_KEPT: Final = 1_000_000
"""About 100 bytes each; beyond it, what is in the repository is learnt again, cluster by cluster."""


class FleetMoved(Retry):
    """The fleet repository's head is not the one that was decided on: another publisher was first."""

    code = "EF3001"
    delay_s = 0.1


class FleetUnwritable(Retry):
    """The fleet repository cannot be written: the disk is full, or the rights are missing."""

    code = "EF3004"
    delay_s = 30.0


@dataclass(frozen=True, slots=True)
class Change:
    """What one publication changes.

    Attributes:
        overlays: cluster → path → bytes of its whole overlay, without trust; an empty one is removed with its branch.
        files: path → bytes at the top (decisions, commands, trust); None removes.
        message: of the commit.
        at: author and committer time, timezone-aware, to the second.
    """

    overlays: Mapping[str, Mapping[str, bytes]]
    files: Mapping[str, bytes | None]
    message: str
    at: datetime


def publish(fleet: FleetRepository, change: Change, key: SigningKey, expected_head: str | None) -> str:
    """Publish a change, durably, and return the new head; the old one where nothing differs.

    The same change on the same head gives the same commit. Where the fleet has an upstream, the head moves here only
    after the upstream has accepted it.

    Args:
        fleet: where to.
        change: what differs.
        key: signs the commit; must be a release key of the trust in force.
        expected_head: the head that the change was decided on; None for an empty repository.

    Raises:
        FleetMoved: the head is another; nothing is written. Decide again.
        FleetLocked: somebody else writes for too long.
        FleetUnwritable: the disk is full, or rights are missing; the old state stands.
        ValueError: a path or a name that no overlay may have.
    """
    if change.at.tzinfo is None or change.at.microsecond:
        raise ValueError("the time of a change is timezone-aware and to the second")
    try:
        return _publish(fleet, change, key, expected_head)
    except FleetMoved:
        fleet.fetch()
        raise
    except OSError as error:
        raise FleetUnwritable(
            f"cannot write: {error.strerror or error}",
            where=str(fleet.path),
            do="free space or mend the rights; the last publication stands",
        ) from None


def _publish(fleet: FleetRepository, change: Change, key: SigningKey, expected_head: str | None) -> str:
    with locked(fleet.path):
        refs = fleet.refs
        head = loose_main(fleet.path) or refs.values.get(MAIN)
        if head != expected_head:
            raise moved(head, expected_head, str(fleet.path))
        known = _known(fleet, head)
        with PackWriter(fleet.path / "objects" / "pack", known.objects) as pack:
            _learn(fleet, known, change)
            made = _write(fleet, change, key, head, pack)
            if made is None:
                return head or ""
            pack.finish()
            new, clusters = made
            if fleet.upstream is not None:
                fleet.upstream.push(fleet.path, new, head, clusters)
            refs = absorb_loose(fleet.path, refs)
            moves = {CLUSTERS + name: commit for name, commit in clusters.items()}
            fleet.settle(move_refs(fleet.path, refs, {MAIN: new, **moves}))
            _remember(known, new, pack, change)
            return new


def moved(head: str | None, expected: str | None, where: str) -> FleetMoved:
    """Return the fault for a head that is not the expected one."""
    return FleetMoved(f"main is at {(head or 'nothing')[:12]}, not at {(expected or 'nothing')[:12]}", where=where)


def commit_bytes(tree: bytes, parent: str | None, at: datetime, message: str) -> bytes:
    """Return an unsigned commit by the publisher."""
    stamp = b"%b %d +0000\n" % (AUTHOR, int(at.timestamp()))
    above = b"" if parent is None else b"parent %b\n" % parent.encode()
    text = message.replace("\0", "").encode(errors="replace").rstrip(b"\n")
    return b"tree %b\n%bauthor %bcommitter %b\n%b\n" % (tree.hex().encode(), above, stamp, stamp, text)


def signed_commit(commit: bytes, key: SigningKey) -> bytes:
    """Return the commit with its signature in it, as ``git commit -S`` with ``gpg.format=ssh`` makes it."""
    head, _, message = commit.partition(b"\n\n")
    lines = key.sign(commit, GIT).rstrip(b"\n").replace(b"\n", b"\n ")
    return b"%b\ngpgsig %b\n\n%b" % (head, lines, message)


def cluster_commit(cluster: str, tree: bytes, head: str, at: datetime) -> bytes:
    """Return the parentless commit with one overlay: it follows from the commit on main that brought the overlay."""
    middle, end = _frame(head, int(at.timestamp()))
    return b"tree %b%b%b%b" % (tree.hex().encode(), middle, cluster.encode(), end)


@lru_cache(1)
def _frame(head: str, at: int) -> tuple[bytes, bytes]:
    """Return what all clusters' commits of one publication share, between the tree and the name, and after it."""
    stamp = b"%b %d +0000" % (AUTHOR, at)
    return b"\nauthor %b\ncommitter %b\n\nOverlay of " % (stamp, stamp), b"\n\nFleet-Commit: %b\n" % head.encode()


def _write(
    fleet: FleetRepository, change: Change, key: SigningKey, head: str | None, pack: PackWriter
) -> tuple[str, dict[str, str | None]] | None:
    """Put all objects into the pack; return the commit, and cluster → commit; None where nothing differs."""
    top = None if head is None else fleet.top(head)
    edits: Edits = {}
    for path, data in change.files.items():
        check_path(path, "publish")
        if path.partition("/")[0] == "clusters":
            raise ValueError(f"{path!r} belongs to an overlay")
        insert(edits, path, None if data is None else (BLOB, pack.put("blob", data)))
    trust, trust_before = _trust(fleet, top, edits, pack)
    trees = _overlays(fleet, change, trust, pack)
    if trust != trust_before:
        trees.update(_retrusted(fleet, head, trust, change, pack))
    shards = {name: shard(name) for name in trees}
    before = _standing(fleet, top, shards)
    trees = {name: tree for name, tree in trees.items() if tree != before.get(name)}
    if trees:
        leaves: dict[str, Edits] = {}
        for name, tree in trees.items():
            h = shards[name]
            below = leaves.get(h)
            if below is None:
                below = leaves[h] = _below(edits, (b"clusters", *(digit.encode() for digit in h)))
            below[name.encode()] = None if tree is None else (TREE, tree)
    made = fleet.trees.changed(top, edits, pack.put) or pack.put("tree", b"")
    if made == top:
        return None
    commit = signed_commit(commit_bytes(made, head, change.at, change.message.strip("\n")), key)
    new = pack.put("commit", commit).hex()
    return new, {
        name: None if tree is None else pack.put("commit", cluster_commit(name, tree, new, change.at)).hex()
        for name, tree in trees.items()
    }


def _overlays(fleet: FleetRepository, change: Change, trust: bytes | None, pack: PackWriter) -> dict[str, bytes | None]:
    """Write every overlay's tree, with the trust chain in it; cluster → tree, None for one that goes."""
    trees: dict[str, bytes | None] = {}
    oids: dict[int, bytes] = {}  # by identity: overlays share the bytes of what was rendered once
    layouts: dict[tuple[str, ...], Layout] = {}
    first, paths_first = ([], ()) if trust is None else ([trust], ("trust/",))
    put, known = pack.put, oids.get

    def blob(data: bytes) -> bytes:
        oid = oids[id(data)] = put("blob", data)
        return oid

    for cluster, files in change.overlays.items():
        if not _NAME.match(cluster):
            raise ValueError(f"{cluster!r} is no name of a cluster")
        if not files:
            trees[cluster] = None
            continue
        paths = tuple(files)
        layout = layouts.get(paths)
        if layout is None:
            for path in paths:
                check_path(path, cluster)
            layout = layouts[paths] = Layout(paths_first + paths)
        found = first + [known(id(data)) or blob(data) for data in files.values()]
        trees[cluster] = layout.write(found, put)
    return trees


def _trust(
    fleet: FleetRepository, top: bytes | None, edits: Edits, pack: PackWriter
) -> tuple[bytes | None, bytes | None]:
    """Return the ids of the trust directory after and before the change; None for none."""
    found = None if top is None else fleet.trees.find(top, "trust")
    before = None if found is None else found[1]
    below = edits.get(b"trust")
    if not isinstance(below, dict):
        return before, before
    after = fleet.trees.changed(before, below, pack.put)
    edits[b"trust"] = None if after is None else (TREE, after)
    return after, before


def _retrusted(
    fleet: FleetRepository, head: str | None, trust: bytes | None, change: Change, pack: PackWriter
) -> dict[str, bytes | None]:
    """Write the trees of all clusters that the change leaves alone, with the new trust chain in them."""
    trees: dict[str, bytes | None] = {}
    for cluster, tree in fleet.clusters(head) if head is not None else ():
        if cluster not in change.overlays:
            entries = fleet.tree(tree)
            entries.pop(b"trust", None)
            if trust is not None:
                entries[b"trust"] = (TREE, trust)
            trees[cluster] = pack.put("tree", encode_tree(entries))
    return trees


def _standing(fleet: FleetRepository, top: bytes | None, shards: Mapping[str, str]) -> dict[str, bytes]:
    """Return cluster → tree of its overlay as it stands, of those in ``shards`` (cluster → shard) that have one."""
    leaves: dict[str, Entries] = {}
    found: dict[str, bytes] = {}
    if top is None:
        return found
    for name, h in shards.items():
        leaf = leaves.get(h)
        if leaf is None:
            entry = fleet.trees.find(top, f"clusters/{h[0]}/{h[1]}/{h[2]}")
            leaf = leaves[h] = {} if entry is None else fleet.trees.entries(entry[1])
        one = leaf.get(name.encode())
        if one is not None:
            found[name] = one[1]
    return found


def _below(edits: Edits, parts: Iterable[bytes]) -> Edits:
    for part in parts:
        below = edits.setdefault(part, {})
        assert isinstance(below, dict)
        edits = below
    return edits


def _known(fleet: FleetRepository, head: str | None) -> Known:
    """Return what need not be written; it starts anew where somebody else moved the head."""
    if fleet.known.head != head or len(fleet.known.objects) > _OBJECTS_KEPT:
        fleet.known = Known(head)
        fleet.trees.forget()
    return fleet.known


def _learn(fleet: FleetRepository, known: Known, change: Change) -> None:
    """Know the objects of the overlays that are about to change, so that only what differs is written."""
    if known.head is None:
        return
    new = change.overlays.keys() - known.clusters
    for tree in _standing(fleet, fleet.top(known.head), {name: shard(name) for name in new}).values():
        known.objects.update(_objects(fleet, tree))
    known.clusters |= new


def _objects(fleet: FleetRepository, tree: bytes) -> Iterator[bytes]:
    yield tree
    for mode, oid in fleet.tree(tree).values():
        if mode == TREE:
            yield from _objects(fleet, oid)
        else:
            yield oid


def _remember(known: Known, head: str, pack: PackWriter, change: Change) -> None:
    known.head = head
    known.objects.update(pack.written)
    known.clusters.update(change.overlays)
