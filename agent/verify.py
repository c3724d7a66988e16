"""Received files → an accepted release, or why not. Pure: bytes in, a value out, nothing opened.

The signature is checked over the bytes as they came, before anything of the release is read. Which keys may sign
is decided by the trust chain, which proves itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.wire.canonical import digest, is_digest
from agent.wire.errors import BadSignature, DigestMismatch, Malformed, Stop
from agent.wire.overlay import Limits, OverlayRefused, check_path
from agent.wire.release import NAME, SIGNATURE_NAME, Entry, Release, decode_release
from agent.wire.signature import RELEASE, verify
from agent.wire.trust import Trust, decode_trust, is_trust_path, paths, walk

_ENTRY_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?\Z")
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?\Z")
_TOP_FILE: Final = "kustomization.yaml"
_MOST_TRUST_BYTES: Final = 64 << 10
_FETCH_AGAIN: Final = "fetch it again; if it stays so, publish again"


class NoRelease(Stop):
    """An overlay has no release, or no signature: it says nothing, and changes nothing."""

    code = "EF2006"


class NotForUs(Stop):
    """A release is of another fleet, for another cluster, or for another agent's key."""

    code = "EF2007"


class FileNotListed(Stop):
    """A file stands in the overlay that its release does not name."""

    code = "EF2008"


class FileMissing(Stop):
    """A file that the release names is not in the overlay."""

    code = "EF2009"


class SequenceConflict(Stop):
    """Two releases with one sequence and different contents: two hubs, or a hub that was set back."""

    code = "EF2010"


class DoubleEntry(Stop):
    """A release names one model or workload twice."""

    code = "EF2011"


class FileOutOfPlace(Stop):
    """A file of the overlay belongs to no entry, or an entry names a file outside its directory."""

    code = "EF2012"


class TrustWithdrawn(Stop):
    """A release goes by a trust document that a newer one has replaced at this site."""

    code = "EF2013"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A release that is to be in force.

    Attributes:
        release: read from verified bytes.
        files: path → verified bytes, release and signature included, trust documents left out.
        trust: in force from now on.
        trust_files: path → bytes of the documents that led from the known trust to it; empty where it is the known one.
    """

    release: Release
    files: Mapping[str, bytes]
    trust: Trust
    trust_files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Ignored:
    """A release that is authentic and changes nothing.

    Attributes:
        reason: ``same`` as the one in force, or ``older``: a stale mirror, to be counted.
        sequence: of it.
    """

    reason: str
    sequence: int


def accept(
    files: Mapping[str, bytes],
    *,
    cluster: str,
    fleet: str,
    key_fingerprint: str,
    trust: Trust,
    trust_documents: Mapping[str, bytes],
    current: tuple[int, str] | None,
    least_sequence: int = 0,
    limits: Limits | None = None,
) -> Accepted | Ignored:
    """Verify an overlay completely.

    Args:
        files: path → bytes as received, from any transport.
        cluster: name of this cluster.
        fleet: id of the fleet, pinned at join.
        key_fingerprint: of this agent's key.
        trust: what this site trusts now.
        trust_documents: path → bytes of the documents that this site kept; they tell an old mirror from an attack.
        current: sequence and content of the release in force; None for none.
        least_sequence: what the hub said at the join; lower ones are replays.
        limits: what an overlay may hold; None for the usual.

    Returns:
        ``Accepted``, or ``Ignored`` for a lower sequence, or for the release in force once more.

    Raises:
        NoRelease, BadSignature, TrustWithdrawn, NotForUs, SequenceConflict, FileNotListed, FileMissing,
        DigestMismatch, FileOutOfPlace, DoubleEntry, OverlayRefused, Malformed, UnsupportedFormat: nothing of
        ``files`` may be used then.
        ValueError: ``trust`` is not of ``fleet``: the caller's mistake, not the overlay's.

    Source: the order of checks after The Update Framework (roots first, then signature, then version, then targets).
    """
    if trust.fleet != fleet:
        raise ValueError(f"trust of fleet {trust.fleet!r} is not of {fleet!r}")
    limits = limits or Limits()
    _check_sizes(files, limits)
    release, reached = _authentic(files, trust, trust_documents)
    _check_addressee(release, cluster, fleet, key_fingerprint)
    ignored = _compare(release, current, least_sequence)
    if ignored is not None:
        return ignored
    if release.trust < trust.number:
        raise TrustWithdrawn(
            f"release {release.sequence} goes by trust {release.trust}, this site is at {trust.number}",
            where=NAME,
            do="publish again with the trust in force",
        )
    plain = {path: data for path, data in files.items() if not is_trust_path(path)}
    _check_files(release, plain)
    _check_entries(release)
    numbers = range(trust.number + 1, reached.number + 1)
    return Accepted(release, plain, reached, {path: files[path] for number in numbers for path in paths(number)})


def _check_sizes(files: Mapping[str, bytes], limits: Limits) -> None:
    total = sum(map(len, files.values()))
    if len(files) > limits.files or total > limits.total_bytes:
        raise OverlayRefused(
            f"{len(files)} files of {total} bytes, at most {limits.files} of {limits.total_bytes}", where="overlay"
        )
    for path, data in files.items():
        most = _MOST_TRUST_BYTES if is_trust_path(path) else limits.file_bytes
        if len(data) > most:
            raise OverlayRefused(f"{len(data)} bytes, at most {most}", where=path[:200])


def _authentic(files: Mapping[str, bytes], known: Trust, documents: Mapping[str, bytes]) -> tuple[Release, Trust]:
    """Return the release, signed by a key of the trust that it names, and that trust."""
    for name in (NAME, SIGNATURE_NAME):
        if not files.get(name):
            raise NoRelease(f"no {name}", where="overlay", do="nothing changes until an overlay with one arrives")
    past, (chain, broken) = _past(known, documents), _chain(known, files)
    trusts = {one.number: one for one in (*past, *chain)}
    keys = {key for one in trusts.values() for key in one.release_keys}
    try:
        signer = verify(files[NAME], files[SIGNATURE_NAME], RELEASE, keys, SIGNATURE_NAME)
    except BadSignature:
        if broken is not None:
            raise broken from None
        raise
    release = decode_release(files[NAME])
    reached = trusts.get(release.trust)
    if reached is None:
        if broken is not None:
            raise broken
        raise BadSignature(f"goes by trust {release.trust}, which is not known here", where=NAME, do=_FETCH_AGAIN)
    if signer not in reached.release_keys:
        raise BadSignature(f"signed by a key that trust {release.trust} does not name", where=SIGNATURE_NAME)
    return release, reached


def _chain(known: Trust, files: Mapping[str, bytes]) -> tuple[list[Trust], Stop | None]:
    """Return every trust from the known one up that proves itself, and the fault that ended the walk, if one did."""
    chain = [known]
    while paths(chain[-1].number + 1)[0] in files:
        try:
            chain.append(walk(chain[-1], chain[-1].number + 1, files))
        except Stop as fault:
            return chain, fault
    return chain, None


def _past(known: Trust, documents: Mapping[str, bytes]) -> list[Trust]:
    """Return the trusts before the known one, as far back as this site kept them without a gap."""
    past: list[Trust] = []
    number = known.number - 1
    while (path := paths(number)[0]) in documents:
        past.append(decode_trust(documents[path], path))
        number -= 1
    return past


def _check_addressee(release: Release, cluster: str, fleet: str, key_fingerprint: str) -> None:
    if release.fleet != fleet:
        raise NotForUs(f"of fleet {release.fleet[:64]!r}, this site is of {fleet!r}", where=NAME)
    if release.cluster != cluster:
        raise NotForUs(
            f"for cluster {release.cluster[:64]!r}, this is {cluster!r}", where=NAME, do="compare the agent's settings"
        )
    if release.cluster_key not in ("", key_fingerprint):
        raise NotForUs(
            f"for the key {release.cluster_key[:64]!r}, this agent's is {key_fingerprint}",
            where=NAME,
            do="another agent joined under this name: let this one join again, or remove it",
        )


def _compare(release: Release, current: tuple[int, str] | None, least_sequence: int) -> Ignored | None:
    sequence, content = current or (0, "")
    if release.sequence < max(sequence, least_sequence):
        return Ignored("older", release.sequence)
    if current is None or release.sequence > sequence:
        return None
    if release.content == content:
        return Ignored("same", release.sequence)
    raise SequenceConflict(
        f"release {sequence} is {release.content}, and {content} is in force under that number",
        where=NAME,
        do="see whether two hubs publish to this fleet; then `edgeferry publish --advance-sequence`",
    )


def _check_files(release: Release, plain: Mapping[str, bytes]) -> None:
    present = plain.keys() - {NAME, SIGNATURE_NAME}
    for path in sorted(present | release.files.keys()):
        check_path(path, NAME)
        if path not in release.files:
            raise FileNotListed("the release does not name this file", where=path, do=_FETCH_AGAIN)
        if path not in present:
            raise FileMissing("the release names this file, and it is not there", where=path, do=_FETCH_AGAIN)
        wanted = release.files[path]
        if not is_digest(wanted):
            raise Malformed(f"files: not a sha256 digest: {wanted[:80]!r}", where=NAME)
        if digest(plain[path]) != wanted:
            raise DigestMismatch(f"not the bytes of {wanted}", where=path, do=_FETCH_AGAIN)
    above = {path[:at] for path in present for at, letter in enumerate(path) if letter == "/"}
    if clash := sorted(present & above):
        raise OverlayRefused(f"{clash[0]!r} is a file and a directory", where=NAME)


def _check_entries(release: Release) -> None:
    directories: set[str] = set()
    for entry in release.entries:
        _check_entry(entry, release.files)
        if entry.directory in directories:
            raise DoubleEntry(f"{entry.kind} {entry.name} stands there twice", where=NAME, do="publish again")
        directories.add(entry.directory)
    for path in release.files:
        kind, name, below = (*path.split("/", 2), "", "")[:3]
        if path != _TOP_FILE and not (below and f"{kind}/{name}" in directories):
            raise FileOutOfPlace("this file belongs to no entry", where=path, do="publish again")


def _check_entry(entry: Entry, files: Mapping[str, str]) -> None:
    if not _ENTRY_NAME.match(entry.name) or not _NAMESPACE.match(entry.namespace):
        raise Malformed(f"name {entry.name[:80]!r} or namespace {entry.namespace[:80]!r} is none", where=NAME)
    for artifact in entry.artifacts:
        if artifact.path:
            check_path(artifact.path, f"{NAME} {entry.directory}")
    if entry.self_test is not None:
        for path in (entry.self_test.input, entry.self_test.output):
            if path not in files or not path.startswith(f"{entry.directory}/"):
                raise FileOutOfPlace(f"the self-test of {entry.directory} names it", where=path[:200])
