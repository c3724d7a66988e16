"""Exchanged keys: asleep or awake, sites follow; what a retired key signs is refused; a kill between is made good."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.verify import Accepted, TrustWithdrawn, accept
from agent.wire.errors import BadSignature
from agent.wire.release import NAME, SIGNATURE_NAME, decode_release, encode_release
from agent.wire.signature import RELEASE, SigningKey, fingerprint
from agent.wire.trust import Trust, is_trust_path
from gitops import rotation
from gitops.fleet import FleetRepository
from gitops.hub import World
from gitops.hubless import publish_once
from gitops.keys import KeyMissing, Keyring
from gitops.opening import FleetHome, MainSource, open_fleet
from gitops.provenance import current_trust
from gitops.rotation import NothingToRotate, Wish, rotate
from gitops.state_dir import StateDir

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


class Fleet:
    """A published fleet with one cluster."""

    def __init__(self, root: Path) -> None:
        self.root, self.now = root, NOW
        source = root / "models"
        (source / "clusters").mkdir(parents=True)
        (source / "clusters" / "milan-01.yaml").write_text(
            "apiVersion: edgeferry.dev/v1alpha1\nkind: Cluster\nmetadata: {name: milan-01}\n"
        )
        for command in (
            ["init", "--quiet", "--initial-branch=main"],
            ["add", "--all"],
            ["-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "One"],
        ):
            subprocess.run(["git", *command], cwd=source, check=True)
        self.source, self.keys = MainSource(str(source)), root / "keys"
        self.publish()
        self.repository = FleetRepository.open(root / "fleet.git")

    def publish(self) -> None:
        self.now += timedelta(seconds=1)
        publish_once(self.source, FleetHome(str(self.root / "fleet.git")), self.keys, self.root / "store", self.now)

    def rotate(self, **wish: object) -> Trust:
        self.now += timedelta(seconds=1)
        keyring = Keyring.open(self.keys)
        return rotate(self.repository, keyring, self.keys / "root.key", Wish(**wish), self.now)  # type: ignore[arg-type]  # a table of fields

    def overlay(self) -> dict[str, bytes]:
        return dict(self.repository.overlay("milan-01"))


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def take(files: Mapping[str, bytes], trust: Trust, current: tuple[int, str] | None = None) -> Accepted:
    key = SigningKey.generate().fingerprint
    known = {path: data for path, data in files.items() if is_trust_path(path)}
    taken = accept(
        files,
        cluster="milan-01",
        fleet=trust.fleet,
        key_fingerprint=key,
        trust=trust,
        trust_documents=known,
        current=current,
    )
    assert isinstance(taken, Accepted), taken
    return taken


def forged(files: Mapping[str, bytes], key: SigningKey, trust: int) -> dict[str, bytes]:
    """Return an overlay with a higher sequence, signed by a key under a trust."""
    release = replace(decode_release(files[NAME]), sequence=999, trust=trust)
    data, _ = encode_release(release)
    return {**files, NAME: data, SIGNATURE_NAME: key.sign(data, RELEASE)}


def test_a_site_that_slept_through_two_exchanges_follows(fleet: Fleet) -> None:
    first, _ = current_trust(fleet.repository, None)
    site = take(fleet.overlay(), first)
    for _ in range(2):
        fleet.rotate(release=True, root=True)
        fleet.publish()
    following = take(fleet.overlay(), site.trust, (site.release.sequence, site.release.content))
    assert following.trust.number == following.release.trust == 3
    assert following.release.entries == site.release.entries
    assert set(following.trust_files) == {f"trust/{n}.json{end}" for n in (2, 3) for end in ("", ".sig")}


def test_what_a_retired_key_signs_is_refused(fleet: Fleet) -> None:
    stolen = Keyring.open(fleet.keys).release
    first, _ = current_trust(fleet.repository, None)
    take(forged(fleet.overlay(), stolen, 1), first)
    trust = fleet.rotate(release=True)
    fleet.publish()
    site = take(fleet.overlay(), first)
    assert site.trust == trust
    with pytest.raises(TrustWithdrawn):
        take(forged(fleet.overlay(), stolen, 1), trust)
    with pytest.raises(BadSignature):
        take(forged(fleet.overlay(), stolen, 2), trust)


def test_a_running_hub_takes_up_the_new_key(fleet: Fleet, tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    opened = open_fleet(state, fleet.source)
    before = opened.hub.step(World(fleet.now))
    assert before.change is None
    trust = fleet.rotate(release=True)
    head = opened.hub.publish(opened.hub.step(World(fleet.now + timedelta(seconds=1))))
    assert head is not None and opened.hub.trust == trust.number
    assert opened.hub.key.public in trust.release_keys
    assert decode_release(fleet.overlay()[NAME]).trust == 2


@pytest.mark.parametrize("at", ["before the commit", "after the commit"])
def test_an_exchange_that_was_killed_is_repeated(fleet: Fleet, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(rotation, "publish" if at == "before the commit" else "take_place", die)
        with pytest.raises(Killed):
            fleet.rotate(release=True, root=True)
    fleet.publish()  # whatever stands there, the publisher goes on
    number, _ = current_trust(fleet.repository, None)
    assert number.number == (1 if at == "before the commit" else 2)
    trust = fleet.rotate(release=True, root=True)
    fleet.publish()
    assert trust.number == number.number + 1
    assert take(fleet.overlay(), current_trust(fleet.repository, None)[0]).trust == trust
    assert {path.name for path in fleet.keys.iterdir()} == {"release.key", "root.key", "fleet-id", "trust.pin"}


def test_the_root_key_may_lie_elsewhere(fleet: Fleet, tmp_path: Path) -> None:
    stick = tmp_path / "stick" / "root.key"
    stick.parent.mkdir()
    (fleet.keys / "root.key").rename(stick)
    with pytest.raises(KeyMissing, match="--root-key"):
        fleet.rotate(release=True)
    trust = rotate(fleet.repository, Keyring.open(fleet.keys), stick, Wish(root=True), fleet.now)
    assert SigningKey.load(stick.read_bytes(), "x").public in trust.root_keys
    assert not (fleet.keys / "root.key").exists()


def test_model_keys_come_and_go(fleet: Fleet) -> None:
    ada, bob = (SigningKey.generate().public for _ in range(2))
    assert fleet.rotate(model_keys=[f"{ada} ada@example.org", bob]).model_keys == (ada, bob)
    assert fleet.rotate(dropped=[fingerprint(ada)]).model_keys == (bob,)
    for wish in ({}, {"dropped": [fingerprint(ada)]}, {"model_keys": ["ssh-rsa AAAA"]}, {"model_keys": [bob]}):
        with pytest.raises(NothingToRotate):
            fleet.rotate(**wish)
