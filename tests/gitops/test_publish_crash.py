"""Whatever ends a publisher, readers see the state before or the state after, and the next one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pygit2
import pytest

from gitops.fleet import FleetRepository, cluster_path
from gitops.keys import Keyring, first_trust
from gitops.provenance import verify_head
from gitops.publish import Change, publish
from tests.gitops import publisher
from tests.gitops.publisher import AT, CLUSTERS, change


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.open(tmp_path / "keys", create=True)


@pytest.fixture
def fleet(tmp_path: Path, keyring: Keyring) -> FleetRepository:
    fleet = FleetRepository.open(tmp_path / "fleet.git", create=True)
    head = publish(fleet, Change({}, first_trust(keyring), "Trust", AT), keyring.release, None)
    publish(fleet, change(1), keyring.release, head)
    return fleet


def start(fleet: FleetRepository, keyring: Keyring, first: int, count: int, how: str) -> subprocess.Popen[str]:
    command = [sys.executable, publisher.__file__, str(fleet.path), str(keyring.directory), str(first), str(count), how]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def consistent(path: Path) -> int:
    """Return the number that all of a snapshot shows, read as stock git would."""
    repository = pygit2.Repository(str(path))
    while True:  # one snapshot: the references did not change while they were read (an inode's number may come back)
        before = (path / "packed-refs").read_bytes()
        main = repository.references["refs/heads/main"].peel(pygit2.Commit)
        found = {repository.references[f"refs/heads/cluster/c{n:02d}"].peel(pygit2.Tree).id for n in range(CLUSTERS)}
        if (path / "packed-refs").read_bytes() == before:
            break
    trees = {main.tree[cluster_path(f"c{n:02d}")].id for n in range(CLUSTERS)}
    numbers = {repository[tree]["release.json"].data for tree in trees | found}
    numbers.add(main.tree["decisions/number"].data)
    assert len(numbers) == 1, f"mixed: {numbers}"
    return int(numbers.pop())


def sound(fleet: FleetRepository, keyring: Keyring) -> int:
    done = subprocess.run(["git", "-C", str(fleet.path), "fsck", "--strict"], capture_output=True, text=True)
    assert done.returncode == 0 and "missing" not in done.stdout and "error" not in done.stderr, done.stderr
    verify_head(FleetRepository.open(fleet.path), keyring)
    return consistent(fleet.path)


def test_killed_at_any_touch_of_the_file_system(fleet: FleetRepository, keyring: Keyring) -> None:
    number, touch, died = 1, 1, 0
    while True:
        process = start(fleet, keyring, number + 1, 1, f"kill:{touch}")
        process.communicate()
        now = consistent(fleet.path)
        assert now in (number, number + 1)
        if process.returncode == 0:
            assert now == number + 1
            break
        assert process.returncode == -signal.SIGKILL
        number, touch, died = now, touch + 1, died + 1
    assert died >= 8, "the hook saw the publication"
    assert sound(fleet, keyring) == number + 1
    head = publish(fleet, change(1000), keyring.release, fleet.head)
    assert fleet.head == head and sound(fleet, keyring) == 1000
    left = {path.name for path in fleet.path.rglob("*") if "tmp" in path.name or path.name.endswith((".lock", ".new"))}
    assert left == {"edgeferry.lock"}


def test_killed_at_any_time(fleet: FleetRepository, keyring: Keyring) -> None:
    last = 1
    for attempt in range(8):
        process = start(fleet, keyring, last + 1, 10_000, "run")
        assert process.stdout is not None
        for _ in range(1 + attempt * 3):  # let it publish some, and kill it in whatever it does then
            last = int(process.stdout.readline())
        process.kill()
        process.communicate()
        now = consistent(fleet.path)
        assert now >= last, "what was announced stays"
        last = now
    assert sound(fleet, keyring) == last


@pytest.mark.parametrize("limit", [0, 100, 1500, 3000])
def test_a_full_disk_leaves_the_head_as_it_was(fleet: FleetRepository, keyring: Keyring, limit: int) -> None:
    head = fleet.head
    process = start(fleet, keyring, 2, 1, f"limit:{limit}")
    _, said = process.communicate()
    assert process.returncode == 1 and "FleetUnwritable" in said and "File too large" in said
    assert fleet.head == head and sound(fleet, keyring) == 1
    process = start(fleet, keyring, 2, 1, "run")
    process.communicate()
    assert sound(fleet, keyring) == 2


def test_two_processes_and_a_reader_never_see_or_make_a_mixture(fleet: FleetRepository, keyring: Keyring) -> None:
    stop = threading.Event()

    def read() -> list[int]:
        seen = []
        while not stop.is_set():
            seen.append(consistent(fleet.path))
        return seen

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        both = [start(fleet, keyring, 10 + n * 1000, 60, "run") for n in range(2)]
        published = sum(len(process.communicate()[0].splitlines()) for process in both)
        stop.set()
    seen = reader.result()
    assert all(process.returncode == 0 for process in both)
    assert published >= 60 and len(set(seen)) > 2
    command = ["git", "-C", str(fleet.path), "rev-list", "--count", "main"]
    assert int(subprocess.run(command, capture_output=True, check=True).stdout) == published + 2
    sound(fleet, keyring)


def test_stock_git_writing_at_the_same_time_loses_nothing(fleet: FleetRepository, keyring: Keyring) -> None:
    process = start(fleet, keyring, 2, 60, "run")
    made = []
    for n in range(30):
        name = f"refs/tags/t{n}"
        subprocess.run(["git", "-C", str(fleet.path), "update-ref", name, str(fleet.head)], check=True)
        done = subprocess.run(["git", "-C", str(fleet.path), "pack-refs", "--all"], capture_output=True, check=False)
        made.append((name, done.returncode))
    out, said = process.communicate()
    assert process.returncode == 0, said
    assert sound(fleet, keyring) == int(out.splitlines()[-1])
    tags = subprocess.run(["git", "-C", str(fleet.path), "tag"], capture_output=True, check=True, text=True).stdout
    assert len(tags.split()) == 30
