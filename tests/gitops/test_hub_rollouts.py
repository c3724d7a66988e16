"""The hub leads rollouts: only who is to move gets the new entry, a revert restores what was, people are heard."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.wire.release import Release, decode_release
from agent.wire.report import EntryReport, Report
from gitops.commands import Command
from gitops.demo.documents import cluster, document, placement, version
from gitops.hub import Step, World
from gitops.opening import Opened
from gitops.rollout_records import decode_rollout
from tests.gitops.test_hub import NOW, Repository, opened

SITES = tuple(f"site-{n}" for n in range(6))
ROLLOUT: dict[str, Any] = {
    "waves": [{"name": "canary", "matchLabels": {"tier": "canary"}}, {"percent": 50}, {"percent": 100}],
    "soak": "10m",
}


@dataclass
class Sites:
    """A fleet of sites that say what they run; nothing of them is real but what they say."""

    fleet: Opened
    now: datetime = NOW
    broken: dict[str, str] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    running: dict[str, dict[tuple[str, str], tuple[str, str, datetime]]] = field(default_factory=dict)

    def release(self, name: str) -> Release:
        return decode_release(self.fleet.repository.overlay(name)["release.json"])

    def versions(self, model: str = "digits") -> dict[str, str]:
        return {n: one.version for n in SITES for one in self.release(n).entries if one.name == model}

    def world(self, commands: Iterable[Command] = ()) -> World:
        reports, seen = {}, {}
        for name in SITES:
            if name in self.silent:
                continue
            seen[name] = self.now
            known = self.running.setdefault(name, {})
            entries = []
            for one in self.release(name).entries if self.fleet.repository.head else ():
                key = (one.kind, one.name)
                failed = self.broken.get(name) == one.version
                if not failed and known.get(key, ("",))[0] != one.digest:
                    known[key] = (one.digest, one.version, self.now)
                digest, runs, since = known.get(key, ("", "", self.now))
                health: Any = "current" if digest else "degraded"
                why = ("EF4062", "it came up broken") if failed else ("", "")
                entries.append(
                    EntryReport(
                        one.kind, one.name, runs, digest, one.digest, health, since, *why, failed=failed, since=since
                    )
                )
            report = Report("fleet", name, "i", 1, self.now, entries=tuple(entries))
            reports[name] = (report, self.now)
        return World(self.now, reports=reports, seen=seen, commands=tuple(commands))

    def step(self, minutes: float = 0.0, *commands: Command) -> Step:
        self.now += timedelta(minutes=minutes)
        self.fleet.sources.look_again()
        found = self.fleet.hub.step(self.world(commands))
        self.fleet.hub.publish(found)
        return found

    def settle(self, minutes: float = 11.0, most: int = 20) -> None:
        for _ in range(most):
            self.step()
            if self.step(minutes).change is None and self.step(minutes).change is None:
                return

    def order(self, verb: Any, object_: str, argument: str = "") -> Step:
        return self.step(1, Command(f"c{self.now:%H%M%S}", verb, object_, "ada", self.now, "because", argument))

    def phase(self, name: str = "digits") -> str:
        record = decode_rollout(name, self.fleet.repository.walk(f"decisions/{name}"))
        return "" if record is None else record.state.phase

    def message(self) -> str:
        return self.fleet.repository.commit(self.fleet.repository.head or "").decode()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    one = Repository(tmp_path / "models")
    files: dict[str, Any] = {"workloads": None, "clusters": None}
    one.commit(files)
    labels = {name: "canary" if name == "site-0" else "prod" for name in SITES}
    one.commit({path: text for name in SITES for path, text in cluster(name, tier=labels[name]).items()})
    one.commit(placement("digits", model="digits", rollout=ROLLOUT))
    return one


@pytest.fixture
def sites(tmp_path: Path, repository: Repository) -> Sites:
    """Six sites, all at 1.0.0."""
    found = Sites(opened(tmp_path, repository))
    found.settle()
    assert set(found.versions().values()) == {"1.0.0"} and len(found.versions()) == 6
    return found


def test_a_new_version_goes_by_waves_and_only_who_moves_is_published(sites: Sites, repository: Repository) -> None:
    others = {name: sites.fleet.repository.cluster_commit(name) for name in SITES[1:]}
    repository.commit(version("digits", "2.0.0"))
    sites.step()
    assert sites.versions() == {**dict.fromkeys(SITES, "1.0.0"), "site-0": "2.0.0"}
    assert {name: sites.fleet.repository.cluster_commit(name) for name in SITES[1:]} == others
    assert sites.step(1).change is None and sites.step(5).change is None, "the soak is not over"
    sites.step(6)
    assert list(sites.versions().values()).count("2.0.0") == 3
    sites.settle()
    assert set(sites.versions().values()) == {"2.0.0"} and sites.phase() == "complete"


def test_time_alone_wakes_the_hub(sites: Sites, repository: Repository) -> None:
    repository.commit(version("digits", "2.0.0"))
    sites.step()
    found = sites.step(1)
    assert found.next_at is not None and found.next_at <= sites.now + timedelta(minutes=10)


def test_a_bad_version_is_taken_back_in_one_commit_that_touches_nothing_else(
    sites: Sites, repository: Repository
) -> None:
    before = {name: sites.release(name) for name in SITES}
    commits = {name: sites.fleet.repository.cluster_commit(name) for name in SITES}
    sites.broken["site-0"] = "2.0.0"
    repository.commit(version("digits", "2.0.0"))
    sites.step()
    head = sites.fleet.repository.head
    found = sites.step(1)
    assert sites.phase() == "reverted"
    assert [one.cluster for one in found.moves] == ["site-0"]
    assert sites.release("site-0").entries == before["site-0"].entries, "the exact entries from before"
    assert sites.release("site-0").sequence == before["site-0"].sequence + 2
    assert sites.release("site-0").returns == ("model/digits",), "windows do not hold it up"
    assert {name: sites.fleet.repository.cluster_commit(name) for name in SITES[1:]} == {
        name: commits[name] for name in SITES[1:]
    }
    assert "Revert rollout" in sites.message() and "site-0" in sites.message() and "Source-Commit" in sites.message()
    assert head != sites.fleet.repository.head
    sites.settle()
    assert set(sites.versions().values()) == {"1.0.0"}, "it is held"
    repository.commit(version("digits", "2.1.0"))
    sites.settle()
    assert set(sites.versions().values()) == {"2.1.0"}, "another version goes through"


def test_a_failed_target_is_tried_again_when_a_person_says_so(sites: Sites, repository: Repository) -> None:
    sites.broken["site-0"] = "2.0.0"
    repository.commit(version("digits", "2.0.0"))
    sites.step()
    sites.step(1)
    assert sites.phase() == "reverted"
    del sites.broken["site-0"]
    sites.order("retry", "rollout/digits", "2")
    assert sites.versions()["site-0"] == "2.0.0"
    assert sites.release("site-0").retries.keys() == {"model/digits"}
    sites.settle()
    assert set(sites.versions().values()) == {"2.0.0"} and not sites.release("site-0").retries


@pytest.mark.parametrize("after", range(6))
def test_a_hub_that_dies_at_any_step_goes_on(tmp_path: Path, sites: Sites, repository: Repository, after: int) -> None:
    repository.commit(version("digits", "2.0.0"))
    for n in range(14):
        if n == after:
            sites.fleet = opened(tmp_path, repository)
        sites.step(6)
    assert set(sites.versions().values()) == {"2.0.0"} and sites.phase() == "complete"


def test_replayed_the_same_steps_give_the_same_commits(tmp_path: Path, repository: Repository) -> None:
    heads = []
    for name in ("one", "two"):
        if name == "two":
            (tmp_path / "two").mkdir()
            (tmp_path / "one" / "keys").rename(tmp_path / "two" / "keys")
        found = Sites(opened(tmp_path, repository, name))
        found.broken["site-3"] = "1.0.0"
        seen = []
        for _ in range(10):
            found.step(6)
            seen.append(found.fleet.repository.head)
        heads.append(seen)
    assert heads[0] == heads[1]


def test_a_silent_site_is_deferred_and_has_it_when_it_is_back(sites: Sites, repository: Repository) -> None:
    sites.silent = {"site-4"}
    sites.step(30)
    repository.commit(version("digits", "2.0.0"))
    sites.settle()
    assert sites.phase() == "complete"
    assert sites.versions() == {**dict.fromkeys(SITES, "2.0.0"), "site-4": "1.0.0"}
    sites.silent = set()
    sites.settle()
    assert set(sites.versions().values()) == {"2.0.0"}


def test_a_change_of_values_alone_goes_by_the_same_waves(sites: Sites, repository: Repository) -> None:
    path = repository.folder / "models" / "digits" / "model.yaml"
    repository.commit({"models/digits/model.yaml": path.read_text().replace('"0.6"', '"0.9"')})
    found = sites.step()
    assert [one.cluster for one in found.moves] == ["site-0"]


def test_a_new_target_replaces_the_one_under_way(sites: Sites, repository: Repository) -> None:
    repository.commit(version("digits", "2.0.0"))
    sites.step()
    repository.commit(version("digits", "2.1.0"))
    sites.broken["site-0"] = "2.1.0"
    sites.step(1)
    assert sites.versions()["site-0"] == "2.1.0"
    sites.step(1)
    assert set(sites.versions().values()) == {"1.0.0"}, "what was not proven is no way back"


def test_pause_freeze_and_approval_wait_for_people(sites: Sites, repository: Repository) -> None:
    waves = [{"name": "canary", "matchLabels": {"tier": "canary"}}, {"percent": 100, "approve": True}]
    sites.order("freeze", "fleet")
    repository.commit({**version("digits", "2.0.0"), **placement("digits", model="digits", rollout={"waves": waves})})
    sites.step(1)
    assert set(sites.versions().values()) == {"1.0.0"}
    sites.order("thaw", "fleet")
    sites.settle()
    assert list(sites.versions().values()).count("2.0.0") == 1, "the second wave asks"
    sites.order("pause", "placement/digits")
    sites.order("approve", "rollout/digits", "2/1")
    sites.settle()
    assert list(sites.versions().values()).count("2.0.0") == 1
    sites.order("resume", "placement/digits")
    sites.settle()
    assert set(sites.versions().values()) == {"2.0.0"}
    assert len(sites.fleet.repository.walk("commands")) == 5


def test_abort_takes_back_what_was_moved(sites: Sites, repository: Repository) -> None:
    repository.commit(version("digits", "2.0.0"))
    sites.step()
    sites.order("abort", "rollout/digits", "2")
    assert set(sites.versions().values()) == {"1.0.0"} and sites.phase() == "reverted"


def test_a_paused_cluster_keeps_what_it_has_and_holds_up_nobody(sites: Sites, repository: Repository) -> None:
    repository.commit({"clusters/site-5.yaml": document("Cluster", "site-5", {"paused": True})})
    repository.commit(version("digits", "2.0.0"))
    sites.settle()
    assert sites.phase() == "complete"
    assert sites.versions() == {**dict.fromkeys(SITES, "2.0.0"), "site-5": "1.0.0"}


def test_a_carried_cluster_has_its_target_when_its_wave_is_done(sites: Sites, repository: Repository) -> None:
    repository.commit({"clusters/site-5.yaml": document("Cluster", "site-5", {"connection": "carried"})})
    sites.silent = {"site-5"}
    repository.commit(version("digits", "2.0.0"))
    sites.step(1)
    assert sites.versions()["site-5"] == "1.0.0"
    sites.settle()
    assert set(sites.versions().values()) == {"2.0.0"} and sites.phase() == "complete"


def test_windows_stand_in_the_release(sites: Sites, repository: Repository) -> None:
    windows = [{"days": ["sat"], "from": "02:00", "to": "05:00", "timezone": "Europe/Rome"}]
    repository.commit({"clusters/site-5.yaml": document("Cluster", "site-5", {"windows": windows})})
    sites.step(1)
    assert [one.timezone for one in sites.release("site-5").windows] == ["Europe/Rome"]


def test_the_rollout_stands_in_the_fleet_repository(sites: Sites, repository: Repository) -> None:
    repository.commit(version("digits", "2.0.0"))
    sites.step()
    head = json.loads(sites.fleet.repository.read("decisions/digits/rollout.json") or b"")
    assert (head["number"], head["phase"], head["wave"]) == (2, "rolling", 0)
    assert len(sites.fleet.repository.walk("decisions/digits/entries")) == 1
