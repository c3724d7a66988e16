"""Certificates of a test cluster: one authority, and short-lived keys that it signs."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = datetime.timedelta(days=365)


class Authority:
    """Signs certificates and writes them, with their keys, as NAME.crt and NAME.key into one folder."""

    def __init__(self, folder: Path) -> None:
        """Make the authority, or take up the one that the folder has."""
        self.folder = folder
        self.certificate = folder / "ca.crt"
        if self.certificate.exists():
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            self._key = key
            self._name = x509.load_pem_x509_certificate(self.certificate.read_bytes()).subject
            return
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("edgeferry-test-cluster")
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = (
            _certificate(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
        )
        _write_key(folder / "ca.key", self._key)
        self.certificate.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))

    def client(self, name: str, user: str, groups: Sequence[str] = ()) -> None:
        """Write a certificate that names a Kubernetes user and its groups."""
        self._issue(name, _name(user, groups), [], ExtendedKeyUsageOID.CLIENT_AUTH)

    def server(self, name: str, user: str, hosts: Sequence[str], groups: Sequence[str] = ()) -> None:
        """Write a server certificate for host names and addresses."""
        self._issue(name, _name(user, groups), hosts, ExtendedKeyUsageOID.SERVER_AUTH)

    def signing_key(self, name: str) -> None:
        """Write NAME.key and NAME.pub, for service-account tokens."""
        if (self.folder / f"{name}.pub").exists():
            return
        key = rsa.generate_private_key(65537, 2048)
        _write_key(self.folder / f"{name}.key", key)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (self.folder / f"{name}.pub").write_bytes(public)

    def _issue(self, name: str, subject: x509.Name, hosts: Sequence[str], use: x509.ObjectIdentifier) -> None:
        if (self.folder / f"{name}.crt").exists():
            return
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _certificate(subject, self._name, key).add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_host(one) for one in hosts]), critical=False)
        _write_key(self.folder / f"{name}.key", key)
        (self.folder / f"{name}.crt").write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _LIFE)
    )


def _name(user: str, groups: Sequence[str] = ()) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
