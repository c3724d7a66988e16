"""Who asks: a cluster by its certificate or an access token, and how people show their tokens."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final, NamedTuple

from starlette.requests import Request

from agent.wire.errors import BadSignature
from gitops.serve.faults import Unauthenticated
from gitops.serve.registered import Registered

CERTIFICATE: Final = "edgeferry.certificate"
"""Key of the ASGI scope's state: the ``Certificate`` that the client proved in the TLS handshake, or None."""


class Certificate(NamedTuple):
    """A client certificate whose chain and key the handshake proved.

    Attributes:
        name: common name.
        key: ``ssh-ed25519 AAAA…``; empty for a key of another kind.
        until: its last second, since 1970: connections live longer than certificates.
    """

    name: str
    key: str
    until: float


SIGNATURE_HEADER: Final = "Edgeferry-Signature"
"""Base64 of the armored signature of the body."""


def read_signature(header: str, where: str) -> bytes:
    """Return the armored signature that a request came with.

    Args:
        header: the value of ``SIGNATURE_HEADER``.
        where: for messages.

    Raises:
        BadSignature: it is not base64.
    """
    try:
        return base64.b64decode(header, validate=True)
    except (binascii.Error, ValueError):
        raise BadSignature(f"{SIGNATURE_HEADER} is not base64", where=where) from None


def hash_secret(secret: str) -> bytes:
    """Return what the store keeps of a token; it is random, so a plain hash does."""
    return hashlib.sha256(secret.encode()).digest()


def identify(certificate: Certificate | None, authorization: str, registered: Registered) -> str:
    """Return the registered cluster that asks.

    A client certificate counts before an access token: its name must be registered, with the key of the
    certificate. A token comes as ``Bearer TOKEN``, or as ``Basic CLUSTER:TOKEN`` for stock Git.

    Args:
        certificate: that the TLS handshake proved; None without one.
        authorization: the header; empty for none.
        registered: who may ask.

    Raises:
        Unauthenticated: none of these, or none that is registered.
    """
    if certificate is not None:
        found = registered.with_certificate(*certificate)
    else:
        scheme, _, value = authorization.partition(" ")
        claimed, secret = _basic(value) if scheme.lower() == "basic" else (None, value.strip())
        known = scheme.lower() in ("basic", "bearer")
        found = registered.with_token(secret, claimed) if known else None
    if found is None:
        raise Unauthenticated(
            "no certificate or access token of a registered cluster", do="join again, or ask who runs the hub"
        )
    return found


def cluster_of(request: Request, registered: Registered) -> str:
    """Return the registered cluster that sent a request; see ``identify``.

    Raises:
        Unauthenticated: nobody known.
    """
    certificate = request.scope.get("state", {}).get(CERTIFICATE)
    return identify(certificate, request.headers.get("authorization", ""), registered)


def bearer(request: Request) -> str:
    """Return the token of ``Authorization: Bearer``; empty for none."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def secret_of(request: Request) -> str:
    """Return the token of ``Bearer``, or the password of ``Basic``; empty for none."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return _basic(value)[1] if scheme.lower() == "basic" else bearer(request)


def _basic(value: str) -> tuple[str, str]:
    try:
        user, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeError):
        return "", ""
    return user, secret
