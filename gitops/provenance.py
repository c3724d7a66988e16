"""Is this head ours? Who may have written the fleet repository, by the trust chain in it and the trust pinned here."""

from __future__ import annotations

from collections.abc import Collection

from agent.wire.errors import BadSignature, Malformed, Stop
from agent.wire.signature import GIT, verify
from agent.wire.trust import Trust, is_trust_path, paths, pin, walk
from gitops.fleet import FleetRepository
from gitops.keys import Keyring


class ForeignHead(Stop):
    """The fleet repository's newest commit is not by a publisher that the fleet's trust names."""

    code = "EF3002"


def current_trust(fleet: FleetRepository, known: Trust | None, at: str | None = None) -> tuple[Trust, dict[str, bytes]]:
    """Return the newest trust in the fleet repository, reached link by link, and path → bytes of the whole chain.

    Args:
        fleet: that is read.
        known: trust to begin with; None takes trust 1 on the repository's word.
        at: commit; None for the head.

    Raises:
        ForeignHead: no chain leads from ``known`` to the newest.
    """
    files = {path: data for path, data in fleet.walk("trust", at).items() if is_trust_path(path)}
    newest = max((int(path.split("/")[1].split(".")[0]) for path in files), default=0)
    where = str(fleet.path)
    try:
        if known is None:
            document, marks = paths(1)
            if document not in files or marks not in files:
                raise ForeignHead("no trust/1.json", where=where, do=_RESTORE)
            known = pin(files[document], files[marks], document)
        if newest < known.number:
            raise ForeignHead(f"trust {newest} there is older than {known.number} known here", where=where, do=_RESTORE)
        document, _ = paths(known.number)
        found = walk(known, newest, files)
        if document not in files or pin(files[document], files[document + ".sig"], document) != known:
            raise ForeignHead(f"{document} is another than the one known here", where=where, do=_RESTORE)
    except (BadSignature, Malformed, KeyError) as error:
        raise ForeignHead(f"the trust chain is broken: {error}", where=where, do=_RESTORE) from None
    return found, files


def verify_head(fleet: FleetRepository, keyring: Keyring, at: str | None = None) -> Trust:
    """Return the trust in force, after the head was found to be signed by one of its release keys.

    The newest trust is pinned in the keyring then, so that an older one is not accepted again.

    Args:
        fleet: with a head.
        keyring: of this publisher.
        at: a commit that may become the head; None for the head.

    Raises:
        ForeignHead: the head is unsigned, signed by another, of another fleet, or older than what was seen before;
            or this publisher's own key is not a release key of the trust in force.
    """
    head = at or fleet.head
    where = f"{fleet.path} {(head or 'empty')[:12]}"
    if head is None:
        raise ForeignHead("the repository is empty, and this publisher has published to it before", where=where)
    trust, files = current_trust(fleet, keyring.pinned(), head)
    if trust.fleet != keyring.fleet_id:
        raise ForeignHead(
            f"it is fleet {trust.fleet[:64]!r}, not {keyring.fleet_id!r}", where=where, do="correct the URL"
        )
    check_signed(fleet.commit(head), trust.release_keys, where)
    if keyring.release_key(trust) is None:
        raise ForeignHead(
            f"this publisher's key {keyring.release.fingerprint} is not a release key of trust {trust.number}",
            where=where,
            do="use the keys directory of this fleet's publisher",
        )
    document, marks = paths(trust.number)
    keyring.pin(files[document], files[marks])
    return trust


def check_signed(commit: bytes, keys: Collection[str], where: str) -> None:
    """Refuse a commit that none of ``keys`` signed.

    Raises:
        ForeignHead: with the reason.
    """
    head, blank, message = commit.partition(b"\n\n")
    before, marker, rest = head.partition(b"\ngpgsig ")
    if not marker:
        raise ForeignHead("the newest commit is not signed", where=where, do=_REMOVE)
    lines = rest.split(b"\n")
    count = next((n for n, line in enumerate(lines) if n and not line.startswith(b" ")), len(lines))
    armored = b"\n".join([lines[0], *(line[1:] for line in lines[1:count])]) + b"\n"
    payload = b"\n".join([before, *lines[count:]]) + blank + message
    try:
        verify(payload, armored, GIT, keys, where)
    except BadSignature as error:
        raise ForeignHead(f"the newest commit is not ours: {error.what}", where=where, do=_REMOVE) from None


_REMOVE = "find out who pushed to it; then put main back to the last commit of the hub: git push --force"
_RESTORE = "restore the fleet repository, or the keys directory that belongs to it"
