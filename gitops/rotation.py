"""Exchanging keys: one commit with the next trust document, signed by the old roots and by the new ones.

Releases are signed anew under it by the publisher's next step. A run that was interrupted is simply repeated: a key
that is made already, and not in force yet, is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from agent.wire.errors import Stop
from agent.wire.signature import SigningKey, fingerprint, is_public_key
from agent.wire.trust import Trust, paths, sign_trust
from gitops.fleet import FleetRepository
from gitops.keys import NEXT_RELEASE, RELEASE, KeyMissing, Keyring, read_key, take_place, write_new
from gitops.provenance import verify_head
from gitops.publish import Change, publish


class NothingToRotate(Stop):
    """A rotation that changes no key, or names a model key that is none or is not there."""

    code = "EF3154"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to change.

    Attributes:
        release: a new release key; the old one signs nothing any more.
        root: a new root key beside the root key file.
        model_keys: public keys of people who sign models, to add.
        dropped: fingerprints of model keys to take away.
    """

    release: bool = False
    root: bool = False
    model_keys: Sequence[str] = ()
    dropped: Sequence[str] = ()


def rotate(fleet: FleetRepository, keyring: Keyring, root_file: Path, wish: Wish, now: datetime) -> Trust:
    """Publish the next trust and return it.

    Args:
        fleet: with a head; where it lies on a Git host, the host's accepts first.
        keyring: of the publisher.
        root_file: the root key, ``root.key`` of the keyring or a copy from where it is kept.
        wish: what changes.
        now: time of the commit, UTC, to the second.

    Raises:
        KeyMissing: the root key is not there, or is not a root key of the trust in force.
        NothingToRotate: see there.
        ForeignHead, FleetMoved: the fleet repository is not as it should be; nothing has changed.
    """
    trust = verify_head(fleet, keyring)
    upcoming_root = root_file.with_name(f"{root_file.name}.next")
    root, following_root = read_key(root_file), read_key(upcoming_root)
    if following_root is not None and following_root.public in trust.root_keys:
        take_place(upcoming_root, root_file)  # the run before was interrupted after it had published
        root, following_root = following_root, None
    if root is None or root.public not in trust.root_keys:
        raise KeyMissing(
            "no root key of the trust in force", where=str(root_file), do="bring it from where it is kept: --root-key"
        )
    models = [key for key in trust.model_keys if fingerprint(key) not in wish.dropped]
    added = [key for key in _public(wish.model_keys) if key not in models]
    if len(models) + len(set(wish.dropped)) != len(trust.model_keys):
        raise NothingToRotate("a model key to drop is not there", do="see `edgeferry trust show`")
    if not (wish.release or wish.root or added or wish.dropped):
        raise NothingToRotate("no key would change", do="name one: --release, --root, --model-key or --drop-model-key")
    signer = keyring.release_key(trust)
    assert signer is not None  # the head was verified
    following = replace(trust, number=trust.number + 1, model_keys=(*models, *added))
    roots: tuple[SigningKey, ...] = (root,)
    if wish.release:
        signer = _made(keyring.directory / NEXT_RELEASE)
        following = replace(following, release_keys=(signer.public,))
    if wish.root:
        new = following_root or _made(upcoming_root)
        following, roots = replace(following, root_keys=(new.public,)), (root, new)
    files = dict(zip(paths(following.number), sign_trust(following, roots), strict=True))
    text = f"Trust {following.number}: {_what(wish, added)}\n"
    publish(fleet, Change({}, files, text, now), signer, fleet.head)
    if wish.release:
        take_place(keyring.directory / NEXT_RELEASE, keyring.directory / RELEASE)
    if wish.root:
        take_place(upcoming_root, root_file)
    keyring.pin(*files.values())
    return following


def _public(keys: Sequence[str]) -> list[str]:
    plain = [" ".join(key.split()[:2]) for key in keys]
    for key in plain:
        if not is_public_key(key):
            raise NothingToRotate(f"{key[:60]!r} is no public key", do="give a .pub file of ssh-keygen -t ed25519")
    return plain


def _made(path: Path) -> SigningKey:
    write_new(path, SigningKey.generate().dump())
    key = read_key(path)
    assert key is not None
    return key


def _what(wish: Wish, added: Sequence[str]) -> str:
    parts: Final = (
        "a new release key" if wish.release else "",
        "a new root key" if wish.root else "",
        f"{len(added)} model keys more" if added else "",
        f"{len(wish.dropped)} model keys less" if wish.dropped else "",
    )
    return ", ".join(part for part in parts if part)
