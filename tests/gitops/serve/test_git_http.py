"""The virtual repository: stock Git reads its own overlay, and nothing else."""

from __future__ import annotations

import base64
import gzip
import os
import subprocess
from pathlib import Path
from typing import Any

import pygit2
import pytest

FILES = {
    "kustomization.yaml": b"{}\n",
    "models/digits/service.yaml": b"kind: Service\n",
    "models/digits/more.yaml": b"x\n",
}


@pytest.fixture
def git(hub: Any, tmp_path: Path) -> Any:
    """Runs Git as milan-01; its credential stands in no command line."""
    hub.join("milan-01")
    helper = tmp_path / "credential"
    helper.write_text(f"#!/bin/sh\necho username=milan-01\necho password={hub.credentials['milan-01']}\n")
    helper.chmod(0o700)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C",
    }

    def run(*arguments: Any, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["git", "-c", f"credential.helper={helper}", *map(str, arguments)]
        return subprocess.run(command, env=environment, check=check, capture_output=True, text=True, timeout=60)

    return run


def url(hub: Any, cluster: str = "milan-01") -> str:
    return f"{hub.url}/git/{cluster}"


@pytest.mark.parametrize("version", [0, 1, 2])
def test_stock_git_clones_and_fetches(hub: Any, git: Any, tmp_path: Path, version: int) -> None:
    first = hub.publish("milan-01", FILES)
    protocol = ("-c", f"protocol.version={version}")
    git(*protocol, "clone", url(hub), tmp_path / "clone")
    assert (tmp_path / "clone/models/digits/service.yaml").read_bytes() == b"kind: Service\n"
    assert git("-C", tmp_path / "clone", "rev-parse", "HEAD").stdout.strip() == first
    second = hub.publish("milan-01", {**FILES, "models/digits/service.yaml": b"kind: Other\n"}, sequence=2)
    git("-C", tmp_path / "clone", *protocol, "fetch", "origin")
    assert git("-C", tmp_path / "clone", "rev-parse", "origin/main").stdout.strip() == second
    git("-C", tmp_path / "clone", *protocol, "fetch", "origin")
    git("-C", tmp_path / "clone", "fsck", "--strict")
    assert git("-C", tmp_path / "clone", "show", "origin/main:models/digits/service.yaml").stdout == "kind: Other\n"


@pytest.mark.parametrize("version", [0, 2])
def test_a_fetch_of_the_cluster_ref_as_the_agent_does_it(hub: Any, git: Any, tmp_path: Path, version: int) -> None:
    git("init", "-q", tmp_path / "agent")
    refspec = "+refs/heads/cluster/milan-01:refs/remotes/origin/overlay"
    for sequence in (1, 2, 3):
        commit = hub.publish("milan-01", {**FILES, "n": b"%d" % sequence}, sequence=sequence)
        git("-C", tmp_path / "agent", "-c", f"protocol.version={version}", "fetch", "--no-tags", url(hub), refspec)
        assert git("-C", tmp_path / "agent", "rev-parse", "refs/remotes/origin/overlay").stdout.strip() == commit
    git("-C", tmp_path / "agent", "fsck", "--strict")


def test_what_the_client_has_is_not_sent_again(hub: Any, git: Any, tmp_path: Path) -> None:
    big = os.urandom(200_000)
    hub.publish("milan-01", {"big": big, "n": b"1"})
    git("clone", url(hub), tmp_path / "clone")
    hub.publish("milan-01", {"big": big, "n": b"2"}, sequence=2)
    git("-C", tmp_path / "clone", "-c", "fetch.unpackLimit=1", "fetch", "origin")
    sizes = sorted(path.stat().st_size for path in (tmp_path / "clone/.git/objects/pack").glob("*.pack"))
    assert sizes[0] < 2000


@pytest.mark.parametrize("version", [0, 2])
@pytest.mark.parametrize(
    "options",
    [("--depth=1",), ("--filter=blob:none",), ("--depth=1", "--single-branch", "--branch=main")],
    ids=" ".join,
)
def test_shallow_and_partial_clones_get_everything(
    hub: Any, git: Any, tmp_path: Path, version: int, options: tuple[str, ...]
) -> None:
    hub.publish("milan-01", FILES)
    git("-c", f"protocol.version={version}", "clone", *options, url(hub), tmp_path / "clone")
    assert (tmp_path / "clone/models/digits/more.yaml").read_bytes() == b"x\n"
    git("-C", tmp_path / "clone", "fsck", "--strict")


@pytest.mark.parametrize("option", ["--shallow-since=2020-01-01", "--shallow-exclude=main"])
def test_exclusions_are_refused_in_words(hub: Any, git: Any, tmp_path: Path, option: str) -> None:
    hub.publish("milan-01", FILES)
    done = git("clone", option, url(hub), tmp_path / "clone", check=False)
    assert done.returncode != 0


def test_libgit2_reads_it_too(hub: Any, tmp_path: Path) -> None:
    hub.join("milan-01")
    commit = hub.publish("milan-01", FILES)
    callbacks = pygit2.RemoteCallbacks(credentials=pygit2.UserPass("milan-01", hub.credentials["milan-01"]))
    clone = pygit2.clone_repository(url(hub), str(tmp_path / "clone"), callbacks=callbacks)
    assert str(clone.head.target) == commit


def test_a_cluster_without_an_overlay_has_an_empty_repository(hub: Any, git: Any, tmp_path: Path) -> None:
    for version in (0, 2):
        done = git("-c", f"protocol.version={version}", "ls-remote", url(hub))
        assert done.stdout == ""
    assert "empty repository" in git("clone", url(hub), tmp_path / "clone").stderr


def test_only_the_own_refs_are_listed(hub: Any, git: Any) -> None:
    hub.join("turin-01")
    commit = hub.publish("milan-01", FILES)
    hub.publish("turin-01", FILES)
    listed = git("ls-remote", url(hub)).stdout.split()
    assert listed == [commit, "HEAD", commit, "refs/heads/cluster/milan-01", commit, "refs/heads/main"]


def test_another_clusters_repository_is_not_there(hub: Any, git: Any) -> None:
    hub.join("turin-01")
    hub.publish("turin-01", FILES)
    there = git("ls-remote", url(hub, "turin-01"), check=False)
    nowhere = git("ls-remote", url(hub, "nowhere"), check=False)
    assert there.returncode == nowhere.returncode == 128
    assert there.stderr.replace("turin-01", "nowhere") == nowhere.stderr


@pytest.mark.parametrize("version", [0, 2])
@pytest.mark.parametrize(
    "what", ["commit of another", "tree of another", "blob of another", "own tree", "own blob", "older"]
)
def test_every_other_want_is_refused(hub: Any, git: Any, tmp_path: Path, version: int, what: str) -> None:
    hub.join("turin-01")
    older = hub.publish("milan-01", {"secret": b"of long ago"})
    git("ls-remote", url(hub))
    hub.publish("milan-01", {"secret": b"of yesterday"}, sequence=2)
    git("ls-remote", url(hub))
    own = hub.publish("milan-01", FILES, sequence=3)
    other = hub.publish("turin-01", {"secret": b"turin's"})
    tree = hub.repository[other].peel(pygit2.Tree)
    own_tree = hub.repository[own].peel(pygit2.Tree)
    wanted = {
        "commit of another": other,
        "tree of another": str(tree.id),
        "blob of another": str(tree["secret"].id),
        "own tree": str(own_tree.id),
        "own blob": str(own_tree["kustomization.yaml"].id),
        "older": older,
    }[what]
    answer = post(hub, version, *want(version, wanted))
    assert answer.status == 200
    assert b"ERR" in answer.body and b"EF3113" in answer.body
    assert b"PACK" not in answer.body


def test_the_previous_commit_is_still_served(hub: Any, git: Any, tmp_path: Path) -> None:
    first = hub.publish("milan-01", FILES)
    git("ls-remote", url(hub))
    hub.publish("milan-01", {"n": b"2"}, sequence=2)
    assert b"PACK" in post(hub, 2, *want(2, first)).body


def pkt(line: bytes) -> bytes:
    return b"%04x%b" % (len(line) + 4, line)


def want(version: int, oid: str) -> list[bytes]:
    if version == 2:
        return [pkt(b"command=fetch"), b"0001", pkt(b"want %b\n" % oid.encode()), pkt(b"done\n"), b"0000"]
    return [pkt(b"want %b side-band-64k\n" % oid.encode()), b"0000", pkt(b"done\n")]


def post(hub: Any, version: int, *lines: bytes, headers: dict[str, str] | None = None) -> Any:
    shown = base64.b64encode(f"milan-01:{hub.credentials['milan-01']}".encode()).decode()
    sent = {"Authorization": f"Basic {shown}", "Git-Protocol": f"version={version}", **(headers or {})}
    return hub.ask("POST", "/git/milan-01/git-upload-pack", body=b"".join(lines), headers=sent)


@pytest.mark.parametrize(
    "body",
    [
        b"zzzz",
        b"0003",
        b"+01f",
        b"00",
        b"fffftoo short",
        pkt(b"command=fetch") + b"0001" + pkt(b"want nonsense") + b"0000",
        pkt(b"command=fetch") + b"0001" + pkt(b"have " + b"a" * 39) + b"0000",
        pkt(b"command=fetch") + b"0001" + pkt(b"deepen -1") + b"0000",
        b"0000" * 50_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_broken_packet_lines_are_refused(hub: Any, body: bytes) -> None:
    hub.join("milan-01")
    hub.publish("milan-01", FILES)
    answer = post(hub, 2, body)
    assert (answer.status, answer.json["code"]) == (400, "EF3104")


@pytest.mark.parametrize(
    "line", [b"filter blob:none", b"deepen-since 1", b"deepen-not main", b"want-ref refs/heads/main"]
)
def test_what_is_not_served_is_refused_in_words(hub: Any, line: bytes) -> None:
    hub.join("milan-01")
    commit = hub.publish("milan-01", FILES).encode()
    answer = post(hub, 2, pkt(b"command=fetch"), b"0001", pkt(b"want " + commit), pkt(line), pkt(b"done"), b"0000")
    assert b"ERR" in answer.body and b"PACK" not in answer.body


def test_other_commands_and_formats_are_refused_in_words(hub: Any) -> None:
    hub.join("milan-01")
    hub.publish("milan-01", FILES)
    assert b"ERR" in post(hub, 2, pkt(b"command=object-info"), b"0001", b"0000").body
    assert b"ERR" in post(hub, 2, pkt(b"command=ls-refs"), pkt(b"object-format=sha256"), b"0001", b"0000").body


def test_gzipped_requests_are_taken_and_bombs_are_not(hub: Any) -> None:
    hub.join("milan-01")
    commit = hub.publish("milan-01", FILES)
    packed = {"Content-Encoding": "gzip"}
    assert b"PACK" in post(hub, 2, gzip.compress(b"".join(want(2, commit))), headers=packed).body
    bomb = post(hub, 2, gzip.compress(b"0000" * (16 << 20)), headers=packed)
    assert (bomb.status, bomb.json["code"]) == (413, "EF3105")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/git/milan-01/HEAD", 404),
        ("GET", "/git/milan-01/objects/info/packs", 404),
        ("GET", "/git/milan-01/info/refs", 404),
        ("GET", "/git/milan-01/info/refs?service=git-receive-pack", 404),
        ("POST", "/git/milan-01/git-receive-pack", 404),
        ("GET", "/git/milan-01/git-upload-pack", 405),
        ("GET", "/git/../milan-01/info/refs?service=git-upload-pack", 404),
        ("GET", "/git/turin-01%2f..%2fmilan-01/info/refs?service=git-upload-pack", 404),
    ],
)
def test_nothing_else_is_served(hub: Any, method: str, path: str, status: int) -> None:
    hub.join("milan-01")
    hub.publish("milan-01", FILES)
    assert hub.ask(method, path, bearer=hub.credentials["milan-01"]).status == status


def test_pushing_is_refused(hub: Any, git: Any, tmp_path: Path) -> None:
    hub.publish("milan-01", FILES)
    git("clone", url(hub), tmp_path / "clone")
    assert git("-C", tmp_path / "clone", "push", "origin", "HEAD:main", check=False).returncode != 0
