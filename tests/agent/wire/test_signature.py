"""Signatures are OpenSSH's, both ways, and worth nothing for another purpose or by another key."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire.errors import BadSignature, Malformed
from agent.wire.signature import RELEASE, REPORT, SigningKey, fingerprint, is_public_key, verify

KEY = SigningKey.generate()
MARK = KEY.sign(b"bytes", RELEASE)


def test_ssh_keygen_accepts_our_signature(tmp_path: Path) -> None:
    (tmp_path / "allowed").write_text(f"hub {KEY.public}\n")
    (tmp_path / "sig").write_bytes(MARK)
    command = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "hub", "-n", "edgeferry-release", "-s", "sig"]
    assert subprocess.run(command, cwd=tmp_path, input=b"bytes", capture_output=True, check=False).returncode == 0
    assert subprocess.run(command, cwd=tmp_path, input=b"other", capture_output=True, check=False).returncode != 0


def test_we_accept_ssh_keygens_signature_and_its_fingerprint(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", "key"], cwd=tmp_path, check=True)
    (tmp_path / "message").write_bytes(b"bytes")
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", "key", "-n", "edgeferry-release", "message"], cwd=tmp_path, check=True
    )
    public = (tmp_path / "key.pub").read_text().strip()
    assert verify(b"bytes", (tmp_path / "message.sig").read_bytes(), RELEASE, {public}, "x") == public
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", "key.pub"], cwd=tmp_path, capture_output=True, check=True, text=True
    )
    assert fingerprint(public) in listed.stdout
    assert SigningKey.load((tmp_path / "key").read_bytes(), "key").public == public


def test_a_key_survives_writing_and_reading() -> None:
    assert SigningKey.load(KEY.dump(), "key").public == KEY.public
    assert is_public_key(KEY.public)
    assert not is_public_key(KEY.public + " comment")


@pytest.mark.parametrize(
    "data",
    [b"", b"no key", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"],
    ids=["empty", "text", "broken"],
)
def test_what_is_no_private_key_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        SigningKey.load(data, "key")


def test_a_signature_for_another_purpose_is_refused() -> None:
    with pytest.raises(BadSignature, match="made for"):
        verify(b"bytes", MARK, REPORT, {KEY.public}, "x")


def test_a_signature_by_another_key_is_refused() -> None:
    with pytest.raises(BadSignature, match="may not sign"):
        verify(b"bytes", MARK, RELEASE, {SigningKey.generate().public}, "x")


@settings(max_examples=300)
@given(st.integers(0, len(MARK) - 1), st.binary(max_size=4))
def test_no_damaged_signature_is_accepted(at: int, put: bytes) -> None:
    damaged = MARK[:at] + put + MARK[at + 1 :]
    if b"".join(damaged.split()) == b"".join(MARK.split()):
        return
    with pytest.raises(BadSignature):
        verify(b"bytes", damaged, RELEASE, {KEY.public}, "x")
