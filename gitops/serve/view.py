"""What the service needs of the rest of the hub: one value, so that it can be plugged in and replayed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import random
from threading import Lock
from typing import Final, Protocol

import pygit2

from gitops.artifacts import ArtifactStore
from gitops.authority import Authority
from gitops.changes import Published
from gitops.commands import Verb
from gitops.rollout_view import Rolling
from gitops.serve.faults import NotReady
from gitops.store import Store


class FleetReader(Protocol):
    """The fleet repository as it is now; safe to call from another thread than the publisher's."""

    def cluster_commit(self, cluster: str) -> str | None:
        """Return the id of the parentless commit with the cluster's overlay. Asked at every poll: a lookup."""


ObjectReader = Callable[[str], tuple[str, bytes]]
"""Git object id → kind (``commit``, ``tree``, ``blob``) and bytes; KeyError for none."""


@dataclass(frozen=True, slots=True)
class TrustFiles:
    """The newest trust document as it stands in the fleet repository."""

    number: int
    document: bytes
    signatures: bytes


@dataclass(frozen=True, slots=True)
class SourceState:
    """One source of documents.

    Attributes:
        revision: newest commit that was looked at; empty for none.
        used: newest faultless commit, the one in force; empty for none.
        faults: one line each; why ``revision`` is not in force.
        note: what people should know of ``revision``: that the branch was rewritten. Empty for none.
    """

    name: str
    revision: str
    used: str
    faults: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class HubState:
    """What the hub's last step left.

    Attributes:
        head: commit of the fleet repository; empty before the first publication.
        sources: all of them, by name.
        published: cluster → its newest release.
        kept: cluster → why its release is left as it is.
        named: name of an application, model or workload → the entries, as (kind, name), that it stands for.
        faults: what holds the hub as a whole; one line each.
        offline_after_s: a cluster not heard of for so long is shown as unknown.
        rollouts: of every placement that has one.
        frozen: people have stopped everything.
        pending: why a part of the newest change waits for approval; empty for nothing.
    """

    head: str = ""
    sources: tuple[SourceState, ...] = ()
    published: Mapping[str, Published] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    named: Mapping[str, frozenset[tuple[str, str]]] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    offline_after_s: float = 600.0
    rollouts: tuple[Rolling, ...] = ()
    frozen: bool = False
    pending: str = ""


def utc_now() -> datetime:
    """Return the time now, UTC."""
    return datetime.now(UTC)


def _no_orders(verb: Verb, about: str, by: str, why: str, argument: str) -> str:
    raise NotReady(f"this service takes no orders: {verb} {about} {argument} by {by}: {why}", do="ask the hub itself")


@dataclass(frozen=True, slots=True)
class HubView:
    """All that the service is made of.

    Attributes:
        fleet: id of the fleet.
        clusters: says which commit is a cluster's.
        objects: reads that commit and what it leads to; called only for ids that a cluster may see.
        store: registrations and reports.
        artifacts: the embedded OCI store.
        trust: gives the newest trust document.
        state: gives what ``/v1/status`` shows besides what the clusters said.
        wake: tells the hub's loop that there is something to do, and why; returns at once.
        authority: signs agents' certificates; None for a hub without.
        own_tls: the hub's own authority vouches for its certificate: join lines pin it.
        operator_token: what shows an administrator; empty for none.
        hook_secrets: source name → secret of its webhook; ``""`` for hooks without a source. A hook with no
            secret is taken from anybody: it only makes the hub look.
        order: has an order (verb, object, by, why, argument) recorded and obeyed; returns the fleet commit.
        now: clock, UTC.
        jitter: random numbers from 0 to 1, for the length of waits.
    """

    fleet: str
    clusters: FleetReader
    objects: ObjectReader
    store: Store
    artifacts: ArtifactStore
    trust: Callable[[], TrustFiles]
    state: Callable[[], HubState]
    wake: Callable[[str], None]
    authority: Authority | None = None
    own_tls: bool = False
    operator_token: str = ""
    hook_secrets: Mapping[str, str] = field(default_factory=dict)
    order: Callable[[Verb, str, str, str, str], str] = _no_orders
    now: Callable[[], datetime] = utc_now
    jitter: Callable[[], float] = random


_KINDS: Final = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}


def git_objects(path: Path) -> ObjectReader:
    """Return a reader of a bare repository's objects, for any thread; packs may come and go meanwhile."""
    objects, lock = str(path / "objects"), Lock()
    database = pygit2.Odb(objects)

    def read(oid: str) -> tuple[str, bytes]:
        nonlocal database
        with lock:
            try:
                kind, data = database.read(oid)
            except (KeyError, pygit2.GitError):  # a repack took away the pack that was known to hold it: look again
                database = pygit2.Odb(objects)
                kind, data = database.read(oid)
        return _KINDS[int(kind)], data

    return read
