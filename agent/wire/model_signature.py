"""Model signatures: ``model.sig``, a Sigstore bundle around a statement that lists every file with its digest.

Made with a key, not with a Sigstore identity: a site verifies it offline. NIST P-256 keys are what the
``model_signing`` program takes, ed25519 keys are what the rest of a fleet uses; both verify here.

Source: OpenSSF model signing 1.0; Sigstore bundle 0.3; DSSE 1.0; in-toto statement 1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from agent.wire.errors import Malformed, Stop, Wait

NAME: Final = "model.sig"
REQUIREMENT: Final = "model-signature"
"""What an entry names in ``requires``."""

MOST_BYTES: Final = 1 << 20

_BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_BUNDLES: Final = "application/vnd.dev.sigstore.bundle"
_PAYLOAD: Final = "application/vnd.in-toto+json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_IGNORED: Final = [".git", ".gitattributes", ".github", ".gitignore", "model.sig", "version.yaml"]

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey


class ModelNotSigned(Wait):
    """A model must be signed here, and it is not."""

    code = "EF2210"


class ModelSignatureRefused(Wait):
    """A model's signature is unreadable, does not fit, or is by no key that may sign models now."""

    code = "EF2211"


class OtherFilesSigned(Stop):
    """A model's signature is good, and covers other files than the artifact has."""

    code = "EF2212"


def verify_model(data: bytes, keys: Collection[str], where: str) -> Mapping[str, str]:
    """Return path → sha256 digest of the files that a signature covers.

    Args:
        data: ``model.sig``.
        keys: public keys in OpenSSH form that may sign models now.
        where: for messages.

    Raises:
        ModelNotSigned: there is no signature.
        ModelSignatureRefused: for any other reason; nothing in it may be used then.
    """
    if not data:
        raise ModelNotSigned("it has no model.sig", where=where, do="sign it: `edgeferry model sign`, or model_signing")
    payload, mark = _read(data, where)
    if not any(_signed_by(key, mark, _encoded(payload)) for key in keys):
        raise ModelSignatureRefused(
            f"signed by none of the {len(keys)} keys that may sign models",
            where=where,
            do="sign it with a key of the fleet's trust, or add the signer's key to it",
        )
    return _listed(payload, where)


def claimed_files(data: bytes, where: str) -> Mapping[str, str]:
    """Return what a signature says it covers, whoever made it: for comparing, after ``verify_model`` said who did.

    Raises:
        ModelSignatureRefused: it is unreadable.
    """
    return _listed(_read(data, where)[0], where)


def check_files(signed: Mapping[str, str], files: Mapping[str, str], where: str) -> None:
    """Compare what is signed with what is there, file by file.

    Args:
        signed: path → digest, of ``verify_model``.
        files: path → digest, of the artifact.
        where: for messages.

    Raises:
        OtherFilesSigned: a file more, a file less, or other bytes.
    """
    wrong = sorted(path for path in signed.keys() | files.keys() if signed.get(path) != files.get(path))
    if wrong:
        named = ", ".join(wrong[:3]) + (" …" if len(wrong) > 3 else "")
        raise OtherFilesSigned(
            f"the signature does not cover these files as they are: {named}", where=where, do="sign this version again"
        )


def sign_model(files: Mapping[str, str], name: str, key: PrivateKey) -> bytes:
    """Return ``model.sig`` for some files.

    Args:
        files: path → sha256 digest.
        name: of the model, for people.
        key: an ed25519 or NIST P-256 private key.
    """
    ordered = sorted(files.items())
    root = hashlib.sha256(b"".join(bytes.fromhex(digest.removeprefix("sha256:")) for _, digest in ordered)).hexdigest()
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": _IGNORED,
            },
            "resources": [
                {"name": path, "algorithm": "sha256", "digest": digest.removeprefix("sha256:")}
                for path, digest in ordered
            ],
        },
    }
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    message = _encoded(payload)
    mark = key.sign(message) if isinstance(key, Ed25519PrivateKey) else key.sign(message, ECDSA(SHA256()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    bundle = {
        "mediaType": _BUNDLE,
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(public).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD,
            "signatures": [{"sig": base64.b64encode(mark).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle, indent=2).encode() + b"\n"


def read_signing_key(data: bytes, where: str) -> PrivateKey:
    """Read an unencrypted private key that signs models, in PEM or OpenSSH form.

    Raises:
        Malformed: not one, encrypted, or of another kind.
    """
    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data else load_pem_private_key
    do = "make one: ssh-keygen -t ecdsa -b 256 -m PEM -N '' -f model.key"
    try:
        key = load(data, None)
    except (ValueError, TypeError) as error:
        raise Malformed(f"no readable private key: {error}"[:200], where=where, do=do) from None
    if isinstance(key, Ed25519PrivateKey):
        return key
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key
    raise Malformed("neither an ed25519 nor a NIST P-256 key", where=where, do=do)


def read_model_key(data: bytes, where: str) -> str:
    """Return a public key, given in PEM or OpenSSH form, in OpenSSH form without a comment.

    Raises:
        Malformed: not a public key that signs models.
    """
    try:
        if data.lstrip().startswith(b"-----"):
            key = load_pem_public_key(data)
            text = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        else:
            text = " ".join(data.decode().split()[:2])
    except (ValueError, UnicodeError) as error:
        raise Malformed(f"no readable public key: {error}"[:200], where=where) from None
    if not is_model_key(text):
        raise Malformed("not an ed25519 or NIST P-256 public key", where=where, do="give it in PEM or OpenSSH form")
    return text


def is_model_key(text: str) -> bool:
    """Tell whether ``text`` is a public key that may sign models, in OpenSSH form without a comment."""
    return text.count(" ") == 1 and _public(text) is not None


def _public(text: str) -> Ed25519PublicKey | EllipticCurvePublicKey | None:
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, TypeError):
        return None
    except Exception:  # cryptography names some of its own
        return None
    if isinstance(key, Ed25519PublicKey):
        return key
    return key if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1) else None


def _signed_by(text: str, mark: bytes, message: bytes) -> bool:
    key = _public(text)
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(mark, message)
        elif isinstance(key, EllipticCurvePublicKey):
            key.verify(mark, message, ECDSA(SHA256()))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _read(data: bytes, where: str) -> tuple[bytes, bytes]:
    try:
        return _envelope(data)
    except (ValueError, TypeError, LookupError, AttributeError, binascii.Error, RecursionError) as error:
        raise ModelSignatureRefused(f"unreadable model.sig: {error}"[:300], where=where, do="sign it again") from None


def _listed(payload: bytes, where: str) -> Mapping[str, str]:
    try:
        return _files(json.loads(payload))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ModelSignatureRefused(f"unreadable statement: {error}"[:300], where=where, do="sign it again") from None


def _envelope(data: bytes) -> tuple[bytes, bytes]:
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    bundle = json.loads(data)
    if not bundle["mediaType"].startswith(_BUNDLES):
        raise ValueError("not a Sigstore bundle")
    envelope = bundle["dsseEnvelope"]
    signatures = envelope["signatures"]
    if envelope["payloadType"] != _PAYLOAD or len(signatures) != 1:
        raise ValueError("not one signature of an in-toto statement")
    return base64.b64decode(envelope["payload"], validate=True), base64.b64decode(signatures[0]["sig"], validate=True)


def _encoded(payload: bytes) -> bytes:
    """Return what DSSE signs: its pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)


def _files(statement: Any) -> dict[str, str]:
    if statement["_type"] != _STATEMENT or statement["predicateType"] != _PREDICATE:
        raise ValueError("another kind of statement")
    predicate = statement["predicate"]
    if predicate["serialization"]["method"] != "files":
        raise ValueError("made over shards, not files")
    files: dict[str, str] = {}
    hashed = hashlib.sha256()
    for one in predicate["resources"]:
        raw = bytes.fromhex(one["digest"])
        if one["algorithm"] != "sha256" or len(raw) != 32 or not isinstance(one["name"], str) or one["name"] in files:
            raise ValueError(f"{str(one)[:80]} is no file with a sha256 digest")
        hashed.update(raw)
        files[one["name"]] = f"sha256:{raw.hex()}"
    subjects = statement["subject"]
    if len(subjects) != 1 or subjects[0]["digest"]["sha256"] != hashed.hexdigest():
        raise ValueError("its digest is not that of its files")
    return files
