"""The hub's own certificate authority: agents' client certificates, and the hub's own where it has no other.

``ca.key`` and ``ca.pem`` stand in the keys directory. A client certificate is good only together with the registration
of its key, so there are no revocation lists.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.wire.errors import Malformed, Stop
from gitops.keys import check_not_exposed, write_new

CLIENT_LIFE: Final = timedelta(days=90)
SERVER_LIFE: Final = timedelta(days=90)
AUTHORITY_LIFE: Final = timedelta(days=365 * 20)
EARLY: Final = timedelta(hours=1)
"""Certificates begin so long before they are made: clocks differ."""

MOST_REQUEST_BYTES: Final = 8192


class BadRequestForCertificate(Stop):
    """A certificate request is unreadable, or does not prove the key that the cluster registered."""

    code = "EF3150"
    status = 400


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate.

    Attributes:
        pem: the certificate.
        start, end: its first and last second, UTC.
    """

    pem: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Authority:
    """The authority and its key.

    Attributes:
        path: of its certificate, PEM.
        pem: the same, as agents get it.
    """

    path: Path
    pem: str
    _certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey

    @classmethod
    def open(cls, directory: Path, *, create: bool = False, now: datetime | None = None) -> Self:
        """Read the authority from a keys directory.

        Args:
            directory: with ``ca.key`` and ``ca.pem``.
            create: make it where it is missing; one that another process made meanwhile is taken.
            now: time of its making; None for the clock's.

        Raises:
            KeyExposed: everybody can read the key.
            Malformed: a file is unreadable, or the two do not belong together.
        """
        key_path, path = directory / "ca.key", directory / "ca.pem"
        if create:
            directory.mkdir(parents=True, mode=0o700, exist_ok=True)
            if not key_path.exists():
                write_new(key_path, _key_pem(ec.generate_private_key(ec.SECP256R1())))
            if not path.exists():
                write_new(path, _authority(_load_key(key_path), now or datetime.now(UTC)))
        check_not_exposed(key_path)
        key = _load_key(key_path)
        try:
            pem = path.read_text()
            certificate = x509.load_pem_x509_certificate(pem.encode())
        except (OSError, ValueError) as error:
            raise Malformed(f"no certificate: {error}", where=str(path), do="restore the keys directory") from None
        if certificate.public_key() != key.public_key():
            raise Malformed("belongs to another key than ca.key", where=str(path), do="restore the keys directory")
        return cls(path, pem, certificate, key)

    @property
    def hash(self) -> str:
        """``sha256:…`` of the certificate: what a join line pins."""
        return f"sha256:{hashlib.sha256(self._certificate.public_bytes(Encoding.DER)).hexdigest()}"

    def client(self, request: str, cluster: str, key: str, now: datetime) -> Issued:
        """Return a client certificate; of the request nothing counts but that it proves the key.

        Args:
            request: PEM, from the network.
            cluster: its name.
            key: that it registered, ``ssh-ed25519 AAAA…``.
            now: UTC.

        Raises:
            BadRequestForCertificate: unreadable, or of another key.
        """
        do = "update the agent, or join again with a new token"
        try:
            if len(request) > MOST_REQUEST_BYTES:
                raise ValueError(f"{len(request)} characters, at most {MOST_REQUEST_BYTES}")
            asked = x509.load_pem_x509_csr(request.encode())
            public = asked.public_key()
            if not isinstance(public, ed25519.Ed25519PublicKey) or not asked.is_signature_valid:
                raise ValueError("not signed by an ed25519 key")
        except (ValueError, TypeError) as error:
            raise BadRequestForCertificate(f"no certificate request: {str(error)[:200]}", do=do) from None
        if public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() != key:
            raise BadRequestForCertificate("made with another key than the cluster's", do=do)
        return self._issue(cluster, public, [], ExtendedKeyUsageOID.CLIENT_AUTH, now, CLIENT_LIFE)

    def server(self, names: Sequence[str], now: datetime) -> tuple[bytes, bytes]:
        """Return key and certificate with chain, PEM, for host names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        issued = self._issue(names[0], key.public_key(), names, ExtendedKeyUsageOID.SERVER_AUTH, now, SERVER_LIFE)
        return _key_pem(key), (issued.pem + self.pem).encode()

    def _issue(
        self,
        name: str,
        public: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey,
        hosts: Sequence[str],
        usage: x509.ObjectIdentifier,
        now: datetime,
        life: timedelta,
    ) -> Issued:
        start, end = now.replace(microsecond=0) - EARLY, now.replace(microsecond=0) + life
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_host(one) for one in hosts]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Issued(certificate.public_bytes(Encoding.PEM).decode(), start, end)


def _authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Edgeferry hub")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(x509.KeyUsage(True, False, False, False, False, True, True, False, False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise Malformed(f"no private key: {error}", where=str(path), do="restore the keys directory") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Malformed("not a key of an elliptic curve", where=str(path), do="restore the keys directory")
    return key
