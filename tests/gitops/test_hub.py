"""The hub's step: replayed, it gives the same commits; quiet, it publishes nothing; a fault holds back only itself."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.wire.errors import EdgeferryError
from agent.wire.release import decode_release
from agent.wire.signature import SigningKey
from gitops.cli.init import init
from gitops.demo.documents import cluster, document, model, placement, version
from gitops.faults import FaultyCatalog
from gitops.hub import World
from gitops.hubless import plan_of, publish_once
from gitops.opening import FleetHome, MainSource, Opened, open_fleet
from gitops.publish import FleetMoved
from gitops.remote import HostUnreachable
from gitops.state_dir import StateDir
from tests.cluster.fixtures import kubectl_or_skip

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Repository:
    """A model repository that people edit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        assert init.callback is not None
        init.main([str(folder)], standalone_mode=False)
        self.git("config", "user.name", "Ada")
        self.git("config", "user.email", "ada@example.org")
        self.commit({})

    def git(self, *arguments: str) -> str:
        environment = {
            "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
            "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
            "PATH": "/usr/bin:/bin",
        }
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, capture_output=True, text=True, check=True, env=environment
        )
        return done.stdout.strip()

    def commit(self, files: dict[str, Any]) -> str:
        for path, content in files.items():
            target = self.folder / path
            if content is None:
                self.git("rm", "-r", "-q", path)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "edit")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


def opened(tmp_path: Path, repository: Repository, name: str = "hub") -> Opened:
    state = StateDir(tmp_path / name)
    state.make()
    return open_fleet(state, MainSource(str(repository.folder)))


def step(fleet: Opened, at: datetime = NOW, **world: Any) -> str | None:
    fleet.sources.look_again()
    return fleet.hub.publish(fleet.hub.step(World(at, **world)))


def release(fleet: Opened, name: str) -> Any:
    return decode_release(fleet.repository.overlay(name)["release.json"])


def versions(fleet: Opened, name: str) -> dict[str, str]:
    return {entry.name: entry.version for entry in release(fleet, name).entries}


def test_the_template_is_published_as_its_placement_says(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    assert step(fleet) is not None
    assert versions(fleet, "milan-01") == {"digits": "1.0.0", "digit-reader": "1.0.0"}
    assert versions(fleet, "turin-01") == {}


def test_the_template_s_chart_goes_to_clusters_and_is_refused_for_hosts_with_the_reason(
    tmp_path: Path, repository: Repository
) -> None:
    kubernetes = cluster("lyon-01", **{"edgeferry.dev/platform": "kubernetes"})
    host = cluster("milan-01", **{"edgeferry.dev/platform": "host"})
    repository.commit({**kubernetes, **host, **placement("digits-chart", model="digits-chart")})
    fleet = opened(tmp_path, repository)
    step(fleet)
    (entry,) = release(fleet, "lyon-01").entries
    assert (entry.delivery, entry.requires, entry.release) == ("chart", ("chart",), "digits-chart")
    assert [one.ref for one in entry.artifacts] == ["hub://charts/models/digits-chart", "hub://models/digits-chart"]
    assert entry.values["env.threshold"] == "0.6"
    assert all(fleet.artifacts.has(blob) for one in entry.artifacts for blob in fleet.artifacts.blobs_of(one.digest))
    assert "digits-chart" not in versions(fleet, "milan-01")
    decision = json.loads(fleet.repository.read("decisions/digits-chart/decision.json") or b"")
    assert "chart" in json.dumps(decision["refused"])


def test_a_rerun_publishes_nothing_also_by_another_process(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    head = step(fleet)
    assert step(fleet, NOW + timedelta(days=1)) is None
    again = opened(tmp_path, repository)
    assert step(again, NOW + timedelta(days=2)) is None
    assert again.repository.head == head


def test_a_readme_edit_publishes_nothing(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    step(fleet)
    repository.commit({"README.md": "other words"})
    assert step(fleet) is None


def test_the_same_inputs_give_the_same_commit_ids(tmp_path: Path, repository: Repository) -> None:
    first = opened(tmp_path, repository, "one")
    second_state = StateDir(tmp_path / "two")
    second_state.make()
    (tmp_path / "one" / "keys").rename(tmp_path / "two" / "keys")
    heads = [step(first)]
    second = opened(tmp_path, repository, "two")
    heads.append(step(second))
    assert heads[0] == heads[1] is not None
    repository.commit({**version("digits", "2.0.0")})
    later = NOW + timedelta(hours=1)
    assert step(first, later) == step(second, later) is not None


def test_only_clusters_that_change_get_a_new_release(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    step(fleet)
    before = fleet.repository.cluster_commit("lyon-01")
    repository.commit(placement("digits", model="digits", clusters=[{"names": ["milan-01", "turin-01"]}]))
    step(fleet, NOW + timedelta(hours=1))
    assert versions(fleet, "turin-01")["digits"] == "1.0.0"
    assert release(fleet, "turin-01").sequence == 2
    assert fleet.repository.cluster_commit("lyon-01") == before


def test_a_faulty_commit_is_not_used_and_the_last_faultless_one_stays(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    step(fleet)
    bad = repository.commit({"placements/digits.yaml": "kind: Placement\n", "clusters/milan-01.yaml": None})
    fleet.sources.look_again()
    found = fleet.hub.step(World(NOW))
    assert found.change is None
    assert found.taken.held["main"].revision == bad
    restarted = opened(tmp_path, repository)
    restarted.sources.look_again()
    assert restarted.hub.step(World(NOW)).change is None
    repository.commit(placement("digits", model="digits") | cluster("milan-01"))
    assert step(fleet) is not None


def test_the_first_commit_must_be_faultless(tmp_path: Path, repository: Repository) -> None:
    repository.commit({"placements/digits.yaml": "apiVersion: edgeferry.dev/v1alpha1\nkind: Placement\n"})
    with pytest.raises(FaultyCatalog):
        step(opened(tmp_path, repository))


def test_a_published_version_that_changes_holds_the_source(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    step(fleet)
    repository.commit({"models/digits/versions/1.0.0/digits.onnx": b"other bytes"})
    fleet.sources.look_again()
    found = fleet.hub.step(World(NOW))
    assert found.change is None
    assert "EF1023" in {fault.code for fault in found.taken.held["main"].faults}


def test_two_placements_that_claim_the_same_hold_the_commit_and_priority_settles_it(
    tmp_path: Path, repository: Repository
) -> None:
    fleet = opened(tmp_path, repository)
    step(fleet)
    repository.commit({**version("digits", "2.0.0"), **placement("other", model="digits", version="2.0.0")})
    fleet.sources.look_again()
    found = fleet.hub.step(World(NOW))
    assert {fault.code for fault in found.taken.held["main"].faults} == {"EF1102"}
    repository.commit(placement("other", model="digits", version="2.0.0", priority=1))
    step(fleet)
    assert versions(fleet, "milan-01")["digits"] == "2.0.0"


def test_an_emptied_repository_deletes_nothing(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    step(fleet)
    repository.git("rm", "-r", "-q", ".")
    repository.commit({"README.md": "gone"})
    fleet.sources.look_again()
    found = fleet.hub.step(World(NOW))
    assert found.change is None and found.taken.held


def test_a_force_pushed_branch_is_followed_and_nothing_is_lost(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    step(fleet)
    repository.git("checkout", "-q", "--orphan", "fresh")
    repository.commit(placement("digits", model="digits", clusters=[{"names": ["turin-01"]}]))
    repository.git("branch", "-q", "-M", "fresh", "main")
    step(fleet)
    assert versions(fleet, "turin-01")["digits"] == "1.0.0"
    assert versions(fleet, "milan-01") == {}


def test_an_unreadable_repository_changes_nothing(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    step(fleet)
    repository.folder.rename(tmp_path / "away")
    fleet.sources.look_again()
    found = fleet.hub.step(World(NOW))
    assert found.change is None and found.taken.held


def test_a_deleted_cluster_gets_a_last_release_that_keeps_what_runs(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    step(fleet)
    repository.commit({"clusters/milan-01.yaml": None, **placement("digits", model="digits")})
    step(fleet)
    last = release(fleet, "milan-01")
    assert last.retire == "keep" and last.entries == ()


def test_a_paused_cluster_keeps_its_release_until_it_goes_on(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    step(fleet)
    paused = {"clusters/milan-01.yaml": document("Cluster", "milan-01", {"paused": True})}
    repository.commit({**paused, **version("digits", "2.0.0")})
    step(fleet)
    assert versions(fleet, "milan-01")["digits"] == "1.0.0"
    repository.commit(cluster("milan-01"))
    step(fleet)
    assert versions(fleet, "milan-01")["digits"] == "2.0.0"


def test_the_sequence_goes_on_above_the_highest_reported(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    step(fleet, highest={"milan-01": 41})
    assert release(fleet, "milan-01").sequence == 42


def test_a_registered_key_stands_in_the_release_and_stays_there(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    key = SigningKey.generate()
    step(fleet, keys={"milan-01": key.public})
    assert release(fleet, "milan-01").cluster_key == key.fingerprint
    assert step(opened(tmp_path, repository)) is None


def test_overrides_change_values_for_some_of_the_chosen(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    overrides = [{"matchLabels": {"country": "fr"}, "values": {"threshold": "0.7"}}]
    repository.commit(placement("digits", model="digits", overrides=overrides))
    step(fleet)
    values = {name: release(fleet, name).entries[1 if name == "x" else 0].values for name in ("milan-01", "lyon-01")}
    assert [one["threshold"] for one in values.values()] == ["0.6", "0.7"]


def test_two_hubs_on_one_fleet_repository_never_tear_it(tmp_path: Path, repository: Repository) -> None:
    first, second = opened(tmp_path, repository), opened(tmp_path, repository)
    steps = [one.hub.step(World(NOW)) for one in (first, second)]
    first.hub.publish(steps[0])
    with pytest.raises(FleetMoved):
        second.hub.publish(steps[1])
    assert step(second) is None


def test_a_head_that_somebody_else_wrote_is_refused(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    step(fleet)
    clone = tmp_path / "clone"
    repository.git("clone", "-q", str(fleet.repository.path), str(clone))
    (clone / "intruder").write_text("x")
    for command in (
        ["add", "."],
        ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "-m", "x"],
        ["push", "-q"],
    ):
        repository.git("-C", str(clone), *command)
    repository.commit(version("digits", "2.0.0"))
    with pytest.raises(EdgeferryError, match="EF3002"):
        step(fleet)
    with pytest.raises(EdgeferryError, match="EF3002"):
        opened(tmp_path, repository)


def test_plan_says_what_publish_then_does_and_changes_nothing(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    step(fleet, keys={"milan-01": SigningKey.generate().public})
    head = fleet.repository.head
    for path, data in {**version("digits", "2.0.0"), **placement("digits", model="digits")}.items():
        target = repository.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data if isinstance(data, bytes) else data.encode())
    planned = plan_of(repository.folder, str(fleet.repository.path), None)
    assert fleet.repository.head == head
    repository.commit({})
    fleet.sources.look_again()
    done = fleet.hub.step(World(NOW))
    assert [(one.cluster, one.name, one.before, one.after) for one in planned.moves] == [
        (one.cluster, one.name, one.before, one.after) for one in done.moves
    ]
    assert {one.name for one in planned.moves} == {"digits", "digit-reader"}
    assert set(planned.changed) == set(done.changed)


def test_publishing_without_a_hub_gives_the_same_commit_for_the_same_time(
    tmp_path: Path, repository: Repository
) -> None:
    keys, source = tmp_path / "keys", MainSource(str(repository.folder))

    def publish(name: str, at: datetime) -> str | None:
        return publish_once(source, FleetHome(str(tmp_path / name)), keys, tmp_path / "artifacts", at).head

    assert publish("a.git", NOW) == publish("b.git", NOW) is not None
    assert publish("a.git", NOW + timedelta(days=1)) is None


def test_facts_given_to_plan_and_publish_decide_and_their_time_is_said(tmp_path: Path, repository: Repository) -> None:
    facts = [{"clusters": [{"names": ["milan-01", "turin-01"], "facts": [
        {"name": "memory.capacity", "operator": ">=", "value": "1Gi", "maxAge": "24h"}]}]}]  # fmt: skip
    repository.commit(placement("digits", model="digits", **facts[0]))

    def measured(value: int) -> dict[str, Any]:
        return {"name": "memory.capacity", "value": str(value), "measuredAt": "2026-01-02T03:00:00Z"}

    known = {"milan-01": [measured(2 << 30)], "turin-01": [measured(1 << 20)]}
    whole = {"format": 1, "fleet": "f", "at": "2026-01-02T03:04:00Z", "clusters": known}
    (tmp_path / "facts.json").write_text(json.dumps(whole))

    def call(*arguments: str) -> Any:
        common = ("--fleet", str(tmp_path / "fleet.git"), "--facts", str(tmp_path / "facts.json"), "-o", "json")
        command = [sys.executable, "-c", "from gitops.cli.main import main; main()", *arguments, *common]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    publish = ("publish", str(repository.folder), "--keys", str(tmp_path / "keys"), "--now", "2026-01-02T03:05:00Z")
    done = call(*publish)
    assert {one["cluster"] for one in done["moves"]} == {"milan-01"} and done["factsAt"] == whole["at"]
    known["turin-01"] = [measured(2 << 30)]
    (tmp_path / "facts.json").write_text(json.dumps(whole))
    planned = call("plan", str(repository.folder))
    assert planned["factsAt"] == whole["at"] and "turin-01" in json.dumps(planned)
    assert {one["cluster"] for one in call(*publish)["moves"]} == {"turin-01"}


def test_a_hub_on_a_git_host_starts_and_serves_while_the_host_is_away(tmp_path: Path, repository: Repository) -> None:
    host = tmp_path / "host.git"
    repository.git("init", "-q", "--bare", str(host))
    state, home = StateDir(tmp_path / "hub"), FleetHome(f"file://{host}", branches=True)
    state.make()
    fleet = open_fleet(state, MainSource(str(repository.folder)), home)
    head = step(fleet)
    assert repository.git("-C", str(host), "rev-parse", "main") == head
    assert repository.git("-C", str(host), "for-each-ref", "--format=%(refname)", "refs/heads/cluster").count("\n") == 2
    away = host.rename(tmp_path / "away")
    again = open_fleet(state, MainSource(str(repository.folder)), home)
    assert versions(again, "milan-01")["digits"] == "1.0.0"
    repository.commit(version("digits", "2.0.0"))
    with pytest.raises(HostUnreachable):
        step(again)
    assert versions(again, "milan-01")["digits"] == "1.0.0", "agents are served only what the host took"
    away.rename(host)
    assert step(again) == repository.git("-C", str(host), "rev-parse", "main")
    with pytest.raises(HostUnreachable):
        open_fleet(StateDir(tmp_path / "new"), MainSource("."), FleetHome(f"file://{tmp_path}/nowhere.git"))


def test_decisions_stand_in_the_fleet_repository_with_their_reasons(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    step(fleet)
    head = json.loads(fleet.repository.read("decisions/digits/decision.json") or b"")
    assert (head["chosen"], head["version"]) == (1, "1.0.0")
    assert [(one["count"], one["clusters"]) for one in head["refused"]] == [(2, ["lyon-01", "turin-01"])]
    repository.commit({"placements/digits.yaml": None, "workloads": None})
    step(fleet)
    assert fleet.repository.walk("decisions") == {}


def test_a_model_of_another_source_is_merged(tmp_path: Path, repository: Repository, robots: Repository) -> None:
    repository.commit({**admit(robots), **placement("robots", model="robot-arm")})
    fleet = opened(tmp_path, repository)
    step(fleet)
    assert versions(fleet, "lyon-01") == {"robot-arm": "1.0.0"}
    good = robots.git("rev-parse", "HEAD")
    robots.commit(placement("mine", model="robot-arm"))
    fleet.sources.look_again()
    found = fleet.hub.step(World(NOW))
    assert found.change is None and set(found.taken.held) == {"robotics"}
    assert found.taken.catalog.revisions["robotics"] == good


ADMITTED = {"kinds": ["Model", "ModelVersion"], "names": ["robot-*"]}


def admit(other: Repository) -> dict[str, Any]:
    return {"sources/robotics.yaml": document("Source", "robotics", {"url": str(other.folder), "allow": ADMITTED})}


@pytest.fixture
def robots(tmp_path: Path) -> Repository:
    other = Repository(tmp_path / "other")
    other.git("rm", "-r", "-q", ".")
    other.commit({**model("robot-arm"), **version("robot-arm", "1.0.0")})
    return other


def test_a_source_that_was_never_readable_holds_back_only_what_refers_to_it(
    tmp_path: Path, repository: Repository, robots: Repository
) -> None:
    repository.commit({**admit(robots), **placement("robots", model="robot-arm")})
    away = robots.folder.rename(tmp_path / "away")
    fleet = opened(tmp_path, repository)
    assert step(fleet) is not None
    assert versions(fleet, "milan-01") == {"digits": "1.0.0", "digit-reader": "1.0.0"}
    found = fleet.hub.step(World(NOW))
    assert set(found.taken.held) == {"robotics"} and found.kept == {}
    away.rename(robots.folder)
    step(fleet)
    assert versions(fleet, "lyon-01") == {"robot-arm": "1.0.0"}


def test_what_a_lost_source_delivered_stays_after_a_restart_that_cannot_read_it(
    tmp_path: Path, repository: Repository, robots: Repository
) -> None:
    everywhere = placement("robots", model="robot-arm", clusters=[{"names": ["lyon-01", "milan-01"]}])
    repository.commit({**admit(robots), **everywhere})
    step(opened(tmp_path, repository))
    robots.folder.rename(tmp_path / "away")
    repository.commit({**version("digits", "2.0.0"), **placement("digits", model="digits")})
    again = opened(tmp_path, repository)
    step(again, NOW + timedelta(hours=1))
    assert versions(again, "turin-01") == {"digits": "2.0.0", "digit-reader": "1.0.0"}, "it has nothing of the source"
    assert versions(again, "lyon-01") == {"robot-arm": "1.0.0"}
    assert versions(again, "milan-01")["digits"] == "1.0.0"
    assert again.repository.walk("decisions/robots"), "who was chosen is not forgotten"
    found = again.hub.step(World(NOW))
    assert found.change is None and set(found.kept) == {"lyon-01", "milan-01"}
    assert "waits for source robotics" in found.kept["lyon-01"]


def manifests(name: str, labels: dict[str, str]) -> dict[str, Any]:
    """Return a workload that declares a ConfigMap of a fixed name, and where it goes."""
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": {"of": name}}
    return {
        f"workloads/{name}/workload.yaml": document("Workload", name, {}),
        f"workloads/{name}/versions/1.0.0/config.yaml": json.dumps(config),
        f"placements/{name}.yaml": document(
            "Placement", name, {"workload": name, "clusters": [{"matchLabels": labels}]}
        ),
    }


def test_two_entries_that_declare_the_same_object_hold_back_only_that_cluster(
    tmp_path: Path, repository: Repository
) -> None:
    kubernetes = {
        f"clusters/{name}.yaml": document("Cluster", name, {}, labels)
        for name, labels in {
            "milan-01": {"edgeferry.dev/platform": "kubernetes", "a": "yes", "b": "yes"},
            "turin-01": {"edgeferry.dev/platform": "kubernetes", "a": "yes"},
            "lyon-01": {"edgeferry.dev/platform": "kubernetes", "b": "yes"},
        }.items()
    }
    repository.commit({**kubernetes, "placements/digits.yaml": None, "workloads/digit-reader": None})
    fleet = opened(tmp_path, repository)
    step(fleet)
    before = release(fleet, "milan-01").content
    repository.commit({**manifests("first", {"a": "yes"}), **manifests("second", {"b": "yes"})})
    step(fleet)
    assert (versions(fleet, "turin-01"), versions(fleet, "lyon-01")) == ({"first": "1.0.0"}, {"second": "1.0.0"})
    assert release(fleet, "milan-01").content == before
    found = fleet.hub.step(World(NOW))
    assert found.change is None and "EF3021" in found.kept["milan-01"] and len(found.kept) == 1


def test_bytes_that_cannot_be_fetched_hold_back_only_who_needs_them(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    step(fleet)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 5\n"
    large = {**model("large"), "models/large/versions/1.0.0/large.onnx": pointer}
    repository.commit({**large, **placement("large", model="large", clusters=[{"names": ["milan-01"]}])})
    repository.commit({**version("digits", "2.0.0"), **placement("digits", model="digits")})
    step(fleet)
    assert versions(fleet, "turin-01")["digits"] == "2.0.0"
    assert versions(fleet, "milan-01")["digits"] == "1.0.0"
    found = fleet.hub.step(World(NOW))
    assert set(found.kept) == {"milan-01"} and "large" not in found.records


def test_what_was_rendered_is_kept_no_longer_than_it_is_used(tmp_path: Path, repository: Repository) -> None:
    fleet = opened(tmp_path, repository)
    for n in range(2, 6):
        repository.commit(version("digits", f"{n}.0.0", like="1.0.0"))
        step(fleet)
    assert len(fleet.hub._rendered) == 2


@pytest.fixture
def checkouts(tmp_path: Path, repository: Repository) -> list[Path]:
    """Every published overlay, as a stock `git fetch` brings it."""
    runtime = {
        "image": "registry.example/onnx@sha256:" + "a" * 64,
        "args": ["--model", "{model}"],
        "host": {"command": ["serve"]},
    }
    repository.commit(
        {"runtimes/onnx.yaml": document("Runtime", "onnx", runtime), **placement("digits", model="digits")}
    )
    fleet = opened(tmp_path, repository)
    step(fleet)
    readers = [tmp_path / name for name in ("milan-01", "turin-01", "lyon-01")]
    for reader in readers:
        repository.git("init", "-q", str(reader))
        ref = f"+refs/heads/cluster/{reader.name}:refs/heads/overlay"
        repository.git("-C", str(reader), "fetch", "-q", str(fleet.repository.path), ref)
        repository.git("-C", str(reader), "checkout", "-q", "overlay")
    return readers


def test_ssh_keygen_accepts_every_signature_of_a_fetched_overlay(tmp_path: Path, checkouts: list[Path]) -> None:
    for reader in checkouts:
        for namespace, signed in (("edgeferry-release", "release.json"), ("edgeferry-trust", "trust/1.json")):
            (tmp_path / "allowed").write_text("".join(f"hub {key}\n" for key in _keys(reader, namespace)))
            command = ["ssh-keygen", "-Y", "verify", "-f", str(tmp_path / "allowed"), "-I", "hub", "-n", namespace]
            data = (reader / signed).read_bytes()
            subprocess.run([*command, "-s", str(reader / f"{signed}.sig")], input=data, check=True, capture_output=True)


@pytest.mark.cluster
def test_kubectl_builds_every_fetched_overlay(checkouts: list[Path]) -> None:
    for reader in checkouts:
        built = subprocess.run([kubectl_or_skip(), "kustomize", str(reader)], check=True, capture_output=True)
        assert b"kind: Deployment" in built.stdout


def _keys(reader: Path, namespace: str) -> list[str]:
    trust = json.loads((reader / "trust" / "1.json").read_bytes())
    found: list[str] = trust["releaseKeys" if namespace == "edgeferry-release" else "rootKeys"]
    return found
