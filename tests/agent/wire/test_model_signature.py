"""Model signatures: the stock program's are read, ours are the same kind, and everything else is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from agent.wire.canonical import digest
from agent.wire.errors import Malformed
from agent.wire.model_signature import (
    ModelNotSigned,
    ModelSignatureRefused,
    OtherFilesSigned,
    check_files,
    claimed_files,
    read_model_key,
    read_signing_key,
    sign_model,
    verify_model,
)

STOCK = Path(__file__).parents[2] / "cases" / "model_signature"
FILES = {"model.onnx": digest(b"weights"), "sub/labels.json": digest(b"[]")}


def public(key: Any) -> str:
    return read_model_key(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "key")


@pytest.fixture(params=["ed25519", "p256"])
def key(request: pytest.FixtureRequest) -> Any:
    return Ed25519PrivateKey.generate() if request.param == "ed25519" else ec.generate_private_key(ec.SECP256R1())


def test_what_the_stock_program_signs_is_verified() -> None:
    signer = read_model_key((STOCK / "key.pem").read_bytes(), "key.pem")
    found = verify_model((STOCK / "model.sig").read_bytes(), (signer,), "m")
    assert sorted(found) == ["a.txt", "model.onnx", "sub/b"]
    assert found["a.txt"] == digest(b"hello\n")


def test_a_signature_tells_the_files(key: Any) -> None:
    other = Ed25519PrivateKey.generate()
    data = sign_model(FILES, "reader", key)
    assert verify_model(data, (public(other), public(key)), "m") == FILES == claimed_files(data, "m")
    check_files(FILES, FILES, "m")


def test_a_key_that_may_not_sign_models_signs_nothing(key: Any) -> None:
    data = sign_model(FILES, "reader", key)
    for keys in ((), (public(Ed25519PrivateKey.generate()),)):
        with pytest.raises(ModelSignatureRefused, match="none of the"):
            verify_model(data, keys, "m")
    with pytest.raises(ModelNotSigned):
        verify_model(b"", (public(key),), "m")


def test_every_changed_part_is_refused(key: Any) -> None:
    bundle = json.loads(sign_model(FILES, "reader", key))
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    statement["predicate"]["resources"][0]["digest"] = "0" * 64
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    with pytest.raises(ModelSignatureRefused):
        verify_model(json.dumps(bundle).encode(), (public(key),), "m")


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"{}",
        b"[]",
        b"[" * 100_000,
        b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}',
        b'{"mediaType": 3}',
        json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "dsseEnvelope": {"payload": "e30=", "payloadType": "text/plain", "signatures": [{"sig": ""}]},
            }
        ).encode(),
        b" " * (2 << 20),
    ],
)
def test_what_is_no_signature_is_refused(data: bytes) -> None:
    with pytest.raises(ModelSignatureRefused):
        verify_model(data, (public(Ed25519PrivateKey.generate()),), "m")


@pytest.mark.parametrize("change", ["more", "less", "other"])
def test_the_very_files_must_be_signed(change: str) -> None:
    there = dict(FILES)
    if change == "more":
        there["extra.py"] = digest(b"import os")
    elif change == "less":
        del there["sub/labels.json"]
    else:
        there["model.onnx"] = digest(b"other")
    with pytest.raises(OtherFilesSigned):
        check_files(FILES, there, "m")


def test_a_statement_whose_digest_is_not_of_its_files_is_refused(key: Any) -> None:
    from agent.wire import model_signature

    payload = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": "0" * 64}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {"serialization": {"method": "files"}, "resources": []},
    }
    raw = json.dumps(payload).encode()
    message = model_signature._encoded(raw)
    mark = (
        key.sign(message)
        if isinstance(key, Ed25519PrivateKey)
        else key.sign(message, ec.ECDSA(model_signature.SHA256()))
    )
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "dsseEnvelope": {
            "payload": base64.b64encode(raw).decode(),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": base64.b64encode(mark).decode()}],
        },
    }
    with pytest.raises(ModelSignatureRefused, match="digest"):
        verify_model(json.dumps(bundle).encode(), (public(key),), "m")


def test_keys_are_read_in_both_forms(key: Any) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    ssh = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    assert public(read_signing_key(pem, "k")) == public(read_signing_key(ssh, "k")) == public(key)
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" ann@host\n"
    assert read_model_key(line, "k") == public(key)


def test_other_keys_are_refused() -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(Malformed):
        read_signing_key(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "k")
    for data in (b"", b"ssh-rsa AAAA", b"-----BEGIN PUBLIC KEY-----", b"\xff"):
        with pytest.raises(Malformed):
            read_model_key(data, "k")
