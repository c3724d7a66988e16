"""A fleet on a Git host: it moves there first, with a lease; every mirror derives the same branches of clusters."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gitops.fleet import FleetRepository
from gitops.keys import Keyring, first_trust
from gitops.provenance import ForeignHead, verify_head
from gitops.publish import Change, FleetMoved, publish
from gitops.refs import FleetUnreadable
from gitops.remote import GitHost, HostRefuses, HostUnreachable

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def git(path: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(path), *arguments], capture_output=True, check=True, text=True).stdout


def change(clusters: Mapping[str, str], files: Mapping[str, bytes] | None = None) -> Change:
    return Change({name: {"release.json": text.encode()} for name, text in clusters.items()}, files or {}, "Go", AT)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.open(tmp_path / "keys", create=True)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    path = tmp_path / "host.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)], check=True)
    return path


def mirror(tmp_path: Path, host: Path, name: str = "mirror", *, cluster_refs: bool = False) -> FleetRepository:
    upstream = GitHost(f"file://{host}", cluster_refs=cluster_refs, timeout_s=30)
    fleet = FleetRepository.open(tmp_path / name, create=True, upstream=upstream)
    fleet.fetch()
    return fleet


def clusters_of(path: Path) -> list[str]:
    return git(path, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads/cluster").splitlines()


def test_a_publication_moves_the_host_and_then_the_mirror(tmp_path: Path, host: Path, keyring: Keyring) -> None:
    fleet = mirror(tmp_path, host)
    first = publish(fleet, change({"a": "1", "b": "1"}, first_trust(keyring)), keyring.release, None)
    head = publish(fleet, change({"a": "2"}), keyring.release, first)
    assert git(host, "rev-parse", "main").strip() == head == fleet.head
    assert clusters_of(host) == []
    assert len(clusters_of(fleet.path)) == 2
    git(host, "fsck", "--strict")


def test_branches_of_clusters_are_pushed_where_wanted(tmp_path: Path, host: Path, keyring: Keyring) -> None:
    fleet = mirror(tmp_path, host, cluster_refs=True)
    first = publish(fleet, change({"a": "1", "b": "1"}, first_trust(keyring)), keyring.release, None)
    publish(fleet, Change({"a": {"release.json": b"2"}, "b": {}}, {}, "Go", AT), keyring.release, first)
    assert clusters_of(host) == clusters_of(fleet.path)
    assert [line.split("/")[-1] for line in clusters_of(host)] == ["a"]


def test_every_mirror_derives_the_same_branches(tmp_path: Path, host: Path, keyring: Keyring) -> None:
    fleet = mirror(tmp_path, host)
    follower = mirror(tmp_path, host, "follower")
    head = publish(fleet, change({"a": "1", "b": "1", "c": "1"}, first_trust(keyring)), keyring.release, None)
    follower.fetch()
    for clusters in ({"a": "2"}, {"b": "2"}, {"a": "3"}, {"a": "1"}):
        head = publish(fleet, change(clusters), keyring.release, head)
    head = publish(fleet, Change({"c": {}}, {}, "Go", AT), keyring.release, head)
    follower.fetch()
    late = mirror(tmp_path, host, "late")
    assert follower.head == late.head == head
    assert clusters_of(late.path) == clusters_of(fleet.path) == clusters_of(follower.path)
    assert verify_head(late, keyring).number == 1
    git(late.path, "fsck", "--strict")


def test_of_two_hubs_on_one_host_the_second_decides_again(tmp_path: Path, host: Path, keyring: Keyring) -> None:
    one = mirror(tmp_path, host, "one")
    two = mirror(tmp_path, host, "two")
    first = publish(one, change({"a": "1"}, first_trust(keyring)), keyring.release, None)
    with pytest.raises(FleetMoved):
        publish(two, change({"a": "2"}, first_trust(keyring)), keyring.release, None)
    assert two.head == first, "it has fetched what was in its way"
    second = publish(two, change({"a": "2"}), keyring.release, first)
    with pytest.raises(FleetMoved):
        publish(one, change({"a": "3"}), keyring.release, first)
    assert one.head == second == git(host, "rev-parse", "main").strip()
    assert dict(one.releases()) == {"a": b"2"}
    publish(one, change({"a": "3"}), keyring.release, second)


def test_a_host_that_declines_leaves_the_mirror_where_it_was(tmp_path: Path, host: Path, keyring: Keyring) -> None:
    fleet = mirror(tmp_path, host)
    first = publish(fleet, change({"a": "1"}, first_trust(keyring)), keyring.release, None)
    hook = host / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho main is protected >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(HostRefuses, match="declined"):
        publish(fleet, change({"a": "2"}), keyring.release, first)
    assert fleet.head == first
    hook.unlink()
    publish(fleet, change({"a": "2"}), keyring.release, first)


def test_a_host_that_does_not_answer_leaves_the_mirror_where_it_was(
    tmp_path: Path, host: Path, keyring: Keyring
) -> None:
    fleet = mirror(tmp_path, host)
    first = publish(fleet, change({"a": "1"}, first_trust(keyring)), keyring.release, None)
    host.rename(tmp_path / "away")
    for attempt in (lambda: publish(fleet, change({"a": "2"}), keyring.release, first), fleet.fetch):
        with pytest.raises(HostUnreachable):
            attempt()
    assert fleet.head == first
    (tmp_path / "away").rename(host)
    assert publish(fleet, change({"a": "2"}), keyring.release, first) == git(host, "rev-parse", "main").strip()


def test_what_the_host_took_before_the_mirror_died_is_fetched(tmp_path: Path, host: Path, keyring: Keyring) -> None:
    fleet = mirror(tmp_path, host)
    first = publish(fleet, change({"a": "1"}, first_trust(keyring)), keyring.release, None)
    second = publish(fleet, change({"a": "2"}), keyring.release, first)
    expected = clusters_of(fleet.path)
    refs = fleet.path / "packed-refs"
    refs.write_text(refs.read_text().replace(second, first))  # as if it had died before its own references moved
    fleet.fetch()
    assert fleet.head == second and clusters_of(fleet.path) == expected
    verify_head(fleet, keyring)


def test_a_main_that_is_gone_from_the_host_is_a_fault(tmp_path: Path, host: Path, keyring: Keyring) -> None:
    fleet = mirror(tmp_path, host)
    first = publish(fleet, change({"a": "1"}, first_trust(keyring)), keyring.release, None)
    git(host, "update-ref", "-d", "refs/heads/main")
    with pytest.raises(FleetUnreadable, match="gone"):
        fleet.fetch()
    with pytest.raises(FleetUnreadable, match="gone"):
        publish(fleet, change({"a": "2"}), keyring.release, first)
    assert fleet.head == first


def test_a_foreign_head_on_the_host_is_not_followed(tmp_path: Path, host: Path, keyring: Keyring) -> None:
    upstream = GitHost(f"file://{host}", accept=lambda fleet, head: verify_head(fleet, keyring, head))
    fleet = FleetRepository.open(tmp_path / "mirror", create=True, upstream=upstream)
    first = publish(fleet, change({"a": "1"}, first_trust(keyring)), keyring.release, None)
    branch = fleet.cluster_commit("a")
    identity = ("-c", "user.name=Eve", "-c", "user.email=eve@example.org")
    foreign = git(host, *identity, "commit-tree", f"{first}^{{tree}}", "-p", first, "-m", "mine").strip()
    git(host, "update-ref", "refs/heads/main", foreign)
    for attempt in (fleet.fetch, lambda: publish(fleet, change({"a": "2"}), keyring.release, first)):
        with pytest.raises(ForeignHead, match="not signed"):
            attempt()
    assert (fleet.head, fleet.cluster_commit("a")) == (first, branch), "sites are served what was published"
    git(host, "update-ref", "refs/heads/main", first)
    publish(fleet, change({"a": "2"}), keyring.release, first)


@pytest.mark.parametrize("url", ["--upload-pack=x", "ext::sh", "ftp://a/b"])
def test_a_url_that_runs_something_is_refused(url: str) -> None:
    with pytest.raises(HostRefuses):
        GitHost(url)
