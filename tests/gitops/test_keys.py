"""The publisher's keys are made once, kept to one user, and never made again in silence."""

from __future__ import annotations

import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from agent.wire.errors import BadSignature, Malformed
from agent.wire.trust import decode_trust, pin, sign_trust
from gitops.keys import KeyExposed, KeyMissing, Keyring, first_trust


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.open(tmp_path / "keys", create=True)


def test_keys_are_made_once_and_read_again(keyring: Keyring) -> None:
    again = Keyring.open(keyring.directory, create=True)
    assert (again.release.public, again.fleet_id) == (keyring.release.public, keyring.fleet_id)
    assert again.root is not None and keyring.root is not None and again.root.public == keyring.root.public


def test_only_the_owner_reads_them(keyring: Keyring) -> None:
    assert keyring.directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in keyring.directory.iterdir()} == {0o600}


def test_they_are_openssh_keys(keyring: Keyring) -> None:
    for name, key in (("release.key", keyring.release), ("root.key", keyring.root)):
        command = ["ssh-keygen", "-y", "-f", str(keyring.directory / name)]
        shown = subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
        assert key is not None and shown == key.public


def test_a_key_of_ssh_keygen_is_taken(tmp_path: Path) -> None:
    key = tmp_path / "release.key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
    public = key.with_suffix(".key.pub").read_text().strip()
    assert Keyring.open(tmp_path, create=True).release.public == public


def test_the_root_key_may_be_taken_offline(keyring: Keyring) -> None:
    (keyring.directory / "root.key").unlink()
    again = Keyring.open(keyring.directory, create=True)
    assert again.root is None
    with pytest.raises(KeyMissing, match="root"):
        first_trust(again)


@pytest.mark.parametrize("name", ["release.key", "fleet-id"])
def test_a_lost_file_is_named_and_not_made_again(keyring: Keyring, name: str) -> None:
    (keyring.directory / name).unlink()
    with pytest.raises(KeyMissing, match=name):
        Keyring.open(keyring.directory, create=name == "release.key")


def test_an_empty_directory_is_not_a_keyring(tmp_path: Path) -> None:
    with pytest.raises(KeyMissing):
        Keyring.open(tmp_path)


def test_a_key_that_everybody_reads_is_refused(keyring: Keyring) -> None:
    (keyring.directory / "release.key").chmod(0o604)
    with pytest.raises(KeyExposed, match="release"):
        Keyring.open(keyring.directory)


@pytest.mark.parametrize("name", ["release.key", "root.key", "fleet-id"])
def test_a_broken_file_is_named(keyring: Keyring, name: str) -> None:
    (keyring.directory / name).write_bytes(b"\xffrubbish")
    with pytest.raises(Malformed, match=name):
        Keyring.open(keyring.directory)


def test_a_keyring_cut_short_while_it_was_made_is_completed(keyring: Keyring) -> None:
    (keyring.directory / "fleet-id").unlink()
    (keyring.directory / "release.key").unlink()
    again = Keyring.open(keyring.directory, create=True)
    assert again.root is not None and keyring.root is not None and again.root.public == keyring.root.public


def test_two_processes_that_make_it_at_once_agree(tmp_path: Path) -> None:
    found: list[tuple[str, str]] = []
    barrier = threading.Barrier(8)

    def run() -> None:
        barrier.wait()
        keyring = Keyring.open(tmp_path / "keys", create=True)
        found.append((keyring.release.public, keyring.fleet_id))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1


def test_the_first_trust_names_the_keys_and_is_signed_by_the_root(keyring: Keyring) -> None:
    files = first_trust(keyring, ("ssh-ed25519 " + keyring.release.public.split()[1],))
    trust = pin(files["trust/1.json"], files["trust/1.json.sig"])
    assert (trust.number, trust.fleet, trust.release_keys) == (1, keyring.fleet_id, (keyring.release.public,))
    assert keyring.root is not None and trust.root_keys == (keyring.root.public,)
    assert trust.model_keys == (keyring.release.public,)


def test_a_pinned_trust_is_remembered(keyring: Keyring) -> None:
    assert keyring.pinned() is None
    assert keyring.root is not None
    files = first_trust(keyring)
    first = decode_trust(files["trust/1.json"], "x")
    for number in (1, 2, 2):
        keyring.pin(*sign_trust(replace(first, number=number), (keyring.root,)))
        assert keyring.pinned() == replace(first, number=number)
    assert (keyring.directory / "trust.pin").stat().st_mode & 0o777 == 0o600


def test_a_tampered_pin_is_refused(keyring: Keyring) -> None:
    files = first_trust(keyring)
    keyring.pin(files["trust/1.json"], files["trust/1.json.sig"])
    path = keyring.directory / "trust.pin"
    path.write_bytes(path.read_bytes().replace(b'"number":1', b'"number":7'))
    with pytest.raises(BadSignature):
        keyring.pinned()
