"""Who asks: a cluster by its certificate or its credential, or a person by the operator token."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable

from starlette.types import Scope

from gitops.serve.faults import Unauthenticated
from gitops.serve.notifier import Connection
from gitops.store import Store

_ADVICE = "join again, or ask who runs the hub"


def hash_secret(secret: str) -> bytes:
    """Return what the store keeps of a token or credential; both are random, so a plain hash does."""
    return hashlib.sha256(secret.encode()).digest()


def cluster_of(scope: Scope, store: Store) -> str:
    """Return the registered cluster that sent a request.

    A client certificate counts before a credential: its name must be registered, with the key of the
    certificate. A credential comes as ``Bearer CREDENTIAL``, or as ``Basic CLUSTER:CREDENTIAL`` for stock Git.

    Raises:
        Unauthenticated: none of these, or none that is registered.
    """
    connection = connection_of(scope)
    if connection is not None and connection.certificate is not None:
        name, key = connection.certificate
        registration = store.registration(name)
        if registration is not None and hmac.compare_digest(registration.key, key):
            return name
        raise Unauthenticated("this certificate is of no registered cluster", do=_ADVICE)
    scheme, value = _authorization(scope["headers"])
    found: str | None = None
    if scheme == "bearer":
        found = store.cluster_of(hash_secret(value))
    elif scheme == "basic":
        claimed, secret = _basic(value)
        found = store.cluster_of(hash_secret(secret))
        if found != claimed:
            found = None
    if found is None:
        raise Unauthenticated("no credential of a registered cluster", do=_ADVICE)
    return found


def join_token(scope: Scope) -> str:
    """Return the token of ``Authorization: Bearer``; empty for none."""
    scheme, value = _authorization(scope["headers"])
    return value if scheme == "bearer" else ""


def check_operator(scope: Scope, operator_token: str) -> None:
    """Let only a person with the operator token on.

    Raises:
        Unauthenticated: another token, or none.
    """
    shown = join_token(scope)
    if not operator_token or not hmac.compare_digest(hash_secret(shown), hash_secret(operator_token)):
        raise Unauthenticated("no operator token", do="send the token from operator.token as `Authorization: Bearer`")


def connection_of(scope: Scope) -> Connection | None:
    """Return what the server knows of the connection; None under another server than ours."""
    found = scope.get("extensions", {}).get("edgeferry")
    return found if isinstance(found, Connection) else None


def _authorization(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, str]:
    for name, value in headers:
        if name == b"authorization":
            scheme, _, rest = value.decode("latin-1").partition(" ")
            return scheme.lower(), rest.strip()
    return "", ""


def _basic(value: str) -> tuple[str, str]:
    try:
        user, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, secret
