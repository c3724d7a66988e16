"""The clusters' parentless commits, worked out again from main's history: nothing else is needed to have them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from gitops.fleet import FleetRepository
from gitops.fleet_tree import TREE
from gitops.pack import PackWriter
from gitops.publish import cluster_commit

_PARENT: Final = re.compile(rb"^parent ([0-9a-f]{40})$", re.MULTILINE)
_TIME: Final = re.compile(rb"^committer .* ([0-9]{1,12}) \+0000$", re.MULTILINE)


def cluster_commits(fleet: FleetRepository, before: str | None, head: str) -> dict[str, str]:
    """Write and return the commits of all clusters whose overlay differs between two commits of main.

    Each follows from the newest commit that brought the cluster's overlay, so that every mirror has the same.
    Call it locked, as it writes a pack.

    Args:
        fleet: holds both commits.
        before: up to where the clusters' commits are known; None for nowhere, and also where ``head`` does not
            descend from it (main was put back): then all are worked out.
        head: newest commit.

    Returns:
        Cluster → commit id.
    """
    wanted = dict(fleet.clusters(head))
    line = list(_line(fleet, head, before))
    if before is not None and (not line or _parent(fleet, line[-1]) != before):
        before, line = None, list(_line(fleet, head, None))
    brought: dict[str, tuple[str, bytes]] = {}
    for commit in line:
        for name, tree in _differing(fleet, _parent(fleet, commit), commit):
            if wanted.get(name) == tree and name not in brought:
                brought[name] = (commit, tree)
        if len(brought) == len(wanted):
            break
    with PackWriter(fleet.path / "objects" / "pack", frozenset()) as pack:
        made = {
            name: pack.put("commit", cluster_commit(name, tree, commit, _time(fleet, commit))).hex()
            for name, (commit, tree) in brought.items()
        }
        pack.finish()
    return made


def _line(fleet: FleetRepository, head: str, before: str | None) -> Iterator[str]:
    """Yield first parents, newest first, without ``before``."""
    commit: str | None = head
    while commit is not None and commit != before:
        yield commit
        commit = _parent(fleet, commit)


def _differing(fleet: FleetRepository, before: str | None, commit: str) -> Iterator[tuple[str, bytes]]:
    """Yield the clusters whose tree a commit brought, reading only directories that differ."""
    new = fleet.trees.find(fleet.top(commit) or b"", "clusters")
    top = None if before is None else fleet.top(before)
    old = None if top is None else fleet.trees.find(top, "clusters")
    if new is not None and new != old:
        yield from _below(fleet, None if old is None else old[1], new[1], 3)


def _below(fleet: FleetRepository, old: bytes | None, new: bytes, depth: int) -> Iterator[tuple[str, bytes]]:
    was = {} if old is None else fleet.trees.entries(old)
    for name, entry in fleet.trees.entries(new).items():
        if entry[0] != TREE or was.get(name) == entry:
            continue
        if depth == 0:
            yield name.decode(), entry[1]
        else:
            yield from _below(
                fleet, was[name][1] if name in was and was[name][0] == TREE else None, entry[1], depth - 1
            )


def _parent(fleet: FleetRepository, commit: str) -> str | None:
    found = _PARENT.search(fleet.commit(commit).partition(b"\n\n")[0])
    return None if found is None else found[1].decode()


def _time(fleet: FleetRepository, commit: str) -> datetime:
    found = _TIME.search(fleet.commit(commit).partition(b"\n\n")[0])
    return datetime.fromtimestamp(0 if found is None else int(found[1]), UTC)
