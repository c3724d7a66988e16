"""The release in force: taken from verified bytes, kept durably, read again after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agent import durable
from agent.clock import Clock, Instant
from agent.config import Config
from agent.entries import drop_releases, keep_entry, keep_release, read_entry, read_release
from agent.fetch import Received
from agent.layout import TRUST
from agent.outbox import record
from agent.state import State, StateNotWritten
from agent.steps import Desired, Happening
from agent.verify import Accepted, Ignored, accept
from agent.wire.errors import EdgeferryError, Stop
from agent.wire.release import Entry, Release
from agent.wire.trust import Trust, decode_trust, paths

_DO: Final = "join this cluster again"


class NoTrust(Stop):
    """The trust that was pinned when the agent joined is missing or damaged."""

    code = "EF4055"


@dataclass(frozen=True, slots=True)
class Force:
    """What is in force at this site.

    Attributes:
        trust: that releases are verified by.
        release: None while none was ever accepted, or when the kept one is damaged.
        revision: of the overlay that was accepted, for ``transport``.
        ignored: how many older releases were ignored.
        fault: why the newest overlay is not in force; None for none.
    """

    trust: Trust
    release: Release | None = None
    transport: str = ""
    revision: str = ""
    ignored: int = 0
    fault: EdgeferryError | None = None

    @property
    def desired(self) -> Desired | None:
        """What the release asks for; None where there is none: then nothing changes."""
        if self.release is None:
            return None
        one = self.release
        return Desired(one.entries, one.retire, one.windows, one.keep, frozenset(one.returns))


def in_force(root: Path, state: State) -> Force:
    """Return what was in force when the agent was stopped.

    Raises:
        NoTrust: see there.
    """
    trust = _newest_trust(root)
    name = state.setting("release")
    ignored = int(state.setting("ignored") or 0)
    if not name:
        return Force(trust, ignored=ignored)
    try:
        release = read_release(root, name)
    except EdgeferryError as error:
        return Force(trust, ignored=ignored, fault=error)
    return Force(trust, release, state.setting("transport"), state.setting("revision"), ignored)


def check(
    received: Received, before: Force, config: Config, key: str, root: Path, least_sequence: int
) -> Accepted | Ignored:
    """Verify an overlay against what is in force; nothing is written.

    Args:
        received: not yet trusted.
        before: in force until now.
        config: settings of this agent.
        key: fingerprint of this agent's key.
        root: the state directory.
        least_sequence: lower ones are replays.

    Raises:
        Stop: the overlay is refused.
    """
    release = before.release
    # Where something of it was lost on the disk, the same release is taken once more.
    whole = release is not None and all(read_entry(root, one.digest) for one in release.entries)
    return accept(
        received.files,
        cluster=config.cluster,
        fleet=config.fleet,
        key_fingerprint=key,
        trust=before.trust,
        trust_documents=_documents(root),
        current=(release.sequence, release.content) if release is not None and whole else None,
        least_sequence=least_sequence,
    )


def least_sequence(state: State, config: Config) -> int:
    """Return the sequence below which a release is a replay."""
    return max(int(state.setting("sequence") or 0), config.least_sequence)


def own_files(accepted: Accepted, entry: Entry) -> dict[str, bytes]:
    """Return the files of one entry: path within the overlay → bytes."""
    return {path: data for path, data in accepted.files.items() if path.startswith(f"{entry.directory}/")}


def take(
    received: Received,
    before: Force,
    config: Config,
    key: str,
    root: Path,
    state: State,
    clock: Clock,
    instant: Instant,
) -> Force:
    """Return what is in force now that this overlay came; all of it is durable.

    Args:
        received: not yet trusted.
        before: in force until now.
        config: settings of this agent.
        key: fingerprint of this agent's key.
        root: the state directory.
        state: the database in it.
        clock: whose floor a verified release raises.
        instant: now.

    Raises:
        Stop: the overlay is refused; what was in force is.
        StateNotWritten: it could not be kept; take it again later.
    """
    taken = check(received, before, config, key, root, least_sequence(state, config))
    if not isinstance(taken, Accepted):
        ignored = before.ignored + (taken.reason == "older")
        state.set(ignored=str(ignored))
        if taken.reason == "older":
            return replace(before, ignored=ignored, fault=None)
        state.set(transport=received.transport, revision=received.revision)
        return replace(before, transport=received.transport, revision=received.revision, fault=None)
    _keep_trust(root, taken.trust_files)
    for entry in taken.release.entries:
        keep_entry(root, entry, own_files(taken, entry))
    name = keep_release(root, taken.files)
    clock.published(taken.release.published_at)
    with state.transaction() as db:
        state.set(
            release=name,
            transport=received.transport,
            revision=received.revision,
            sequence=str(taken.release.sequence),
        )
        happening = Happening("accepted", message=f"release {taken.release.sequence}")
        record(db, None, (happening,), instant.now)
    drop_releases(root, name)
    return Force(taken.trust, taken.release, received.transport, received.revision, before.ignored)


def _newest_trust(root: Path) -> Trust:
    numbers = sorted(
        (int(path.stem) for path in (root / TRUST).glob("*.json") if path.stem.isdecimal() and path.stem.isascii()),
        reverse=True,
    )
    if not numbers:
        raise NoTrust("no trust document", where=str(root / TRUST), do=_DO)
    path = root / paths(numbers[0])[0]
    try:
        return decode_trust(path.read_bytes(), str(path))
    except (OSError, EdgeferryError) as error:
        raise NoTrust(str(error), where=str(path), do=_DO) from None


def _documents(root: Path) -> dict[str, bytes]:
    return {f"{TRUST}/{path.name}": path.read_bytes() for path in sorted((root / TRUST).glob("*.json"))}


def _keep_trust(root: Path, files: Mapping[str, bytes]) -> None:
    """Keep new trust documents, each after its signatures: a document that is there is complete."""
    try:
        for path in sorted(files, key=lambda path: (not path.endswith(".sig"), len(path), path)):
            durable.write(root / path, files[path])
    except OSError as error:
        raise StateNotWritten(error.strerror or str(error), where=str(root / TRUST)) from error
