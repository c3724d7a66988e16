"""Rendered entries → the files of one cluster's overlay, release and signature included. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from agent.wire.canonical import digest
from agent.wire.errors import Stop
from agent.wire.release import NAME, SIGNATURE_NAME, MaxOffline, Release, Retire, encode_release
from agent.wire.signature import RELEASE, SigningKey
from agent.wire.windows import Window
from gitops.render.entries import Rendered
from gitops.render.kubernetes import kustomization


class ObjectClash(Stop):
    """Two entries of one cluster declare the same Kubernetes object."""

    code = "EF3021"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What all releases of one step share.

    Attributes:
        fleet: id of the fleet.
        trust: number of the trust in force.
        published_at: time of the deciding step, UTC.
        source_revision: source name → commit.
    """

    fleet: str
    trust: int
    published_at: datetime
    source_revision: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Manner:
    """How a cluster is to go about its release.

    Attributes:
        windows: it switches only then.
        keep: what is no longer asked for goes on there.
        returns: ``kind/NAME`` that go back, windows or not.
        retries: ``kind/NAME`` → id of the order to try again what failed.
        max_offline: how long it may hear nothing; None for as long as it takes.
    """

    windows: tuple[Window, ...] = ()
    keep: bool = False
    returns: tuple[str, ...] = ()
    retries: Mapping[str, str] = field(default_factory=dict)
    max_offline: MaxOffline | None = None


PLAIN: Final = Manner()


@dataclass(frozen=True, slots=True)
class Draft:
    """An overlay before it is signed; equal ``content`` is published only once.

    Attributes:
        content: digest of everything that matters to the cluster.
        release: bytes of release.json.
        files: all other files.
    """

    cluster: str
    sequence: int
    content: str
    release: bytes
    files: Mapping[str, bytes]


def draft(
    cluster: str,
    entries: Sequence[Rendered],
    stamp: Stamp,
    sequence: int,
    cluster_key: str = "",
    retire: Retire = "",
    manner: Manner = PLAIN,
) -> Draft:
    """Return one cluster's overlay, unsigned.

    Args:
        cluster: its name.
        entries: in any order.
        stamp: what all releases of this step share.
        sequence: of the release, if it is published.
        cluster_key: fingerprint of the agent's key; empty while none is registered.
        retire: for a cluster that left the catalog.
        manner: how the cluster is to go about it.

    Raises:
        ObjectClash: two entries declare the same object.
    """
    entries = sorted(entries, key=lambda one: (one.entry.kind, one.entry.name))
    files: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    manifests: list[str] = []
    for one in entries:
        files.update(one.files)
        digests.update(one.digests)
        manifests.extend(one.manifests)
    _check_objects(cluster, entries)
    top = kustomization(manifests)
    files["kustomization.yaml"] = top
    digests["kustomization.yaml"] = digest(top)
    release = Release(
        fleet=stamp.fleet,
        cluster=cluster,
        cluster_key=cluster_key,
        sequence=sequence,
        published_at=stamp.published_at,
        source_revision=stamp.source_revision,
        trust=stamp.trust,
        entries=(),
        files=digests,
        retire=retire,
        windows=manner.windows,
        keep=manner.keep,
        returns=manner.returns,
        retries=manner.retries,
        max_offline=manner.max_offline,
    )
    data, content = encode_release(release, [one.encoded for one in entries])
    return Draft(cluster, sequence, content, data, files)


def signed(overlay: Draft, key: SigningKey) -> dict[str, bytes]:
    """Return path → bytes of the whole overlay with its signature (trust is added where it is stored)."""
    return {**overlay.files, NAME: overlay.release, SIGNATURE_NAME: key.sign(overlay.release, RELEASE)}


def _check_objects(cluster: str, entries: Sequence[Rendered]) -> None:
    total = sum(len(one.objects) for one in entries)
    owner: dict[str, Rendered] = {}
    if len(set().union(*(one.objects for one in entries))) == total:
        return
    for one in entries:
        for identity in sorted(one.objects):
            other = owner.setdefault(identity, one)
            if other is not one:
                names = f"{other.entry.kind} {other.entry.name} and {one.entry.kind} {one.entry.name}"
                raise ObjectClash(
                    f"{names} both declare {identity}", where=cluster, do="rename the object in one of them"
                )
