"""Three ways to an overlay, one promise: the bytes as they were published, or a fault that leaves what runs alone."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.address import BadUrl, Origin
from agent.config import BadConfig, Config
from agent.fetch import (
    CredentialRefused,
    HubFault,
    HubTransport,
    NothingPublished,
    Received,
    Transport,
    open_transport,
)
from agent.fetch_folder import FolderTransport, fleet_path
from agent.fetch_git import GitFailed
from agent.http import Connection, UnexpectedAnswer, Unreachable
from agent.proof import Fixed
from agent.verify import Accepted, accept
from agent.wire.errors import Retry
from agent.wire.overlay import MEDIA_TYPE, Limits, OverlayRefused, pack
from tests.agent.http_server import Asked, Reply, serving
from tests.agent.signed_overlay import CLUSTER, FLEET, Overlay, link, trust
from tests.gitops.serve.conftest import Hub

FILES = Overlay().files()
NEWER = Overlay(sequence=8).files()


def accepted(received: Received | None) -> int:
    assert received is not None
    taken = accept(
        received.files,
        cluster=CLUSTER,
        fleet=FLEET,
        key_fingerprint="SHA256:x",
        trust=trust(1),
        trust_documents=link(1),
        current=None,
    )
    assert isinstance(taken, Accepted)
    return taken.release.sequence


# ── the hub ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path)
    hub.server.start()
    yield hub
    hub.close()


def transport(hub: Hub, state: Path) -> Transport:
    return open_transport(Config(CLUSTER, FLEET, hub=hub.url), Fixed(hub.join(CLUSTER)), state)


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Begin work beside, and return what waits for its result."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(work()), daemon=True)
    thread.start()

    def wait() -> Any:
        thread.join(30)
        assert result, "it does not end"
        return result[0]

    return wait


def test_an_overlay_comes_from_a_real_hub_as_it_was_published(hub: Hub, tmp_path: Path) -> None:
    line = transport(hub, tmp_path)
    commit = hub.publish(CLUSTER, FILES)
    received = line.poll("", 30)
    assert received is not None and received == Received(FILES, commit, "hub") and accepted(received) == 7
    assert line.poll(commit, 0) is None


def test_news_ends_a_poll_at_once(hub: Hub, tmp_path: Path) -> None:
    line = transport(hub, tmp_path)
    commit = hub.publish(CLUSTER, FILES)
    assert line.poll("", 30) is not None
    waiting = in_thread(lambda: line.poll(commit, 300))
    hub.publish(CLUSTER, NEWER)
    assert accepted(waiting()) == 8


def test_a_registered_cluster_without_a_release_has_nothing_yet(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(NothingPublished):
        transport(hub, tmp_path).poll("", 0)


def test_a_revoked_credential_is_a_fault_that_can_be_mended(hub: Hub, tmp_path: Path) -> None:
    line = transport(hub, tmp_path)
    hub.store.revoke(CLUSTER, "ann", hub.now)
    with pytest.raises(CredentialRefused, match="EF3101"):
        line.poll("", 0)


def test_a_poll_is_woken_from_another_thread(hub: Hub, tmp_path: Path) -> None:
    line = transport(hub, tmp_path)
    commit = hub.publish(CLUSTER, FILES)
    assert line.poll("", 0) is not None
    waiting = in_thread(lambda: line.poll(commit, 300))
    line.wake()
    assert waiting() is None
    hub.publish(CLUSTER, NEWER)
    assert accepted(line.poll(commit, 0) or line.poll(commit, 0)) == 8


@pytest.mark.parametrize("seed", range(20))
def test_a_wake_at_any_moment_is_not_lost(hub: Hub, tmp_path: Path, seed: int) -> None:
    line = transport(hub, tmp_path)
    commit = hub.publish(CLUSTER, FILES)
    assert line.poll("", 0) is not None
    waiting = in_thread(lambda: line.poll(commit, 300))
    for _ in range(seed * 300):
        pass  # somewhere between the thread's start and its wait for the answer
    line.wake()
    assert waiting() is None


def test_polls_share_one_connection(tmp_path: Path) -> None:
    with serving(lambda _: Reply(304)) as server:
        line = HubTransport(Connection(Origin.parse(server.url)), Fixed("secret"))
        assert [line.poll("abc", 0) for _ in range(5)] == [None] * 5
        assert server.connections == 1
        assert {asked.headers["if-none-match"] for asked in server.asked} == {'"abc"'}
        assert server.asked[0].headers["authorization"] == "Bearer secret"


def test_a_hub_that_went_away_and_came_back_is_found_again(hub: Hub, tmp_path: Path) -> None:
    line = transport(hub, tmp_path)
    commit = hub.publish(CLUSTER, FILES)
    assert line.poll("", 0) is not None
    line._connection.interrupt()  # type: ignore[attr-defined]  # the hub's side of it would look the same
    assert line.poll(commit, 0) is None


def overlay_reply(body: bytes, tag: str = '"r1"', kind: str = MEDIA_TYPE) -> Reply:
    return Reply(200, body, {"etag": tag, "content-type": kind})


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (Reply(200, b"<html>log in to the hotel</html>", {"content-type": "text/html"}), UnexpectedAnswer),
        (overlay_reply(pack(FILES), tag=""), UnexpectedAnswer),
        (overlay_reply(pack(FILES), tag='"' + "x" * 300 + '"'), UnexpectedAnswer),
        (overlay_reply(bytes(300_000)), UnexpectedAnswer),
        (overlay_reply(b"not an overlay"), OverlayRefused),
        (Reply(302, b"", {"location": "https://elsewhere.example/"}), HubFault),
        (Reply(404, b"nothing here"), HubFault),
        (Reply(500, b"{", {"content-type": "application/problem+json"}), HubFault),
        (Reply(503, b"", {"retry-after": "33"}), HubFault),
        (Reply(200, pack(FILES), {"etag": '"r1"', "content-type": MEDIA_TYPE}, cut_at=20), Unreachable),
        (Reply(raw=b"\x16\x03\x01 this is no HTTP\r\n\r\n"), Unreachable),
        (Reply(raw=b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n"), Unreachable),
        (Reply(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"), (UnexpectedAnswer, Unreachable)),
    ],
    ids=[
        "a hotel's login page", "no tag", "giant tag", "too large", "no overlay", "moved", "not found",
        "broken problem", "overloaded", "cut", "no HTTP", "too many headers", "broken chunks",
    ],
)  # fmt: skip
def test_what_is_no_overlay_is_a_coded_fault(reply: Reply, fault: Any) -> None:
    with serving(lambda _: reply) as server:
        line = HubTransport(Connection(Origin.parse(server.url)), Fixed(""), Limits(total_bytes=200_000))
        with pytest.raises(fault) as caught:
            line.poll("", 0)
    assert "retry-after" not in reply.headers or caught.value.delay_s == 33


def test_what_is_refused_is_said_once_and_then_waited_out() -> None:
    def answer(asked: Asked) -> Reply:
        current = '"bad"' if len(server.asked) < 4 else '"good"'
        if asked.headers.get("if-none-match") == current:
            return Reply(304)
        return overlay_reply(b"rubbish" if current == '"bad"' else pack(FILES), current)

    with serving(answer) as server:
        line = HubTransport(Connection(Origin.parse(server.url)), Fixed(""))
        with pytest.raises(OverlayRefused):
            line.poll("old", 0)
        assert line.poll("old", 0) is None and line.poll("old", 0) is None
        assert accepted(line.poll("old", 0)) == 7


def test_a_server_that_accepts_and_says_nothing_does_not_hold_the_agent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        line = HubTransport(
            Connection(Origin.parse(f"http://127.0.0.1:{silent.getsockname()[1]}"), timeout_s=0.2), Fixed("")
        )
        with pytest.raises(Unreachable, match="in time"):
            line.poll("", 0)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hub.example",
        "ftp://hub.example",
        "https://",
        "https://u:pw@hub.example",
        "https://hub:x",
        "http://[",
        "https://a b",
    ],
)
def test_a_bad_address_is_refused_and_its_password_not_quoted(tmp_path: Path, url: str) -> None:
    with pytest.raises((BadUrl, BadConfig)) as caught:
        open_transport(Config(CLUSTER, FLEET, hub=url), Fixed(""), tmp_path)
    assert "pw" not in str(caught.value)


# ── Git ───────────────────────────────────────────────────────────────────────────────────────────────────────────

GIT = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "protocol.file.allow=always"]


class FleetGit:
    """A real fleet repository on some Git host."""

    def __init__(self, root: Path) -> None:
        self.path = root / "fleet.git"
        self.work = root / "work"
        self.git("init", "--quiet", "--bare", "-b", "main", str(self.path))
        self.git("init", "--quiet", "-b", "main", str(self.work))

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def git(self, *arguments: str) -> None:
        subprocess.run([*GIT, *arguments], check=True, capture_output=True)

    def publish(self, files: dict[str, bytes], branch: str = "main", below: str = "") -> None:
        for path, data in files.items():
            target = self.work / below / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        self.commit(branch)

    def commit(self, branch: str = "main") -> None:
        self.git("-C", str(self.work), "add", "-A", "-f")
        self.git("-C", str(self.work), "commit", "--quiet", "--allow-empty", "-m", "x")
        self.git("-C", str(self.work), "push", "--quiet", "-f", str(self.path), f"HEAD:{branch}")


@pytest.fixture
def fleet(tmp_path: Path) -> FleetGit:
    return FleetGit(tmp_path)


def from_git(fleet: FleetGit, state: Path, ref: str = "main", **more: Any) -> Transport:
    (state / "s").mkdir(exist_ok=True)
    return open_transport(Config(CLUSTER, FLEET, **{"git": fleet.url, "git_ref": ref, **more}), Fixed(""), state / "s")


def test_an_overlay_at_the_root_of_a_branch_is_read(fleet: FleetGit, tmp_path: Path) -> None:
    fleet.publish(FILES, f"refs/heads/cluster/{CLUSTER}")
    received = from_git(fleet, tmp_path, ref="").poll("", 0)
    assert received is not None and received.files == FILES and accepted(received) == 7


def test_of_a_whole_fleet_only_this_clusters_directory_counts(fleet: FleetGit, tmp_path: Path) -> None:
    fleet.publish(FILES, below=fleet_path(CLUSTER))
    line = from_git(fleet, tmp_path)
    received = line.poll("", 0)
    assert received is not None and received.files == FILES
    fleet.publish({"decisions/x": b"1", f"{fleet_path('turin-03')}/release.json": b"{}"})
    assert line.poll(received.revision, 0) is None
    fleet.publish(NEWER, below=fleet_path(CLUSTER))
    assert accepted(line.poll(received.revision, 0)) == 8


def test_a_force_pushed_branch_is_followed(fleet: FleetGit, tmp_path: Path) -> None:
    fleet.publish(FILES)
    line = from_git(fleet, tmp_path)
    assert accepted(line.poll("", 0)) == 7
    fleet.git("-C", str(fleet.work), "checkout", "--quiet", "--orphan", "other")
    fleet.publish(NEWER)
    assert accepted(line.poll("", 0)) == 8


@pytest.mark.parametrize("how", ["emptied", "deleted", "another cluster's only"])
def test_a_branch_without_an_overlay_is_no_instruction(fleet: FleetGit, tmp_path: Path, how: str) -> None:
    fleet.publish(FILES)
    line = from_git(fleet, tmp_path)
    assert line.poll("", 0) is not None
    if how == "deleted":
        fleet.git("-C", str(fleet.path), "branch", "-D", "main")
    else:
        fleet.git("-C", str(fleet.work), "rm", "-rq", ".")
        if how != "emptied":
            fleet.publish(FILES, below=fleet_path("turin-03"))
        fleet.commit()
    with pytest.raises(NothingPublished):
        line.poll("", 0)


def test_an_absent_repository_is_waited_for(fleet: FleetGit, tmp_path: Path) -> None:
    fleet.path.rename(tmp_path / "moved")
    line = from_git(fleet, tmp_path)
    with pytest.raises(Retry):
        line.poll("", 0)
    (tmp_path / "moved").rename(fleet.path)
    fleet.publish(FILES)
    assert accepted(line.poll("", 0)) == 7


def spoil_link(work: Path) -> None:
    (work / "models" / "reader" / "x.yaml").symlink_to("/etc/passwd")


def spoil_program(work: Path) -> None:
    (work / "kustomization.yaml").chmod(0o755)


def spoil_size(work: Path) -> None:
    (work / "models" / "reader" / "x.yaml").write_bytes(bytes(5 << 20))


def spoil_name(work: Path) -> None:
    (work / "models" / "reader" / "a\nb").write_bytes(b"")


def spoil_encoding(work: Path) -> None:
    Path(os.fsdecode(bytes(work / "models" / "reader") + b"/\xff")).write_bytes(b"")


def spoil_submodule(work: Path) -> None:
    inner = work / "models" / "sub"
    subprocess.run([*GIT, "init", "--quiet", str(inner)], check=True)
    subprocess.run([*GIT, "-C", str(inner), "commit", "--quiet", "--allow-empty", "-m", "x"], check=True)


SPOILED = {
    "symbolic link": spoil_link,
    "program": spoil_program,
    "giant file": spoil_size,
    "line break in a name": spoil_name,
    "name that is not UTF-8": spoil_encoding,
    "submodule": spoil_submodule,
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_a_tree_of_anything_but_plain_files_is_refused_once(
    fleet: FleetGit, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    fleet.publish(FILES)
    spoil(fleet.work)
    fleet.commit()
    line = from_git(fleet, tmp_path)
    with pytest.raises(OverlayRefused):
        line.poll("", 0)
    assert line.poll("", 0) is None
    assert not [path for path in (tmp_path / "s").rglob("*") if path.is_symlink()]


def test_hooks_and_commands_of_a_repository_never_run(fleet: FleetGit, tmp_path: Path) -> None:
    fleet.publish(FILES)
    line = from_git(fleet, tmp_path)
    assert line.poll("", 0) is not None
    hook = tmp_path / "s" / "fleet.git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    fleet.publish(NEWER)
    assert accepted(line.poll("", 0)) == 8 and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["lock", "half an object", "no HEAD", "empty pack", "bad config"])
def test_a_repository_that_a_power_cut_damaged_is_made_again(fleet: FleetGit, tmp_path: Path, damage: str) -> None:
    fleet.publish(FILES)
    assert from_git(fleet, tmp_path).poll("", 0) is not None
    here = tmp_path / "s" / "fleet.git"
    if damage == "lock":
        (here / "refs" / "remotes" / "origin" / "overlay.lock").touch()
    elif damage == "no HEAD":
        (here / "HEAD").unlink()
    elif damage == "bad config":
        (here / "config").write_bytes(b"\0\0\0")
    elif damage == "half an object":
        for path in (here / "objects").rglob("*"):
            if path.is_file():
                path.chmod(0o644)
                path.write_bytes(b"")
    else:
        (here / "HEAD").write_bytes(b"")
    fleet.publish(NEWER)
    assert accepted(from_git(fleet, tmp_path).poll("", 0)) == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"git": "ext::sh -c touch% ran"},
        {"git": "--upload-pack=touch ran"},
        {"git": "https://user:pw@git.example/fleet.git"},
        {"git": "ftp://git.example/fleet.git"},
        {"git_ref": "--upload-pack=x"},
        {"git_ref": "main:refs/heads/x"},
        {"git_ref": "a..b"},
    ],
    ids=lambda changes: next(iter(changes.values())),
)
def test_settings_that_would_run_something_or_show_a_password_are_refused(
    fleet: FleetGit, tmp_path: Path, changes: dict[str, str]
) -> None:
    with pytest.raises(BadConfig) as caught:
        from_git(fleet, tmp_path, **changes)
    assert "pw" not in str(caught.value)


def test_two_processes_of_one_site_do_not_take_each_others_locks_for_damage(fleet: FleetGit, tmp_path: Path) -> None:
    fleet.publish(FILES)
    line = from_git(fleet, tmp_path)
    with (tmp_path / "s" / "fleet.git.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(GitFailed, match="another process"):
            line.poll("", 0)
    assert accepted(line.poll("", 0)) == 7


def test_a_wait_for_git_is_woken(fleet: FleetGit, tmp_path: Path) -> None:
    fleet.publish(FILES)
    line = from_git(fleet, tmp_path)
    received = line.poll("", 0)
    assert received is not None
    waiting = in_thread(lambda: line.poll(received.revision, 300))
    line.wake()
    assert waiting() is None


def test_a_hubs_own_git_is_read_with_the_credential_that_stands_on_no_command_line(hub: Hub, tmp_path: Path) -> None:
    credential = hub.join(CLUSTER)
    hub.publish(CLUSTER, FILES)
    config = Config(CLUSTER, FLEET, hub=hub.url, git=f"{hub.url}/git/{CLUSTER}")
    received = open_transport(config, Fixed(credential), tmp_path).poll("", 0)
    assert received is not None and received.files == FILES
    for path in (tmp_path / "fleet.git").rglob("*"):
        assert not path.is_file() or credential.encode() not in path.read_bytes()
    with pytest.raises(CredentialRefused):
        open_transport(config, Fixed("wrong"), tmp_path).poll("", 0)


def test_another_host_never_sees_the_hubs_credential(tmp_path: Path) -> None:
    with serving(lambda _: Reply(401, b"", {"www-authenticate": "Basic realm=x"})) as server:
        config = Config(CLUSTER, FLEET, hub="https://hub.example", git=f"{server.url}/fleet.git", git_ref="main")
        with pytest.raises(CredentialRefused):
            open_transport(config, Fixed("secret"), tmp_path).poll("", 0)
        assert server.asked and not any("authorization" in asked.headers for asked in server.asked)


def test_a_git_daemon_is_read(fleet: FleetGit, tmp_path: Path) -> None:
    fleet.publish(FILES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    libc = ctypes.CDLL(None)
    daemon = subprocess.Popen(
        ["git", "daemon", "--export-all", f"--base-path={tmp_path}", "--listen=127.0.0.1", f"--port={port}"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: libc.prctl(1, signal.SIGKILL),  # it dies with us, however we die
    )
    try:
        line = from_git(fleet, tmp_path, git=f"git://127.0.0.1:{port}/fleet.git")
        end = time.monotonic() + 20
        received = None
        while received is None:
            try:
                received = line.poll("", 0)
            except Retry:
                assert time.monotonic() < end
                threading.Event().wait(0.05)
        assert accepted(received) == 7
    finally:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()


# ── a folder ──────────────────────────────────────────────────────────────────────────────────────────────────────


def write(folder: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


@pytest.mark.parametrize("below", ["", fleet_path(CLUSTER)], ids=["an overlay", "a whole fleet"])
def test_a_folder_is_read_and_its_changes_are_seen(tmp_path: Path, below: str) -> None:
    write(tmp_path / below, FILES)
    (tmp_path / ".git").mkdir()
    line = open_transport(Config(CLUSTER, FLEET, folder=str(tmp_path)), Fixed(""), tmp_path)
    received = line.poll("", 0)
    assert received is not None and received.files == FILES and accepted(received) == 7
    assert line.poll(received.revision, 0) is None
    waiting = in_thread(lambda: line.poll(received.revision, 60))
    write(tmp_path / below, {path: NEWER[path] for path in sorted(NEWER)})
    newest = waiting()
    assert newest is not None and newest.revision != received.revision


def test_a_disk_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    line = FolderTransport(tmp_path / "usb", CLUSTER)
    with pytest.raises(NothingPublished):
        line.poll("", 0)
    (tmp_path / "usb").mkdir()
    with pytest.raises(NothingPublished, match=r"release\.json"):
        line.poll("", 0)
    write(tmp_path / "usb", FILES)
    assert accepted(line.poll("", 0)) == 7


def fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "models" / "x").symlink_to("/etc/passwd"),
        lambda folder: (folder / "models" / "d").symlink_to("/etc"),
        lambda folder: fifo(folder / "models" / "x"),
        lambda folder: (folder / "models" / "x").write_bytes(bytes(5 << 20)),
        lambda folder: (folder / "models" / "a\nb").write_bytes(b""),
        lambda folder: [(folder / "models" / str(n)).touch() for n in range(60)],
        lambda folder: (folder / "/".join("d" * 40)).mkdir(parents=True) or (folder / "/".join("d" * 40) / "x").touch(),
    ],
    ids=["link", "link to a directory", "fifo", "giant file", "line break in a name", "many files", "deep"],
)
def test_a_folder_of_anything_but_plain_files_is_refused_once(tmp_path: Path, spoil: Callable[[Path], Any]) -> None:
    write(tmp_path, FILES)
    spoil(tmp_path)
    line = FolderTransport(tmp_path, CLUSTER, Limits(files=50))
    with pytest.raises(OverlayRefused):
        line.poll("", 0)
    assert line.poll("", 0) is None


def test_a_link_in_place_of_the_release_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "real", FILES)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "release.json").symlink_to(tmp_path / "real" / "release.json")
    with pytest.raises(OverlayRefused):
        FolderTransport(folder, CLUSTER).poll("", 0)


def test_a_link_on_the_way_to_the_overlay_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "real" / fleet_path(CLUSTER), FILES)
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "clusters").symlink_to(tmp_path / "real" / "clusters")
    with pytest.raises(NothingPublished):
        FolderTransport(tmp_path / "fleet", CLUSTER).poll("", 0)


def test_a_wait_for_a_folder_is_woken(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    line = FolderTransport(tmp_path, CLUSTER)
    received = line.poll("", 0)
    assert received is not None
    waiting = in_thread(lambda: line.poll(received.revision, 300))
    line.wake()
    assert waiting() is None
