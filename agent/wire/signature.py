"""OpenSSH signatures (SSHSIG) with ed25519: what ``ssh-keygen -Y sign`` and ``-Y verify`` speak.

Source: PROTOCOL.sshsig of OpenSSH.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Collection
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from agent.wire.errors import BadSignature, Malformed

RELEASE: Final = b"edgeferry-release"
TRUST: Final = b"edgeferry-trust"
REPORT: Final = b"edgeferry-report"
CARRIED: Final = b"edgeferry-carried"
JOIN: Final = b"edgeferry-join"
ACCESS: Final = b"edgeferry-access"
GIT: Final = b"git"
"""Namespaces: a signature made for one purpose is worthless for another."""

_BEGIN: Final = b"-----BEGIN SSH SIGNATURE-----"
_END: Final = b"-----END SSH SIGNATURE-----"
_MAX_BYTES: Final = 4096


class SigningKey:
    """An ed25519 private key, ready to sign.

    Args:
        key: the private key.
    """

    __slots__ = ("_key", "_prefix", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        blob = _string(b"ssh-ed25519") + _string(raw)
        self.public = "ssh-ed25519 " + base64.b64encode(blob).decode()
        self._prefix = b"SSHSIG" + struct.pack("!I", 1) + _string(blob)

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, data: bytes, where: str) -> SigningKey:
        """Read an unencrypted OpenSSH private key.

        Raises:
            Malformed: not a private key, encrypted, or not ed25519.
        """
        try:
            key = load_ssh_private_key(data, None)
        except (ValueError, TypeError) as error:
            raise Malformed(
                f"no readable private key: {error}", where=where, do="make one: ssh-keygen -t ed25519 -N ''"
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise Malformed("not an ed25519 key", where=where, do="make one: ssh-keygen -t ed25519 -N ''")
        return cls(key)

    def dump(self) -> bytes:
        """Return the private key in OpenSSH format: a secret."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())

    def dump_pem(self) -> bytes:
        """Return the private key as TLS libraries read it: a secret."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def private(self) -> Ed25519PrivateKey:
        """The private key itself, to sign what is no SSH signature: a secret."""
        return self._key

    @property
    def fingerprint(self) -> str:
        """``SHA256:…`` as ssh-keygen prints it."""
        return fingerprint(self.public)

    def sign(self, message: bytes, namespace: bytes) -> bytes:
        """Return the armored signature of ``message`` for ``namespace``."""
        signed = _string(namespace) + _string(b"") + _string(b"sha512")
        mark = self._key.sign(b"SSHSIG" + signed + _string(hashlib.sha512(message).digest()))
        blob = self._prefix + signed + _string(_string(b"ssh-ed25519") + _string(mark))
        return armor(blob)


def armor(blob: bytes) -> bytes:
    """Return a binary signature in its armor."""
    text = base64.b64encode(blob)
    lines = b"\n".join(text[n : n + 70] for n in range(0, len(text), 70))
    return b"%b\n%b\n%b\n" % (_BEGIN, lines, _END)


def dearmor(armored: bytes) -> bytes:
    """Return the binary form of a signature that ``SigningKey.sign`` made."""
    return base64.b64decode(b"".join(armored.splitlines()[1:-1]))


def verify(message: bytes, armored: bytes, namespace: bytes, allowed: Collection[str], where: str) -> str:
    """Return the public key that signed ``message``.

    Args:
        message: the bytes as they were received.
        armored: one armored signature.
        namespace: what the signature must have been made for.
        allowed: public keys, ``ssh-ed25519 AAAA…`` without a comment.
        where: for the message of the fault.

    Raises:
        BadSignature: for any reason; nothing of the message may be used then.
    """
    try:
        key, name, hashed_with, mark = _parse(armored)
    except (ValueError, struct.error, binascii.Error) as error:
        raise BadSignature(f"unreadable signature: {error}", where=where) from None
    public = "ssh-ed25519 " + base64.b64encode(key).decode()
    if public not in allowed:
        raise BadSignature(
            f"signed by {fingerprint(public)}, which may not sign this",
            where=where,
            do="compare `edgeferry trust show` of the hub with this site's trust",
        )
    if name != namespace:
        raise BadSignature(f"made for {name.decode(errors='replace')!r}, not for {namespace.decode()!r}", where=where)
    signed = b"SSHSIG" + _string(name) + _string(b"") + _string(hashed_with)
    try:
        Ed25519PublicKey.from_public_bytes(key[-32:]).verify(
            mark, signed + _string(hashlib.new(hashed_with.decode(), message).digest())
        )
    except InvalidSignature:
        raise BadSignature(
            "the signature does not fit the bytes",
            where=where,
            do="the bytes were changed on the way: fetch them again",
        ) from None
    return public


def signer(armored: bytes, where: str) -> str:
    """Return the public key that a signature claims to be by: nothing is verified.

    Raises:
        BadSignature: it is unreadable.
    """
    try:
        key, *_ = _parse(armored)
    except (ValueError, struct.error, binascii.Error) as error:
        raise BadSignature(f"unreadable signature: {error}", where=where) from None
    return "ssh-ed25519 " + base64.b64encode(key).decode()


def is_public_key(text: str) -> bool:
    """Tell whether ``text`` is an ed25519 public key in OpenSSH form, without a comment."""
    kind, _, blob = text.partition(" ")
    try:
        raw = base64.b64decode(blob, validate=True)
    except ValueError:
        return False  # no base64, or no ASCII
    return kind == "ssh-ed25519" and len(raw) == 51 and raw[:-32] == _KEY_PREFIX


def fingerprint(public: str) -> str:
    """Return ``SHA256:…`` of a public key as ssh-keygen prints it."""
    blob = base64.b64decode(public.split(" ")[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _parse(armored: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    lines = armored.strip().splitlines()
    if len(armored) > _MAX_BYTES or len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise ValueError("no armored SSH signature")
    blob = base64.b64decode(b"".join(lines[1:-1]), validate=True)
    if blob[:6] != b"SSHSIG" or struct.unpack_from("!I", blob, 6)[0] != 1:
        raise ValueError("not version 1 of SSHSIG")
    key, at = _read(blob, 10)
    namespace, at = _read(blob, at)
    _, at = _read(blob, at)
    hashed_with, at = _read(blob, at)
    signature, at = _read(blob, at)
    if at != len(blob) or hashed_with not in (b"sha256", b"sha512"):
        raise ValueError("trailing bytes or an unknown hash")
    if len(key) != 51 or key[:-32] != _KEY_PREFIX:
        raise ValueError("not an ed25519 key")
    kind, at = _read(signature, 0)
    mark, at = _read(signature, at)
    if kind != b"ssh-ed25519" or at != len(signature):
        raise ValueError("not an ed25519 signature")
    return key, namespace, hashed_with, mark


def _string(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data


_KEY_PREFIX: Final = _string(b"ssh-ed25519") + struct.pack("!I", 32)


def _read(blob: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("!I", blob, at)
    if at + 4 + length > len(blob):
        raise ValueError("cut short")
    return blob[at + 4 : at + 4 + length], at + 4 + length
