"""Packs are merged under readers and writers, and nothing that is needed is lost."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gitops.fleet import FleetRepository
from gitops.keys import Keyring, first_trust
from gitops.publish import Change, FleetUnwritable, publish
from gitops.upkeep import drop_unreferenced, merge_packs

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.open(tmp_path / "keys", create=True)


@pytest.fixture
def fleet(tmp_path: Path, keyring: Keyring) -> FleetRepository:
    fleet = FleetRepository.open(tmp_path / "fleet.git", create=True)
    head = publish(fleet, Change({}, first_trust(keyring), "Trust", AT), keyring.release, None)
    for n in range(12):
        change = Change({"a": {"release.json": b"%d" % n}, "b": {"release.json": b"b%d" % (n // 6)}}, {}, "Go", AT)
        head = publish(fleet, change, keyring.release, head)
    return fleet


def packs(fleet: FleetRepository) -> int:
    return len(list((fleet.path / "objects" / "pack").glob("*.pack")))


def test_packs_are_merged_only_when_there_are_many(fleet: FleetRepository) -> None:
    before = packs(fleet)
    assert not merge_packs(fleet.path, most=before)
    assert merge_packs(fleet.path, most=before - 1)
    assert packs(fleet) < before


@pytest.mark.parametrize("upkeep", [lambda path: merge_packs(path, 1), drop_unreferenced], ids=["merge", "drop"])
def test_readers_and_the_publisher_go_on(fleet: FleetRepository, keyring: Keyring, upkeep) -> None:  # type: ignore[no-untyped-def]  # one of two
    readers = [FleetRepository.open(fleet.path) for _ in range(3)]
    readers[0].overlay("b")
    readers[1].head  # noqa: B018  # it knows the references, and no pack yet
    upkeep(fleet.path)
    for reader in (*readers, fleet):
        assert reader.overlay("a")["release.json"] == b"11" and len(dict(reader.releases())) == 2
    head = publish(fleet, Change({"a": {"release.json": b"0"}}, {}, "Back", AT), keyring.release, fleet.head)
    assert [reader.head for reader in readers] == [head] * 3
    assert all(reader.overlay("a")["release.json"] == b"0" for reader in readers)
    done = subprocess.run(["git", "-C", str(fleet.path), "fsck", "--strict"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_history_stays_whole(fleet: FleetRepository) -> None:
    command = ["git", "-C", str(fleet.path), "log", "--patch", "--format=%H", "main"]
    before = subprocess.run(command, capture_output=True, check=True).stdout
    merge_packs(fleet.path, 1)
    drop_unreferenced(fleet.path)
    assert subprocess.run(command, capture_output=True, check=True).stdout == before


def test_a_failure_is_named_and_harmless(fleet: FleetRepository) -> None:
    (fleet.path / "objects" / "pack").rename(fleet.path / "objects" / "aside")
    (fleet.path / "objects" / "pack").write_bytes(b"")
    with pytest.raises(FleetUnwritable):
        drop_unreferenced(fleet.path)
