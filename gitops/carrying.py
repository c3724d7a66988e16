"""Sneakernet, the hub's side: one file to carry to a site, with what it lacks; and its report, carried back."""

from __future__ import annotations

import io
import os
import secrets
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

from agent.wire.canonical import digest
from agent.wire.carried import BLOBS, HEAD, OVERLAY, SIGNATURE, Blob, Head, decode_carried_report, encode_head
from agent.wire.errors import BadSignature, Retry, Stop
from agent.wire.overlay import pack
from agent.wire.release import NAME, Artifact, Release, decode_release
from agent.wire.report import Report, decode_report
from agent.wire.signature import CARRIED, REPORT, SigningKey, fingerprint, signer, verify
from gitops.artifacts import ArtifactStore
from gitops.fleet import FleetRepository, cluster_path
from gitops.store import JoinToken, Store

PLAIN: Final = "application/octet-stream"


class NothingToCarry(Stop):
    """No release is published for the cluster."""

    code = "EF3331"


class ArtifactElsewhere(Stop):
    """The site lacks an artifact that is not in the hub's own store."""

    code = "EF3332"


class CarriedReportRefused(Stop):
    """A carried report is of another fleet, or its cluster's key is not known."""

    code = "EF3333"


class NotCarriedOut(Retry):
    """The file could not be written."""

    code = "EF3334"


@dataclass(frozen=True, slots=True)
class Cargo:
    """What goes into the file.

    Attributes:
        release: of the cluster.
        files: of its overlay, with every trust document.
        blobs: what the site lacks, in order.
        elsewhere: references of artifacts that the site lacks and the hub does not have.
        present: how many artifacts of the release the site has already.
    """

    release: Release
    files: Mapping[str, bytes]
    blobs: tuple[Blob, ...]
    elsewhere: tuple[str, ...]
    present: int

    @property
    def size_bytes(self) -> int:
        """Of all blobs."""
        return sum(one.size_bytes for one in self.blobs)


def cargo(cluster: str, repository: FleetRepository, store: ArtifactStore, report: Report | None) -> Cargo:
    """Return what a site is to get.

    Args:
        cluster: its name.
        repository: the fleet repository.
        store: the hub's artifacts.
        report: the site's last; None: it lacks everything.

    Raises:
        NothingToCarry: see there.
    """
    files = dict(repository.overlay(cluster))
    if NAME not in files:
        raise NothingToCarry(f"nothing is published for {cluster!r}", do="see `edgeferry cluster list` for the names")
    files |= repository.walk("trust")
    release = decode_release(files[NAME], f"{cluster_path(cluster)}/{NAME}")
    has = frozenset(report.artifacts) if report is not None else frozenset()
    wanted = {one.digest: one for entry in release.entries for one in entry.artifacts}
    blobs: dict[str, Blob] = {}
    elsewhere = []
    for name in sorted(wanted.keys() - has):
        if not store.has(name):
            elsewhere.append(wanted[name].ref)
            continue
        for blob in sorted(_blobs(store, wanted[name])):
            blobs[blob] = Blob(blob, store.size_bytes(blob))
    return Cargo(release, files, tuple(blobs.values()), tuple(elsewhere), len(wanted.keys() & has))


def write_cargo(
    what: Cargo,
    store: ArtifactStore,
    key: SigningKey,
    out: Path,
    known: tuple[str, int],
    now: datetime,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write the file, whole or not at all; return its size in bytes.

    Args:
        what: goes into it.
        store: where the blobs are.
        key: release key in force.
        out: the file.
        known: incarnation of the agent's state, and the number up to which the hub has its events.
        now: UTC.
        progress: told how many bytes of blobs are written.

    Raises:
        NotCarriedOut: see there.
    """
    overlay, release = pack(what.files), what.release
    place = (release.fleet, release.cluster, release.sequence, release.trust, now, digest(overlay))
    head = encode_head(Head(*place, what.blobs, *known))
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}.new")
    try:
        with beside.open("xb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, data in ((HEAD, head), (SIGNATURE, key.sign(head, CARRIED)), (OVERLAY, overlay)):
                _add(archive, name, len(data), io.BytesIO(data))
            for blob in what.blobs:
                with store.open_blob(blob.digest) as stream:
                    told = _Told(stream, progress)
                    _add(archive, BLOBS + blob.digest.removeprefix("sha256:"), blob.size_bytes, told)
            archive.close()
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        beside.rename(out)
    except OSError as error:
        do = "give a place with room that this user may write"
        raise NotCarriedOut(error.strerror or str(error), where=str(out), do=do) from None
    finally:
        beside.unlink(missing_ok=True)
    return size


def take_report(data: bytes, repository: FleetRepository, store: Store, now: datetime, where: str) -> Report:
    """Keep a report that was carried here, and its new events; return it.

    A cluster that never registered is registered by its key: the one that its published release is made for.

    Args:
        data: the carried file.
        repository: the fleet repository.
        store: of the hub.
        now: UTC.
        where: for messages.

    Raises:
        CarriedReportRefused, BadSignature, Malformed: nothing was kept.
    """
    raw, armored = decode_carried_report(data, where)
    report = decode_report(raw, where)
    registered = store.registration(report.cluster)
    overlay = repository.overlay(report.cluster)
    release = decode_release(overlay[NAME], NAME) if NAME in overlay else None
    if release is not None and release.fleet != report.fleet:
        raise CarriedReportRefused(f"of fleet {report.fleet[:80]!r}, this is {release.fleet!r}", where=where)
    public = registered.key if registered is not None else signer(armored, where)
    if registered is None and (release is None or release.cluster_key != fingerprint(public)):
        raise CarriedReportRefused(
            f"{report.cluster[:80]!r} is not registered, and no release is made for the key {fingerprint(public)}",
            where=where,
            do=f"set `key: {public}` in clusters/{report.cluster[:53]}.yaml, and publish",
        )
    verify(raw, armored, REPORT, (public,), where)
    if report.base:
        raise BadSignature("it says only differences, and is none that is carried", where=where)
    if registered is None:
        token = secrets.token_bytes(32)
        store.add_token(JoinToken(token, report.cluster, now + timedelta(hours=1)), "carried", now)
        store.join(token, report.cluster, public, (), now, proven=True)
    store.touch(report.cluster, min(now, report.sent_at))
    store.put_report(report.cluster, report, raw, now)
    return report


def known_events(store: Store, report: Report | None) -> tuple[str, int]:
    """Return the incarnation of a site's last report, and the number up to which its events are here."""
    if report is None:
        return "", 0
    newest = store.newest_events(report.cluster, 1)
    same = newest and newest[-1].incarnation == report.incarnation
    return report.incarnation, newest[-1].event.number if same else 0


def _blobs(store: ArtifactStore, artifact: Artifact) -> frozenset[str]:
    return frozenset({artifact.digest}) if artifact.media_type == PLAIN else store.blobs_of(artifact.digest)


def _add(archive: tarfile.TarFile, name: str, size_bytes: int, stream: BinaryIO | io.BytesIO | _Told) -> None:
    member = tarfile.TarInfo(name)
    member.size = size_bytes
    archive.addfile(member, stream)


@dataclass(slots=True)
class _Told:
    """A stream that tells how far it was read."""

    stream: BinaryIO
    progress: Callable[[int], None]

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.progress(len(data))
        return data
