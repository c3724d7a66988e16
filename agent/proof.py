"""What proves this cluster to its hub: the client certificate, else access tokens signed with the same key.

The certificate is renewed at two thirds of its life. One that expired while the site was away is renewed all the same:
the request proves the key, and the hub answers it for as long as the cluster is registered.
"""

from __future__ import annotations

import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from agent import durable
from agent.address import Origin
from agent.config import Config
from agent.http import Answer, Connection, UnexpectedAnswer, tls_context
from agent.keys import read_credential
from agent.layout import CLIENT_CERTIFICATE, CLIENT_KEY, HUB_AUTHORITY
from agent.wire.access import LIFE_S, sign_access
from agent.wire.canonical import canonical
from agent.wire.errors import EdgeferryError, Malformed, UnsupportedFormat
from agent.wire.fields import Fields, parse_time
from agent.wire.signature import SigningKey

TIME_HEADER: Final = "edgeferry-time"
"""The hub's clock in a refusal, seconds since 1970: a site whose clock is wrong can still sign for the hub's time."""

RENEW_AT: Final = 2 / 3
JITTER: Final = 0.05
"""Of the certificate's life, around ``RENEW_AT``: sites that joined together do not renew together."""

RETRY_S: Final = 300.0
_CLOSE_S: Final = 30.0
_MOST_ANSWER_BYTES: Final = 256 << 10
_DATES: Final = re.compile(rb"# valid (\S+) (\S+)\n")


class Proof(Protocol):
    """Who we are to a hub. Used by several threads."""

    def tls(self) -> ssl.SSLContext:
        """Return what a new connection to the hub is made with."""

    def headers(self) -> dict[str, str]:
        """Return the header that proves who asks; none where the certificate does."""

    def token(self) -> str:
        """Return what stands as the password of a Git client; empty for nothing."""

    def refused(self, answer: Answer | None) -> bool:
        """Learn from an answer that refuses us; None where the handshake did.

        Returns:
            Whether there is something else to show now, on a new connection.
        """

    def tend(self) -> bool:
        """Renew what is due; return whether connections should be opened anew. Never raises."""


class Fixed:
    """A credential that a person brought; empty for none.

    Args:
        credential: sent as it is.
        ca: file with certificates to trust besides the system's; empty for none.
    """

    def __init__(self, credential: str, ca: str = "") -> None:
        self._credential = credential
        self._ca = ca

    def tls(self) -> ssl.SSLContext:
        """See ``Proof``."""
        return tls_context(self._ca)

    def headers(self) -> dict[str, str]:
        """See ``Proof``."""
        return {"Authorization": f"Bearer {self._credential}"} if self._credential else {}

    def token(self) -> str:
        """See ``Proof``."""
        return self._credential

    def refused(self, answer: Answer | None) -> bool:
        """See ``Proof``."""
        return False

    def tend(self) -> bool:
        """See ``Proof``."""
        return False


class HubProof:
    """The agent's key, and the certificate that its hub gave for it.

    Args:
        root: the state directory.
        config: ``hub``, ``ca``, ``cluster`` and ``fleet`` of it.
        key: the agent's.
        now: clock, seconds since 1970.
        jitter: random numbers from 0 to 1.
    """

    def __init__(
        self,
        root: Path,
        config: Config,
        key: SigningKey,
        now: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._root, self._config, self._key, self._now = root, config, key, now
        self._jitter = jitter()
        self._offset_s = 0.0  # the hub's clock less ours, where ours was too far off for it
        self._distrusted = False  # the hub did not take the certificate: tokens, until there is another
        self._tried_at = float("-inf")
        self._token, self._token_until = "", 0.0
        self._dates: tuple[float, float] | None = None
        self._tending = threading.Lock()
        self._look()

    def tls(self) -> ssl.SSLContext:
        """See ``Proof``."""
        if self._presents():
            return self._context(self._root / CLIENT_CERTIFICATE)
        return self._context(None)

    def headers(self) -> dict[str, str]:
        """See ``Proof``."""
        if self._config.hub.startswith("https:") and self._presents():
            return {}
        return {"Authorization": f"Bearer {self.token()}"}

    def token(self) -> str:
        """See ``Proof``."""
        now = self._now() + self._offset_s
        if not self._token_until - LIFE_S <= now < self._token_until - LIFE_S / 3:
            self._token = sign_access(self._key, self._config.fleet, self._config.cluster, int(now))
            self._token_until = int(now) + LIFE_S
        return self._token

    def refused(self, answer: Answer | None) -> bool:
        """Sign for the hub's time from now on, and show tokens besides the certificate that it did not see or take."""
        told = "" if answer is None else answer.headers.get(TIME_HEADER, "")
        presented, before_s = self._presents(), self._offset_s
        if told.isascii() and told.isdecimal() and len(told) < 12:
            self._offset_s = int(told) - self._now()
            self._token_until = 0.0
        self._distrusted = True
        return presented or abs(self._offset_s - before_s) > _CLOSE_S

    def tend(self) -> bool:
        """See ``Proof``."""
        if not self._tending.acquire(blocking=False):
            return False
        try:
            now = self._now()
            return self._due(now) and now - self._tried_at >= RETRY_S and self._renew(now)
        finally:
            self._tending.release()

    def _renew(self, now: float) -> bool:
        self._tried_at = now
        connection = Connection(Origin.parse(self._config.hub), lambda: self._context(None))
        try:
            asked = canonical({"cluster": self._config.cluster, "request": certificate_request(self._key)})
            answer = connection.ask("POST", "/v1/certificate", _JSON, asked, most_bytes=_MOST_ANSWER_BYTES)
            if answer.status != 200:
                return False
            found = read_certificate(Fields.parse(answer.body, "certificate"))
            keep_certificate(self._root, self._key, found)
        except (EdgeferryError, OSError):
            return False
        finally:
            connection.close()
        self._distrusted, self._tried_at = False, float("-inf")
        self._look()
        return True

    def _look(self) -> None:
        self._there = (self._root / CLIENT_CERTIFICATE).exists() and (self._root / CLIENT_KEY).exists()
        self._dates = certificate_dates(self._root)

    def _presents(self) -> bool:
        expired = self._dates is not None and self._now() + self._offset_s >= self._dates[1]
        return self._there and not self._distrusted and not expired

    def _due(self, now: float) -> bool:
        if self._dates is None:
            return False  # none, or one that a person put there: TLS ends elsewhere, or there is none
        start, end = self._dates
        return self._distrusted or now >= start + (end - start) * (RENEW_AT + (self._jitter * 2 - 1) * JITTER)

    def _context(self, certificate: Path | None) -> ssl.SSLContext:
        pinned = self._root / HUB_AUTHORITY
        return tls_context(
            self._config.ca, certificate, self._root / CLIENT_KEY, only=pinned if pinned.exists() else None
        )


def open_proof(root: Path, config: Config, key: SigningKey) -> Proof:
    """Return what proves this cluster: to its hub by its key, to a Git host by what a person brought."""
    return HubProof(root, config, key) if config.hub else Fixed(read_credential(root), config.ca)


_JSON: Final[Mapping[str, str]] = {"Content-Type": "application/json"}


def certificate_request(key: SigningKey) -> str:
    """Return a certificate request, PEM: it proves the key, and asks for nothing else."""
    from cryptography import x509  # imported here: an agent needs it once in months
    from cryptography.hazmat.primitives.serialization import Encoding

    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key.private, None)
    return request.public_bytes(Encoding.PEM).decode()


def read_certificate(said: Fields) -> tuple[str, str, str, str]:
    """Return certificate (PEM), its first and last second as written, and the hub's authority (PEM).

    Raises:
        UnexpectedAnswer: no certificate in it.
    """
    try:
        certificate, authority = said.text("certificate", most=64 << 10), said.text("authority", most=64 << 10)
        dates = said.text("notBefore"), said.text("notAfter")
        for one in dates:
            parse_time(one, said.where)
        ssl.PEM_cert_to_DER_cert(certificate)
    except (Malformed, UnsupportedFormat, ValueError) as error:
        raise UnexpectedAnswer(f"no certificate: {error}", where=said.where) from None
    return certificate, *dates, authority


def keep_certificate(root: Path, key: SigningKey, found: tuple[str, str, str, str]) -> None:
    """Write a certificate and its key; the authority anew where one is pinned.

    The dates stand as a comment before the certificate, so that looking at them needs no parser.
    """
    certificate, start, end, authority = found
    if (root / HUB_AUTHORITY).exists() and (root / HUB_AUTHORITY).read_text() != authority:
        durable.write(root / HUB_AUTHORITY, authority.encode(), 0o644)
    if not (root / CLIENT_KEY).exists():
        durable.write(root / CLIENT_KEY, key.dump_pem())
    durable.write(root / CLIENT_CERTIFICATE, f"# valid {start} {end}\n{certificate}".encode(), 0o644)


def certificate_dates(root: Path) -> tuple[float, float] | None:
    """Return first and last second of the certificate that the hub gave; None where there is none of it."""
    try:
        with (root / CLIENT_CERTIFICATE).open("rb") as file:
            found = _DATES.match(file.readline(200))
    except OSError:
        return None
    if found is None:
        return None
    start, end = (
        parse_time(part.decode("ascii", "replace"), CLIENT_CERTIFICATE).timestamp() for part in found.groups()
    )
    return start, end
