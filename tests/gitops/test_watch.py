"""Whatever wakes the hub wakes it once, with all the reasons, and nothing is lost while it works."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitops.watch import FOLDER, POLL, Watch, local_git_folder

LONG_S = 60.0
IDENTITY = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")


def git(path: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(path), *IDENTITY, *arguments], capture_output=True, check=True)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(path)], check=True)
    git(path, "commit", "--quiet", "--allow-empty", "-m", "first")
    return path


@pytest.fixture
def watch(models: Path) -> Iterator[Watch]:
    found = Watch(poll_s=LONG_S, folder=local_git_folder(str(models)))
    yield found
    found.close()


def test_signals_that_come_together_are_one() -> None:
    watch = Watch(poll_s=LONG_S)
    for reason in ("hook", "report", "hook"):
        watch.poke(reason)
    assert watch.wait() == {"hook", "report"}
    assert watch.wait(0) == frozenset()


def test_a_signal_while_the_hub_works_is_not_lost() -> None:
    watch = Watch(poll_s=LONG_S)
    watch.poke("one")
    assert watch.wait() == {"one"}
    watch.poke("two")
    assert watch.wait() == {"two"}


def test_a_signal_from_another_thread_wakes() -> None:
    watch = Watch(poll_s=LONG_S)
    found: list[frozenset[str]] = []
    thread = threading.Thread(target=lambda: found.append(watch.wait()))
    thread.start()
    watch.poke("hook")
    thread.join(LONG_S)
    assert found == [{"hook"}]


def test_without_a_signal_there_is_a_look_every_so_often() -> None:
    watch = Watch(poll_s=0.01)
    assert watch.wait() == {POLL}
    assert watch.wait() == {POLL}


@pytest.mark.parametrize(("chance", "least", "most"), [(0.0, 80, 80.1), (0.5, 99.9, 100.1), (1.0, 119.9, 120)])
def test_pauses_differ_by_the_jitter(chance: float, least: float, most: float) -> None:
    assert least <= Watch(poll_s=100, jitter=0.2, chance=lambda: chance)._pause() <= most


def test_a_timeout_returns_nothing() -> None:
    assert Watch(poll_s=LONG_S).wait(0.01) == frozenset()


def test_close_ends_a_wait() -> None:
    watch = Watch(poll_s=LONG_S)
    thread = threading.Thread(target=watch.wait)
    thread.start()
    watch.close()
    thread.join(LONG_S)
    assert not thread.is_alive()
    assert watch.wait() == frozenset()


def test_a_commit_in_a_folder_wakes(watch: Watch, models: Path) -> None:
    git(models, "commit", "--quiet", "--allow-empty", "-m", "second")
    assert watch.wait() == {FOLDER}


def test_a_push_to_a_bare_repository_wakes(models: Path, tmp_path: Path) -> None:
    bare = tmp_path / "models.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(bare)], check=True)
    watch = Watch(poll_s=LONG_S, folder=local_git_folder(str(bare)))
    git(models, "push", "--quiet", str(bare), "main")
    assert watch.wait() == {FOLDER}
    drain(watch)
    git(bare, "pack-refs", "--all")
    assert watch.wait() == {FOLDER}
    drain(watch)
    git(models, "commit", "--quiet", "--allow-empty", "-m", "second")
    git(models, "push", "--quiet", str(bare), "main")
    assert watch.wait() == {FOLDER}
    watch.close()


def test_a_commit_in_a_linked_work_tree_wakes(models: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    git(models, "worktree", "add", "--quiet", "-b", "side", str(linked))
    watch = Watch(poll_s=LONG_S, folder=local_git_folder(str(linked)))
    git(linked, "commit", "--quiet", "--allow-empty", "-m", "second")
    assert watch.wait() == {FOLDER}
    watch.close()


def drain(watch: Watch) -> None:
    """Take what is still under way: a commit touches several files."""
    while watch.wait(0.2):
        pass


def test_reading_and_editing_files_does_not_wake(watch: Watch, models: Path) -> None:
    drain(watch)
    git(models, "log")
    git(models, "status")
    (models / "README.md").write_text("not committed")
    (models / ".git" / "description").write_text("x")
    deadline = time.monotonic() + 0.3
    found: set[str] = set()
    while time.monotonic() < deadline:
        found |= watch.wait(0.05)
    assert not found


@pytest.mark.parametrize("url", ["https://git.example/m.git", "git@h.example:m.git", "file:///x"])
def test_only_a_repository_on_this_machine_is_watched(url: str, tmp_path: Path) -> None:
    assert local_git_folder(url) is None
    assert local_git_folder(str(tmp_path)) is None
    assert local_git_folder(str(tmp_path / "none")) is None


def test_a_folder_that_cannot_be_watched_is_polled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(poll_s=0.01, folder=tmp_path / "none")
    assert watch.wait() == {POLL}
    assert "polling" in caplog.text
    watch.close()
