"""Publication: stock git reads and verifies it, the same inputs give the same commits, nobody is overrun."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.wire.errors import EdgeferryError
from agent.wire.overlay import OverlayRefused
from agent.wire.release import Release, encode_release
from agent.wire.signature import RELEASE, SigningKey
from agent.wire.trust import Trust, paths, sign_trust
from gitops.fleet import FleetRepository, cluster_path
from gitops.keys import Keyring, first_trust
from gitops.provenance import ForeignHead, current_trust, verify_head
from gitops.publish import Change, FleetMoved, FleetUnwritable, publish
from gitops.refs import FleetLocked, FleetUnreadable

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def git(path: Path, *arguments: str, check: bool = True) -> str:
    command = ["git", "-C", str(path), *arguments]
    return subprocess.run(command, capture_output=True, check=check, text=True).stdout


def overlay(keyring: Keyring, cluster: str, sequence: int) -> dict[str, bytes]:
    release = Release(keyring.fleet_id, cluster, sequence, AT, 1, (), {})
    data, _ = encode_release(release)
    return {
        "release.json": data,
        "release.json.sig": keyring.release.sign(data, RELEASE),
        "kustomization.yaml": b"resources: []\n",
        "models/digits/service.yaml": f"sequence: {sequence}\n".encode(),
    }


def change(
    keyring: Keyring, clusters: Mapping[str, int], files: Mapping[str, bytes | None] | None = None, message: str = "Go"
) -> Change:
    return Change({name: overlay(keyring, name, n) for name, n in clusters.items()}, files or {}, message, AT)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.open(tmp_path / "keys", create=True)


@pytest.fixture
def fleet(tmp_path: Path) -> FleetRepository:
    return FleetRepository.open(tmp_path / "fleet.git", create=True)


@pytest.fixture
def head(fleet: FleetRepository, keyring: Keyring) -> str:
    """A fleet of three clusters with a decision."""
    first = change(keyring, {"milan-01": 1, "turin-01": 1, "lyon-01": 1}, first_trust(keyring), "First")
    first = replace(first, files={**first.files, "decisions/digits/head.json": b"{}\n"})
    return publish(fleet, first, keyring.release, None)


def test_git_finds_nothing_wrong(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    publish(fleet, change(keyring, {"milan-01": 2}), keyring.release, head)
    done = subprocess.run(["git", "-C", str(fleet.path), "fsck", "--strict", "--full"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.replace("dangling", "")) == (0, done.stdout.replace("dangling", ""))
    assert "error" not in done.stderr and "missing" not in done.stdout


def test_git_verifies_the_commit(fleet: FleetRepository, keyring: Keyring, head: str, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(f'edgeferry@localhost namespaces="git" {keyring.release.public}\n')
    options = ("-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={allowed}")
    git(fleet.path, *options, "verify-commit", head)
    allowed.write_text(f"edgeferry@localhost {SigningKey.generate().public}\n")
    with pytest.raises(subprocess.CalledProcessError):
        git(fleet.path, *options, "verify-commit", head)


def test_ssh_keygen_verifies_a_release(fleet: FleetRepository, keyring: Keyring, head: str, tmp_path: Path) -> None:
    files = fleet.overlay("milan-01")
    (tmp_path / "allowed").write_text(f"hub {keyring.release.public}\n")
    (tmp_path / "sig").write_bytes(files["release.json.sig"])
    command = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "hub", "-n", "edgeferry-release", "-s", "sig"]
    subprocess.run(command, cwd=tmp_path, input=files["release.json"], capture_output=True, check=True)


def test_the_history_of_a_cluster_reads_with_git_log(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    second = publish(fleet, change(keyring, {"milan-01": 2}), keyring.release, head)
    third = publish(fleet, change(keyring, {"turin-01": 2}), keyring.release, second)
    log = git(fleet.path, "log", "--format=%H", "main", "--", cluster_path("milan-01")).split()
    assert log == [second, head]
    assert git(fleet.path, "rev-parse", "main").strip() == third


def test_stock_git_fetches_one_overlay(fleet: FleetRepository, keyring: Keyring, head: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run(["git", "init", "--quiet", str(site)], check=True)
    git(site, "fetch", "--quiet", str(fleet.path), "refs/heads/cluster/milan-01")
    git(site, "checkout", "--quiet", "FETCH_HEAD")
    found = {str(p.relative_to(site)): p.read_bytes() for p in site.rglob("*") if p.is_file() and ".git" not in p.parts}
    assert found == fleet.overlay("milan-01")
    assert set(found) == {*overlay(keyring, "milan-01", 1), "trust/1.json", "trust/1.json.sig"}
    body = git(site, "log", "--format=%P|%B", "FETCH_HEAD")
    assert body.startswith("|") and f"Fleet-Commit: {head}" in body


def test_what_was_published_is_read_back(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    fresh = FleetRepository.open(fleet.path)
    for one in (fleet, fresh):
        assert one.head == head
        assert one.read("decisions/digits/head.json") == b"{}\n"
        assert one.read("decisions/digits") is None and one.read("nothing/here") is None
        assert one.walk("decisions") == {"decisions/digits/head.json": b"{}\n"}
        assert dict(one.releases()) == {
            n: overlay(keyring, n, 1)["release.json"] for n in ("milan-01", "turin-01", "lyon-01")
        }
        assert one.cluster_commit("milan-01") == git(fleet.path, "rev-parse", "cluster/milan-01").strip()
        assert one.cluster_commit("paris-01") is None and one.overlay("paris-01") == {}


def test_an_empty_repository_reads_as_empty(fleet: FleetRepository) -> None:
    assert (fleet.head, fleet.walk(""), list(fleet.releases()), fleet.overlay("a")) == (None, {}, [], {})


def test_the_same_inputs_give_the_same_commits(keyring: Keyring, tmp_path: Path) -> None:
    heads, clusters = set(), set()
    for name in ("one", "two"):
        one = FleetRepository.open(tmp_path / name, create=True)
        first = publish(one, change(keyring, {"a": 1, "b": 1}, first_trust(keyring)), keyring.release, None)
        if name == "two":  # a publisher that starts anew knows nothing and writes the same
            one = FleetRepository.open(tmp_path / name)
        heads.add(publish(one, change(keyring, {"b": 2}, {"decisions/x": b"1"}), keyring.release, first))
        clusters.add((one.cluster_commit("a"), one.cluster_commit("b")))
    assert len(heads) == len(clusters) == 1


def test_a_change_that_changes_nothing_makes_no_commit(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    before = git(fleet.path, "count-objects", "-v")
    same = change(keyring, {"milan-01": 1}, {"decisions/digits/head.json": b"{}\n", "decisions/none": None})
    assert publish(fleet, same, keyring.release, head) == head
    assert git(fleet.path, "count-objects", "-v") == before


def test_a_cluster_that_does_not_change_keeps_its_commit(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    before = fleet.cluster_commit("turin-01")
    moved = fleet.cluster_commit("milan-01")
    publish(fleet, change(keyring, {"milan-01": 2, "turin-01": 1}), keyring.release, head)
    assert fleet.cluster_commit("turin-01") == before
    assert fleet.cluster_commit("milan-01") != moved


def test_only_new_objects_are_written(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    for sequence, one in enumerate((fleet, FleetRepository.open(fleet.path)), 2):
        head = publish(one, change(keyring, {"milan-01": sequence}), keyring.release, head)
        packs = _packed(fleet.path)
        assert len({line.split()[0] for line in packs}) == len(packs), "an object was written twice"


def _packed(path: Path) -> list[str]:
    out = []
    for index in (path / "objects" / "pack").glob("*.idx"):
        with index.open("rb") as file:
            shown = subprocess.run(["git", "show-index"], stdin=file, capture_output=True, check=True, text=True).stdout
        out += [line.split(maxsplit=1)[1] for line in shown.splitlines()]
    return out


def test_files_and_overlays_are_removed(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    gone = Change({"lyon-01": {}}, {"decisions/digits/head.json": None}, "Remove", AT)
    head = publish(fleet, gone, keyring.release, head)
    assert fleet.overlay("lyon-01") == {} and fleet.cluster_commit("lyon-01") is None
    assert fleet.walk("decisions") == {}
    assert sorted(name for name, _ in fleet.releases()) == ["milan-01", "turin-01"]
    assert "decisions" not in git(fleet.path, "ls-tree", "--name-only", head)


def test_a_longer_trust_chain_reaches_every_overlay(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    assert keyring.root is not None
    known, _ = current_trust(fleet, None)
    following = replace(known, number=2)
    files = dict(zip(paths(2), sign_trust(following, (keyring.root,)), strict=True))
    before = {name: fleet.cluster_commit(name) for name in ("milan-01", "turin-01")}
    publish(fleet, change(keyring, {"milan-01": 2}, files), keyring.release, head)
    for name, commit in before.items():
        assert fleet.overlay(name)["trust/2.json"] == files["trust/2.json"]
        assert fleet.cluster_commit(name) != commit
    trust = git(fleet.path, "rev-parse", "main:trust").strip()
    assert git(fleet.path, "rev-parse", f"main:{cluster_path('lyon-01')}/trust").strip() == trust
    assert verify_head(fleet, keyring).number == 2


@pytest.mark.parametrize("path", ["../x", "/x", "a/../b", "a//b", ".git/config", "a\nb", "", "clusters/a/release.json"])
def test_a_path_that_leaves_its_place_is_refused(fleet: FleetRepository, keyring: Keyring, path: str) -> None:
    with pytest.raises((OverlayRefused, ValueError)):
        publish(fleet, Change({}, {path: b""}, "x", AT), keyring.release, None)
    if not path.startswith("clusters"):
        with pytest.raises(OverlayRefused):
            publish(fleet, Change({"a": {path: b""}}, {}, "x", AT), keyring.release, None)
    assert fleet.head is None


@pytest.mark.parametrize("files", [{"a": b"", "a/b": b""}, {"a/b": b"", "a": b""}, {"trust/1.json": b"", "trust": b""}])
def test_a_file_that_is_also_a_directory_is_refused(
    fleet: FleetRepository, keyring: Keyring, files: dict[str, bytes]
) -> None:
    with pytest.raises(ValueError, match="file"):
        publish(fleet, Change({"c": files}, {}, "x", AT), keyring.release, None)
    assert fleet.head is None


def test_of_two_publishers_exactly_one_wins(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    others = [FleetRepository.open(fleet.path) for _ in range(4)]
    barrier = threading.Barrier(len(others))
    results: list[object] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            results.append(publish(others[number], change(keyring, {"milan-01": 2 + number}), keyring.release, head))
        except FleetMoved as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(others))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [one for one in results if isinstance(one, str)]
    assert len(won) == 1 and len(results) == len(others)
    assert all(one.head == won[0] for one in (fleet, *others))
    assert git(fleet.path, "rev-list", "--count", "main").strip() == "2"


def test_a_publisher_that_lost_may_publish_on_the_new_head(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    other = FleetRepository.open(fleet.path)
    second = publish(other, change(keyring, {"milan-01": 2}), keyring.release, head)
    with pytest.raises(FleetMoved, match=second[:12]):
        publish(fleet, change(keyring, {"turin-01": 2}), keyring.release, head)
    publish(fleet, change(keyring, {"turin-01": 2}), keyring.release, second)
    assert fleet.overlay("milan-01")["release.json"] == overlay(keyring, "milan-01", 2)["release.json"]
    assert "error" not in git(fleet.path, "fsck", "--strict")


def commit_by_hand(path: Path, parent: str, *options: str) -> str:
    identity = ("-c", "user.name=Eve", "-c", "user.email=eve@example.org")
    tree = git(path, "rev-parse", f"{parent}^{{tree}}").strip()
    return git(path, *identity, *options, "commit-tree", tree, "-p", parent, "-m", "mine").strip()


def test_a_foreign_push_is_seen_and_refused(
    fleet: FleetRepository, keyring: Keyring, head: str, tmp_path: Path
) -> None:
    foreign = commit_by_hand(fleet.path, head)
    git(fleet.path, "update-ref", "refs/heads/main", foreign)
    assert fleet.head == foreign, "a loose reference outranks the packed"
    with pytest.raises(FleetMoved):
        publish(fleet, change(keyring, {"milan-01": 2}), keyring.release, head)
    with pytest.raises(ForeignHead, match="not signed"):
        verify_head(fleet, keyring)


def test_a_head_signed_by_another_key_is_refused(
    fleet: FleetRepository, keyring: Keyring, head: str, tmp_path: Path
) -> None:
    key = tmp_path / "eve"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    tree = git(fleet.path, "rev-parse", f"{head}^{{tree}}").strip()
    options = ("-c", "user.name=E", "-c", "user.email=e@x", "-c", "gpg.format=ssh", "-c", f"user.signingkey={key}")
    foreign = git(fleet.path, *options, "commit-tree", tree, "-p", head, "-S", "-m", "mine").strip()
    git(fleet.path, "update-ref", "refs/heads/main", foreign)
    with pytest.raises(ForeignHead, match="may not sign"):
        verify_head(fleet, keyring)


def test_a_commit_that_stock_git_signed_with_the_release_key_is_ours(
    fleet: FleetRepository, keyring: Keyring, head: str
) -> None:
    tree = git(fleet.path, "rev-parse", f"{head}^{{tree}}").strip()
    key = keyring.directory / "release.key"
    options = ("-c", "user.name=E", "-c", "user.email=e@x", "-c", "gpg.format=ssh", "-c", f"user.signingkey={key}")
    restored = git(fleet.path, *options, "commit-tree", tree, "-p", head, "-S", "-m", "by hand").strip()
    git(fleet.path, "update-ref", "refs/heads/main", restored)
    assert verify_head(fleet, keyring).number == 1
    after = publish(fleet, change(keyring, {"milan-01": 2}), keyring.release, restored)
    assert fleet.head == after == git(fleet.path, "rev-parse", "main").strip()
    assert not (fleet.path / "refs" / "heads" / "main").exists(), "main is packed again"


def test_a_tampered_commit_is_refused(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    raw = fleet.commit(head).replace(b"First", b"Fi7st")
    command = ["git", "-C", str(fleet.path), "hash-object", "-t", "commit", "-w", "--stdin"]
    forged = subprocess.run(command, input=raw, capture_output=True, check=True).stdout.decode().strip()
    git(fleet.path, "update-ref", "refs/heads/main", forged)
    with pytest.raises(ForeignHead, match="does not fit"):
        verify_head(fleet, keyring)


def test_another_fleets_repository_is_refused(
    fleet: FleetRepository, keyring: Keyring, head: str, tmp_path: Path
) -> None:
    with pytest.raises(ForeignHead, match="it is fleet"):
        verify_head(fleet, Keyring.open(tmp_path / "other", create=True))


def test_a_rewound_trust_is_refused(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    assert keyring.root is not None
    known, _ = current_trust(fleet, None)
    files = dict(zip(paths(2), sign_trust(replace(known, number=2), (keyring.root,)), strict=True))
    publish(fleet, change(keyring, {}, files), keyring.release, head)
    verify_head(fleet, keyring)
    git(fleet.path, "update-ref", "refs/heads/main", head)
    with pytest.raises(ForeignHead, match="older"):
        verify_head(fleet, keyring)


def test_a_trust_chain_by_another_root_is_refused(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    eve = SigningKey.generate()
    mine = Trust(keyring.fleet_id, 2, (eve.public,), (eve.public, keyring.release.public))
    files = dict(zip(paths(2), sign_trust(mine, (eve,)), strict=True))
    verify_head(fleet, keyring)
    publish(fleet, change(keyring, {}, files), eve, head)
    with pytest.raises(ForeignHead, match="chain is broken"):
        verify_head(fleet, keyring)


def test_a_publisher_whose_key_is_no_release_key_is_told(
    fleet: FleetRepository, keyring: Keyring, head: str, tmp_path: Path
) -> None:
    other = Keyring.open(tmp_path / "other", create=True)
    (other.directory / "fleet-id").write_text(keyring.fleet_id)
    with pytest.raises(ForeignHead, match="not a release key"):
        verify_head(fleet, Keyring.open(other.directory))


def test_a_foreign_lock_is_waited_for_and_named(
    fleet: FleetRepository, keyring: Keyring, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gitops import refs

    (fleet.path / "packed-refs.lock").touch()
    with pytest.raises(FleetLocked, match=r"packed-refs\.lock"), refs.locked(fleet.path, patience_s=0.05):
        pass
    (fleet.path / "packed-refs.lock").unlink()
    publish(fleet, change(keyring, {"milan-01": 2}), keyring.release, head)


def test_locks_left_by_a_killed_publisher_are_taken_away(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    for name in ("refs/heads/main.lock", "packed-refs.lock"):
        (fleet.path / name).hardlink_to(fleet.path / "edgeferry.lock")
    (fleet.path / "objects" / "pack" / "tmp_edgeferry_pack").write_bytes(b"torn")
    (fleet.path / "objects" / "pack" / "tmp_edgeferry_pack").chmod(0o444)
    (fleet.path / "edgeferry-refs.new").write_bytes(b"torn")
    publish(fleet, change(keyring, {"milan-01": 2}), keyring.release, head)
    assert not list(fleet.path.rglob("*.lock")) or [p.name for p in fleet.path.rglob("*.lock")] == ["edgeferry.lock"]


def test_a_loose_branch_of_a_cluster_does_not_hide_ours(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    git(fleet.path, "update-ref", "refs/heads/cluster/milan-01", commit_by_hand(fleet.path, head))
    publish(fleet, change(keyring, {"milan-01": 2}), keyring.release, head)
    assert git(fleet.path, "rev-parse", "cluster/milan-01").strip() == fleet.cluster_commit("milan-01")


def test_other_branches_and_tags_are_kept(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    git(fleet.path, "-c", "user.name=A", "-c", "user.email=a@x", "tag", "-a", "v1", "-m", "one", head)
    git(fleet.path, "branch", "people", head)
    git(fleet.path, "pack-refs", "--all")
    tag = git(fleet.path, "rev-parse", "v1").strip()
    publish(fleet, change(keyring, {"milan-01": 2, "paris-01": 1}), keyring.release, head)
    assert git(fleet.path, "rev-parse", "v1").strip() == tag
    assert git(fleet.path, "rev-parse", "v1^{commit}", "people").split() == [head, head]
    assert f"^{head}" in (fleet.path / "packed-refs").read_text()


def test_what_git_packs_and_repacks_stays_readable(fleet: FleetRepository, keyring: Keyring, head: str) -> None:
    for sequence in range(2, 7):
        head = publish(fleet, change(keyring, {"milan-01": sequence}), keyring.release, head)
    fresh = FleetRepository.open(fleet.path)
    fresh.overlay("lyon-01")
    git(fleet.path, "pack-refs", "--all")
    git(fleet.path, "repack", "-a", "-d", "--quiet")
    for one, sequence in ((fleet, 6), (fresh, 7)):
        assert one.overlay("milan-01")["models/digits/service.yaml"] == b"sequence: %d\n" % sequence
        head = publish(one, change(keyring, {"milan-01": sequence + 1}), keyring.release, head)
    assert "error" not in git(fleet.path, "fsck", "--strict")


def test_a_restored_older_head_is_gone_on_from_without_missing_objects(
    fleet: FleetRepository, keyring: Keyring, head: str
) -> None:
    publish(fleet, change(keyring, {"milan-01": 2}), keyring.release, head)
    git(fleet.path, "update-ref", "refs/heads/main", head)
    git(fleet.path, "update-ref", "-d", "refs/heads/cluster/milan-01")
    git(fleet.path, "reflog", "expire", "--expire=now", "--all")
    git(fleet.path, "gc", "--prune=now", "--quiet")
    publish(fleet, change(keyring, {"milan-01": 2, "turin-01": 3}), keyring.release, head)
    done = subprocess.run(["git", "-C", str(fleet.path), "fsck", "--strict"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("what", ["none", "worktree", "sha256", "damaged refs", "damaged main"])
def test_what_is_no_fleet_repository_is_named(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x"
    match what:
        case "worktree":
            subprocess.run(["git", "init", "--quiet", str(path)], check=True)
        case "sha256":
            subprocess.run(["git", "init", "--quiet", "--bare", "--object-format=sha256", str(path)], check=True)
        case "damaged refs" | "damaged main":
            FleetRepository.open(path, create=True)
            name = "packed-refs" if what == "damaged refs" else "refs/heads/main"
            (path / name).write_text("ref: refs/heads/elsewhere\n")
    with pytest.raises(FleetUnreadable) as caught:
        assert FleetRepository.open(path).head == "never"
    assert isinstance(caught.value, EdgeferryError) and caught.value.do


def test_a_repository_that_may_not_be_written_keeps_its_head(
    fleet: FleetRepository, keyring: Keyring, head: str
) -> None:
    in_the_way = fleet.path / "objects" / "pack" / "tmp_edgeferry_pack"
    in_the_way.mkdir()
    with pytest.raises(FleetUnwritable):
        publish(fleet, change(keyring, {"milan-01": 2}), keyring.release, head)
    assert fleet.head == head
    in_the_way.rmdir()
    publish(fleet, change(keyring, {"milan-01": 2}), keyring.release, head)
