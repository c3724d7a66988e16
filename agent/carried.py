"""Sneakernet, the site's side: a file that was carried here is verified and put where the agent looks.

STATE/carried/overlay/         what the agent's folder transport reads: exchanged at once
STATE/carried/blobs/sha256/    what the agent stages from: whole and verified, or not there
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Final

from agent import durable, outbox
from agent.config import load_config
from agent.content import Content
from agent.fetch import Received
from agent.force import check, in_force, least_sequence
from agent.http import Unreachable
from agent.keys import agent_key
from agent.oci import OtherBytes
from agent.speak import kept_report, next_number
from agent.state import State, StateInUse, StateNotWritten, locked
from agent.verify import Accepted
from agent.wire.canonical import digest
from agent.wire.carried import (
    BLOBS,
    HEAD,
    MOST_HEAD_BYTES,
    OVERLAY,
    SIGNATURE,
    Blob,
    CarriedDamaged,
    Head,
    decode_head,
    encode_carried_report,
)
from agent.wire.errors import Stop, Wait
from agent.wire.overlay import Limits, unpack
from agent.wire.report import decode_report, encode_report
from agent.wire.signature import CARRIED, REPORT, verify

DIRECTORY: Final = "carried"

_READ_BYTES: Final = 1 << 20
_LIMITS: Final = Limits()


class NotForThisSite(Stop):
    """A carried file is for another cluster or another fleet."""

    code = "EF4440"


class NotCarried(Stop):
    """This site takes its overlays by a network, not from carried files."""

    code = "EF4442"


class NothingToReport(Wait):
    """No agent has looked at this site yet, so there is nothing to say of it."""

    code = "EF4443"


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did.

    Attributes:
        sequence: of the release in the file.
        news: it is newer than what is in force.
        blobs: that were brought.
        present: blobs that were here already.
        acknowledged: events up to this number are at the hub.
    """

    sequence: int
    news: bool
    blobs: int
    present: int
    acknowledged: int


def folder(root: Path) -> Path:
    """Return where the agent of a carried site finds its overlay."""
    return root / DIRECTORY / "overlay"


def store(root: Path) -> Path:
    """Return where the agent of a carried site finds its artifacts."""
    return root / DIRECTORY


def take_in(root: Path, file: Path, progress: Callable[[int], None] = lambda _: None) -> Imported:
    """Verify a carried file and put it where the agent looks. Interrupted, it goes on where it was.

    Args:
        root: the state directory, of a site that joined with --carried.
        file: what `edgeferry export` wrote.
        progress: told how many more bytes of blobs are here.

    Raises:
        NotCarried, NotForThisSite, CarriedDamaged: see there.
        Stop: the release in it is refused; nothing changed.
        DiskFull: make room and import again.
    """
    config = load_config(root)
    if Path(config.folder) != folder(root):
        do = "nothing: the agent takes its overlays by itself; or join with --carried"
        raise NotCarried(f"overlays come from {config.hub or config.git or config.folder}", where=str(root), do=do)
    with closing(State.open(root)) as state, _opened(file) as archive:
        head, signature, overlay = _first(archive, file)
        if (head.cluster, head.fleet) != (config.cluster, config.fleet):
            said = f"for {head.cluster[:80]!r} of {head.fleet[:80]!r}, this is {config.cluster!r} of {config.fleet!r}"
            raise NotForThisSite(said, where=str(file), do=f"edgeferry export {config.cluster} --out FILE")
        files = unpack(overlay, _LIMITS, f"{file} {OVERLAY}")
        force = in_force(root, state)
        key = agent_key(root).fingerprint
        taken = check(Received(files, "", "folder"), force, config, key, root, least_sequence(state, config))
        trust = taken.trust if isinstance(taken, Accepted) else force.trust
        verify(encoded_head(archive), signature, CARRIED, trust.release_keys, f"{file} {HEAD}")
        brought = _bring(archive, head, Content(store(root)), progress, file)
        if isinstance(taken, Accepted):
            _exchange(folder(root), files)
            _drop_others(store(root), head)
        told = head.events if head.incarnation == state.incarnation else 0
        if told:
            outbox.acknowledged(state, told)
    return Imported(head.sequence, isinstance(taken, Accepted), brought, len(head.blobs) - brought, told)


def report_file(root: Path, now: datetime) -> bytes:
    """Return what is carried back: how the site stands, and every event that the hub has not acknowledged, signed.

    Args:
        root: the state directory.
        now: UTC.

    Raises:
        NothingToReport: see there.
    """
    load_config(root)
    with closing(State.open(root)) as state:
        standing = kept_report(state)
        if not standing:
            raise NothingToReport("no agent has run here yet", where=str(root), do="edgeferry-agent once")
        report = decode_report(standing, "standing")
        events = outbox.pending(state, most=outbox.MOST_BYTES)
        if events:
            outbox.offered(state, events[-1].number)
        at = now if _tended(root) else report.sent_at
        report = replace(report, number=next_number(state), sent_at=at, events=events)
    data = encode_report(report)
    return encode_carried_report(data, agent_key(root).sign(data, REPORT))


def _tended(root: Path) -> bool:
    """Tell whether an agent keeps the standing up to date now."""
    try:
        with locked(root):
            return False
    except StateInUse:
        return True


@contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(file, "r:") as archive:
            yield archive
    except (tarfile.TarError, EOFError) as error:
        raise _damaged(file, f"no carried file, or cut short: {error}") from None
    except OSError as error:
        if error.filename not in (None, str(file), file):
            raise StateNotWritten(error.strerror or str(error), where=str(error.filename)) from error
        raise _damaged(file, error.strerror or str(error)) from None


def _first(archive: tarfile.TarFile, file: Path) -> tuple[Head, bytes, bytes]:
    """Return head, its signature, and the overlay; the last is what the head says."""
    head = decode_head(encoded_head(archive), f"{file} {HEAD}")
    signature = _member(archive, SIGNATURE, MOST_HEAD_BYTES)
    overlay = _member(archive, OVERLAY, _LIMITS.total_bytes)
    if digest(overlay) != head.overlay:
        raise _damaged(file, "the overlay's bytes are not those of its head")
    return head, signature, overlay


def encoded_head(archive: tarfile.TarFile) -> bytes:
    """Return the bytes of the head, not verified."""
    return _member(archive, HEAD, MOST_HEAD_BYTES)


def _member(archive: tarfile.TarFile, name: str, most_bytes: int) -> bytes:
    try:
        member = archive.getmember(name)
        found = archive.extractfile(member)
    except KeyError:
        found, member = None, None
    if found is None or member is None or not member.isreg() or member.size > most_bytes:
        raise _damaged(Path(str(archive.name)), f"no {name} in it")
    data = found.read(most_bytes + 1)
    if len(data) != member.size:
        raise _damaged(Path(str(archive.name)), f"{name} is cut short")
    return data


def _bring(archive: tarfile.TarFile, head: Head, content: Content, progress: Callable[[int], None], file: Path) -> int:
    """Bring every blob to the disk, verified; return how many were not here yet."""
    brought = 0
    for blob in head.blobs:
        if content.blob(blob.digest) is not None:
            progress(blob.size_bytes)
            continue
        before = content.bytes_here(blob.digest)
        progress(before)
        last = before

        def told(here: int) -> None:
            nonlocal last
            progress(here - last)
            last = here

        try:
            content.bring(blob.digest, blob.size_bytes, partial(_stream, archive, blob), told)
        except (OtherBytes, Unreachable) as error:
            raise _damaged(file, f"{blob.digest} holds other bytes: {error.what}") from None
        brought += 1
    return brought


@contextmanager
def _stream(archive: tarfile.TarFile, blob: Blob, first: int) -> Iterator[_Stream]:
    try:
        found = archive.extractfile(BLOBS + blob.digest.removeprefix("sha256:"))
    except KeyError:
        found = None
    if found is None:
        raise _damaged(Path(str(archive.name)), f"no {blob.digest} in it")
    with found:
        found.seek(first)
        yield _Stream(first, found)


@dataclass(slots=True)
class _Stream:
    first: int
    file: IO[bytes]

    def read(self) -> bytes:
        return self.file.read(_READ_BYTES)


def _exchange(target: Path, files: dict[str, bytes]) -> None:
    """Put an overlay in the place of another; a power cut leaves the old one, the new one, or, briefly, none."""
    beside, away = target.with_name(".overlay.new"), target.with_name(".overlay.gone")
    for left in (beside, away):
        shutil.rmtree(left, ignore_errors=True)
    for path in sorted(files):
        (beside / path).parent.mkdir(parents=True, exist_ok=True)
        with (beside / path).open("wb") as out:
            out.write(files[path])
            out.flush()
            os.fsync(out.fileno())
    if target.exists():
        target.rename(away)
    beside.rename(target)
    durable.sync_directory(target.parent)
    shutil.rmtree(away, ignore_errors=True)


def _drop_others(directory: Path, head: Head) -> None:
    """Remove blobs of earlier files: what the site needs of them it has staged, or the hub sends it again."""
    wanted = {one.digest.removeprefix("sha256:") for one in head.blobs}
    for path in (directory / "blobs" / "sha256").iterdir():
        if path.name not in wanted:
            path.unlink()


def _damaged(file: Path, what: str) -> CarriedDamaged:
    return CarriedDamaged(what, where=str(file), do="copy the file again, and import it again")
