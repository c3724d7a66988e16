"""Guards: too much at once waits for a person, what is protected stays, and what cannot be read deletes nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gitops.commands import Command
from gitops.demo.documents import cluster, document, placement, version
from gitops.hub import Step, World
from gitops.opening import Opened
from tests.gitops.test_hub import NOW, Repository, opened, release

SITES = tuple(f"site-{n}" for n in range(8))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    one = Repository(tmp_path / "models")
    one.commit({"workloads": None, "clusters": None})
    files: dict[str, Any] = {path: text for name in SITES for path, text in cluster(name, line="weld").items()}
    one.commit({**files, **placement("digits", model="digits")})
    return one


@pytest.fixture
def fleet(tmp_path: Path, repository: Repository) -> Opened:
    """Eight sites with one model."""
    found = opened(tmp_path, repository)
    step(found)
    return found


def step(fleet: Opened, hours: float = 0, *commands: Command) -> Step:
    fleet.sources.look_again()
    found = fleet.hub.step(World(NOW + timedelta(hours=hours), commands=commands))
    fleet.hub.publish(found)
    return found


def running(fleet: Opened) -> dict[str, str]:
    return {name: one.version for name in SITES for one in release(fleet, name).entries}


def protect(name: str) -> dict[str, str]:
    text = placement(name, model="digits")[f"placements/{name}.yaml"]
    return {f"placements/{name}.yaml": text.replace('"labels": {}', '"annotations": {"edgeferry.dev/protect": "true"}')}


def test_removing_too_much_waits_and_says_what_approves_it(fleet: Opened, repository: Repository) -> None:
    repository.commit({"placements/digits.yaml": None})
    found = step(fleet, 1)
    assert found.guarded.hash in found.guarded.sentence() and found.guarded.removals == 8
    assert running(fleet) == dict.fromkeys(SITES, "1.0.0"), "the fleet keeps its state"
    assert step(fleet, 2).guarded.hash == found.guarded.hash, "and so does the question"
    step(fleet, 3, Command("c", "approve", "fleet", "ada", NOW + timedelta(hours=3), "closed", found.guarded.hash))
    assert running(fleet) == {}


def test_a_trailer_of_the_commit_approves_it(fleet: Opened, repository: Repository) -> None:
    repository.commit({"placements/digits.yaml": None})
    name = step(fleet, 1).guarded.hash
    repository.git("commit", "-q", "--allow-empty", "-m", f"Close the plants\n\nEdgeferry-Approve: {name}")
    step(fleet, 2)
    assert running(fleet) == {}


def test_changing_everybody_at_once_waits_and_by_waves_it_does_not(fleet: Opened, repository: Repository) -> None:
    repository.commit(version("digits", "2.0.0"))
    found = step(fleet, 1)
    assert (found.guarded.changes, running(fleet)) == (8, dict.fromkeys(SITES, "1.0.0"))
    waves = {"waves": [{"percent": 10}, {"percent": 100}]}
    repository.commit(placement("digits", model="digits", rollout=waves))
    assert not step(fleet, 2).guarded.hash


def test_what_is_not_held_back_goes_on_beside_it(fleet: Opened, repository: Repository) -> None:
    extra = {**{f"models/letters/{n}": t for n, t in ()}, **version("letters", "1.0.0")}
    model = document("Model", "letters", {"delivery": "server", "runtime": "onnx"})
    repository.commit({**extra, "models/letters/model.yaml": model})
    repository.commit({"placements/digits.yaml": None, **placement("letters", model="letters")})
    assert step(fleet, 1).guarded.hash
    for name in SITES:
        assert {one.name for one in release(fleet, name).entries} == {"digits", "letters"}
    head = fleet.repository.head
    assert step(fleet, 2).change is None and fleet.repository.head == head, "a quiet fleet makes no commits"


def test_few_clusters_are_never_too_much(fleet: Opened, repository: Repository) -> None:
    repository.commit({"clusters/site-7.yaml": None, **placement("digits", model="digits", clusters=[
        {"names": list(SITES[:3])}])})  # fmt: skip
    assert not step(fleet, 1).guarded.hash
    assert running(fleet) == dict.fromkeys(SITES[:3], "1.0.0")


def test_the_same_moves_have_the_same_hash_whatever_else_changes(fleet: Opened, repository: Repository) -> None:
    repository.commit({"placements/digits.yaml": None})
    one = step(fleet, 1).guarded.hash
    repository.commit({"README.md": "other words", **cluster("another", line="pack")})
    assert step(fleet, 30).guarded.hash == one


def test_a_protected_document_cannot_be_deleted_until_it_is_freed(fleet: Opened, repository: Repository) -> None:
    repository.commit(protect("digits"))
    step(fleet, 1)
    repository.commit({"placements/digits.yaml": None})
    held = step(fleet, 2).taken.held["main"]
    assert {fault.code for fault in held.faults} == {"EF1150"}
    assert running(fleet) == dict.fromkeys(SITES, "1.0.0")
    repository.commit(placement("digits", model="digits"))
    step(fleet, 3)
    few = placement("digits", model="digits", clusters=[{"names": ["site-0"]}])
    repository.commit({**few})
    step(fleet, 4)
    repository.commit({"placements/digits.yaml": None})
    assert not step(fleet, 5).taken.held


def test_a_protected_model_is_removed_from_no_cluster(fleet: Opened, repository: Repository) -> None:
    path = repository.folder / "models" / "digits" / "model.yaml"
    text = path.read_text().replace("metadata:", 'metadata:\n  annotations: {edgeferry.dev/protect: "true"}', 1)
    repository.commit({"models/digits/model.yaml": text})
    step(fleet, 1)
    repository.commit(placement("digits", model="digits", clusters=[{"names": list(SITES[1:])}]))
    found = step(fleet, 2)
    assert set(found.guarded.moves.values()) == {"protected"}
    assert running(fleet) == dict.fromkeys(SITES, "1.0.0")


def test_the_last_release_of_a_deleted_cluster_stands_for_ninety_days(fleet: Opened, repository: Repository) -> None:
    repository.commit({"clusters/site-0.yaml": None})
    step(fleet, 1)
    assert release(fleet, "site-0").retire == "keep"
    assert step(fleet, 24 * 89).change is None
    step(fleet, 24 * 91)
    assert fleet.repository.overlay("site-0") == {} and fleet.repository.cluster_commit("site-0") is None
    assert step(fleet, 24 * 92).change is None


def test_the_fleet_says_what_goes_on_at_a_site_that_is_to_have_it_no_more(
    fleet: Opened, repository: Repository
) -> None:
    repository.commit({"fleet.yaml": document("Fleet", "f", {"deletionPolicy": "keep", "retire": "delete"})})
    repository.commit({"clusters/site-0.yaml": None})
    step(fleet, 1)
    assert release(fleet, "site-1").keep and release(fleet, "site-0").retire == "delete"


def test_unreadable_and_empty_change_nothing(tmp_path: Path, fleet: Opened, repository: Repository) -> None:
    repository.folder.rename(tmp_path / "away")
    assert step(fleet, 1).change is None
    (tmp_path / "away").rename(repository.folder)
    repository.git("rm", "-r", "-q", ".")
    repository.commit({"README.md": "gone"})
    found = step(fleet, 2)
    assert found.change is None and found.taken.held
    assert running(fleet) == dict.fromkeys(SITES, "1.0.0")
