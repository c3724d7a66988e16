"""A hub in one file, and back: into either database, whole or not at all; sites that are ahead are not stuck."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.wire.report import Report, encode_report
from gitops.backup import NothingToBackUp, StateNotEmpty, backup, restore
from gitops.hub import World
from gitops.opening import EMBEDDED, MainSource, Opened, open_fleet
from gitops.state_dir import StateDir
from gitops.store import Audit, JoinToken, Store
from gitops.store.dump import BadDump
from gitops.store.opening import open_store
from tests.gitops.store.conftest import database, open_again, postgres  # noqa: F401  # fixtures

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
CLUSTER = "apiVersion: edgeferry.dev/v1alpha1\nkind: Cluster\nmetadata: {name: milan-01, labels: {n: '%d'}}\n"


def push(source: Path, number: int) -> None:
    (source / "clusters").mkdir(parents=True, exist_ok=True)
    (source / "clusters" / "milan-01.yaml").write_text(CLUSTER % number)
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "--all"],
        ["-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", f"{number}"],
    ):
        subprocess.run(["git", *command], cwd=source, check=True)


class Hub:
    def __init__(self, root: Path, source: Path, where: str = "") -> None:
        self.state = StateDir(root)
        self.state.make()
        self.where = where or str(self.state.database)
        self.source = MainSource(str(source))
        self.now = NOW

    def open(self) -> Opened:
        return open_fleet(self.state, self.source, EMBEDDED)

    def publish(self, world: World | None = None) -> str | None:
        opened = self.open()
        self.now += timedelta(seconds=1)
        return opened.hub.publish(opened.hub.step(replace(world or World(self.now), now=self.now)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    push(tmp_path / "models", 1)
    return tmp_path / "models"


def fill(store: Store) -> tuple[object, ...]:
    store.add_token(JoinToken(b"t", "milan-01", NOW + timedelta(hours=1), {"a": "b"}), "ann", NOW)
    store.join(b"t", "milan-01", "ssh-ed25519 A", (), NOW)
    report = Report("f", "milan-01", "i1", 1, NOW, sequence=9)
    store.put_report("milan-01", report, encode_report(report), NOW)
    store.note(Audit(NOW, "ann", "deed", "x", "192.0.2.1"))
    return content(store)


def content(store: Store) -> tuple[object, ...]:
    audits = [one for _, one in store.audits(10)]
    return store.registrations(), store.latest_reports(), store.highest_sequences(), audits, store.identities()


@pytest.mark.parametrize("to_file", [True, False], ids=["into a file", "into the same kind"])
def test_a_backup_restores_keys_database_and_fleet(
    database: str,  # noqa: F811  # the fixture
    source: Path,
    tmp_path: Path,
    to_file: bool,
) -> None:
    hub = Hub(tmp_path / "hub", source, database)
    head = hub.publish()
    store = open_store(hub.where)
    before = fill(store)
    store.close()
    out = tmp_path / "hub.tar.gz"
    assert backup(hub.state, hub.where, out) == out.stat().st_size
    assert out.stat().st_mode & 0o777 == 0o600
    other = StateDir(tmp_path / "other")
    where = str(other.database) if to_file else database
    assert restore(other, where, out) > 0
    store = open_store(where)
    assert content(store) == before
    store.close()
    assert Hub(other.root, source).open().repository.head == head
    for path in hub.state.keys.iterdir():
        assert (other.keys / path.name).read_bytes() == path.read_bytes()
        assert (other.keys / path.name).stat().st_mode & 0o777 == 0o600


def test_a_restore_does_not_touch_what_is_there(source: Path, tmp_path: Path) -> None:
    hub = Hub(tmp_path / "hub", source)
    hub.publish()
    open_store(hub.where).close()
    backup(hub.state, "", tmp_path / "b")
    with pytest.raises(StateNotEmpty):
        restore(hub.state, "", tmp_path / "b")
    with pytest.raises(NothingToBackUp):
        backup(StateDir(tmp_path / "nowhere"), "", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def foreign(path: Path) -> None:
    with tarfile.open(path, "w:gz") as tar:
        tar.add(__file__, "../../escape")


@pytest.mark.parametrize(
    "damage", [cut, foreign, lambda path: path.write_bytes(b"no tar")], ids=["cut", "foreign", "no"]
)
def test_a_damaged_backup_is_refused_and_leaves_no_keys(
    source: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    hub = Hub(tmp_path / "hub", source)
    hub.publish()
    open_store(hub.where).close()
    backup(hub.state, "", tmp_path / "b")
    damage(tmp_path / "b")
    with pytest.raises(BadDump):
        restore(StateDir(tmp_path / "other"), "", tmp_path / "b")
    assert not (tmp_path / "other" / "keys" / "fleet-id").exists()
    assert not (tmp_path / "escape").exists()


@pytest.mark.parametrize("ahead", ["by number", "by content"])
def test_after_an_old_fleet_repository_a_site_that_is_ahead_gets_its_release_anew(
    source: Path, tmp_path: Path, ahead: str
) -> None:
    hub = Hub(tmp_path / "hub", source)
    hub.publish()
    opened = hub.open()
    opened.hub.step(World(hub.now))
    old = opened.hub.published["milan-01"]
    sequence, content_ = (
        (old.sequence + 6, old.content) if ahead == "by number" else (old.sequence, "sha256:" + "e" * 64)
    )
    report = Report(opened.keyring.fleet_id, "milan-01", "i", 1, NOW, sequence=sequence, content=content_)
    world = World(hub.now, highest={"milan-01": sequence}, reports={"milan-01": (report, NOW)})
    step = opened.hub.step(world)
    assert step.changed["milan-01"].sequence == sequence + 1
    opened.hub.publish(step)
    assert opened.hub.step(world).change is None, "once is enough"
