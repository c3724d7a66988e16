"""Trust: who may sign what (``trust/<n>.json`` and ``trust/<n>.json.sig``).

Document n is signed by a root key of n-1 and by a root key of n; document 1 by its own root key, and pinned at
join. The signature file holds one or more armored signatures, one after the other. Documents are kept for ever
and travel inside every overlay, so that a site can walk the chain on any transport.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.wire.canonical import canonical
from agent.wire.errors import BadSignature, Malformed
from agent.wire.fields import Fields
from agent.wire.model_signature import is_model_key
from agent.wire.signature import TRUST, SigningKey, is_public_key, verify

FORMATS: Final = (1,)
_END: Final = b"-----END SSH SIGNATURE-----\n"
_PATH: Final = re.compile(r"trust/[1-9][0-9]{0,8}\.json(\.sig)?\Z")


@dataclass(frozen=True, slots=True)
class Trust:
    """Keys of one fleet, as OpenSSH public keys without comments.

    Attributes:
        fleet: id of the fleet, made once, at its first publication.
        number: 1 and up.
        root_keys: sign the next trust; the administrator's, kept offline.
        release_keys: sign releases and fleet commits; the hub's.
        model_keys: sign models: ed25519, or ``ecdsa-sha2-nistp256``.
    """

    fleet: str
    number: int
    root_keys: tuple[str, ...]
    release_keys: tuple[str, ...]
    model_keys: tuple[str, ...] = ()


def paths(number: int) -> tuple[str, str]:
    """Return the paths of a trust document and of its signatures."""
    return f"trust/{number}.json", f"trust/{number}.json.sig"


def is_trust_path(path: str) -> bool:
    """Tell whether ``path`` is that of a trust document or its signatures."""
    return _PATH.match(path) is not None


def encode_trust(trust: Trust) -> bytes:
    """Return the canonical bytes: what is signed."""
    return canonical(
        {
            "format": 1,
            "fleet": trust.fleet,
            "number": trust.number,
            "rootKeys": list(trust.root_keys),
            "releaseKeys": list(trust.release_keys),
            "modelKeys": list(trust.model_keys),
        }
    )


def sign_trust(trust: Trust, roots: tuple[SigningKey, ...]) -> tuple[bytes, bytes]:
    """Return the document's bytes and its signatures, one by each of ``roots``."""
    data = encode_trust(trust)
    return data, b"".join(root.sign(data, TRUST) for root in roots)


def decode_trust(data: bytes, where: str) -> Trust:
    """Read a trust document. It proves nothing about who wrote it: see ``walk``.

    Raises:
        Malformed: a field is missing, or a key is not an ed25519 public key.
    """
    top = Fields.parse(data, where)
    top.format(FORMATS)
    trust = Trust(
        fleet=top.text("fleet"),
        number=top.integer("number"),
        root_keys=top.texts("rootKeys"),
        release_keys=top.texts("releaseKeys"),
        model_keys=top.texts("modelKeys"),
    )
    ours = all(map(is_public_key, (*trust.root_keys, *trust.release_keys)))
    if not trust.root_keys or not ours or not all(map(is_model_key, trust.model_keys)):
        raise Malformed("no root key, or a key that is not ssh-ed25519 without a comment", where=where)
    return trust


def pin(data: bytes, signatures: bytes, where: str = "trust") -> Trust:
    """Return a trust document that is taken on the word of who hands it over, checked only against itself.

    Raises:
        Malformed: unreadable.
        BadSignature: not signed by one of its own root keys.
    """
    trust = decode_trust(data, where)
    _signed_by(data, signatures, trust.root_keys, where)
    return trust


def walk(known: Trust, wanted: int, files: Mapping[str, bytes]) -> Trust:
    """Return trust ``wanted``, reached from ``known`` link by link.

    Args:
        known: what this site trusts now.
        wanted: the number a release asks for; at most ``known.number`` returns ``known``.
        files: path → bytes; holds the documents between.

    Raises:
        BadSignature: a link is missing, of another fleet, or not signed by both sides.
        Malformed: a document is unreadable.
    """
    while known.number < wanted:
        path, signature_path = paths(known.number + 1)
        if path not in files or signature_path not in files:
            raise BadSignature(f"no {path}: the chain from trust {known.number} to {wanted} is broken", where=path)
        data, signatures = files[path], files[signature_path]
        following = decode_trust(data, path)
        if following.number != known.number + 1 or following.fleet != known.fleet:
            raise BadSignature(f"trust {following.number} of fleet {following.fleet[:64]!r} stands there", where=path)
        _signed_by(data, signatures, known.root_keys, path)
        _signed_by(data, signatures, following.root_keys, path)
        known = following
    return known


def _signed_by(data: bytes, signatures: bytes, keys: tuple[str, ...], where: str) -> None:
    blocks = [block + _END for block in signatures.split(_END)[:-1]]
    if not blocks or len(blocks) > 16:
        raise BadSignature("no signature", where=where)
    fault: BadSignature | None = None
    for block in blocks:
        try:
            verify(data, block, TRUST, keys, where)
        except BadSignature as error:
            fault = error
        else:
            return
    assert fault is not None
    raise fault
