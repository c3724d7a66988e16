"""Access tokens: a cluster's signed word for who it is, good for minutes.

They serve where no client certificate reaches the hub: behind a proxy that ends TLS, on the loopback, and as the
password of stock Git. A token is ``BODY.SIGNATURE``: the base64url of a canonical document, and the base64 of a
binary SSHSIG over it by the key that the cluster registered.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.wire.canonical import canonical
from agent.wire.errors import BadSignature, Malformed
from agent.wire.fields import Fields
from agent.wire.signature import ACCESS, SigningKey, armor, dearmor, verify

LIFE_S: Final = 600
"""A token is made for so long."""

SKEW_S: Final = 300
"""Clocks may differ by so much."""

MOST_CHARACTERS: Final = 2048
_WHERE: Final = "access token"


@dataclass(frozen=True, slots=True)
class Access:
    """What a token says.

    Attributes:
        fleet: id of the fleet.
        cluster: that shows it.
        at: when it was made, seconds since 1970.
        until: when it ends.
    """

    fleet: str
    cluster: str
    at: int
    until: int


def sign_access(key: SigningKey, fleet: str, cluster: str, now: int) -> str:
    """Return a token that is good for ``LIFE_S`` from ``now``, seconds since 1970."""
    body = canonical({"fleet": fleet, "cluster": cluster, "at": now, "until": now + LIFE_S})
    mark = base64.b64encode(dearmor(key.sign(body, ACCESS)))
    return f"{base64.urlsafe_b64encode(body).decode()}.{mark.decode()}"


def read_access(token: str, key_of: Callable[[str], str | None], fleet: str, now: float) -> Access:
    """Return what a token says, once it is proven.

    Args:
        token: as it was shown.
        key_of: gives the registered key of a cluster; None for one that is not registered.
        fleet: the tokens of other fleets are refused.
        now: seconds since 1970.

    Raises:
        Malformed: no token.
        BadSignature: not by the cluster's key, of another fleet, or not of this time.
    """
    body, dot, mark = token.partition(".")
    if not dot or len(token) > MOST_CHARACTERS:
        raise Malformed("not an access token", where=_WHERE)
    try:
        data, blob = base64.urlsafe_b64decode(body), base64.b64decode(mark, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("not an access token", where=_WHERE) from None
    said = Fields.parse(data, _WHERE)
    access = Access(said.text("fleet"), said.text("cluster"), said.integer("at"), said.integer("until"))
    key = key_of(access.cluster)
    if key is None or access.fleet != fleet:
        raise BadSignature("of a cluster that is not registered here", where=_WHERE)
    verify(data, armor(blob), ACCESS, (key,), _WHERE)
    if not access.at - SKEW_S <= now < access.until <= access.at + LIFE_S:
        raise BadSignature("not of this time", where=_WHERE, do="set this machine's clock")
    return access
