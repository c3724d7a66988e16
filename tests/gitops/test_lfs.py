"""Git LFS: pointers are told from files, objects are fetched once, and only the bytes that were named are taken."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gitops.lfs import (
    BadPointer,
    LargeFileMismatch,
    LargeFileStore,
    LargeFileUnavailable,
    Pointer,
    fetch,
    object_path,
    open_large,
    parse_pointer,
)
from gitops.source import SourceMirror

MODEL = b"model bytes" * 1000
POINTER = Pointer(hashlib.sha256(MODEL).hexdigest(), len(MODEL))
TEXT = f"version https://git-lfs.github.com/spec/v1\noid sha256:{POINTER.oid}\nsize {POINTER.size_bytes}\n".encode()


@dataclass(slots=True)
class Lfs:
    """A Git LFS server, as well-behaved as a test wants it."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: {POINTER.oid: MODEL})
    asked: list[tuple[str, str]] = field(default_factory=list)
    password: str = ""
    href: str = ""
    header: dict[str, str] = field(default_factory=dict)
    answer: bytes = b""
    redirect: str = ""


@pytest.fixture
def lfs() -> Iterator[Lfs]:
    state = Lfs()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append((self.path, self.headers.get("Authorization", "")))
            wanted = "Basic " + base64.b64encode(state.password.encode()).decode()
            if state.password and self.headers.get("Authorization") != wanted:
                self._send(401, b"{}")
                return
            objects: list[dict[str, Any]] = []
            for one in asked["objects"]:
                href = state.href or f"{state.url}/objects/{one['oid']}"
                there = {"actions": {"download": {"href": href, "header": state.header}}}
                gone = {"error": {"code": 404, "message": "Object does not exist"}}
                objects.append({**one, **(there if one["oid"] in state.files else gone)})
            self._send(200, state.answer or json.dumps({"transfer": "basic", "objects": objects}).encode())

        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Authorization", "")))
            if state.redirect:
                self.send_response(302)
                self.send_header("Location", state.redirect)
                self.end_headers()
                return
            data = state.files.get(self.path.rpartition("/")[2])
            self._send(404 if data is None else 200, data or b"")

        def _send(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()


def test_a_pointer_is_read() -> None:
    assert parse_pointer(TEXT, "x") == POINTER


def test_extensions_of_a_pointer_are_allowed() -> None:
    assert parse_pointer(TEXT.replace(b"oid ", b"ext-0-x sha256:00\noid "), "x") == POINTER


@pytest.mark.parametrize(
    "data", [b"", b"version: 1\n", b"\x08ONNX", TEXT[:20], b"version https://git-lfs.github.com/spec/v2\n", b" " + TEXT]
)
def test_an_ordinary_file_is_no_pointer(data: bytes) -> None:
    assert parse_pointer(data, "x") is None


@pytest.mark.parametrize(
    "data",
    [
        TEXT[:-10],
        TEXT + b"<<<<<<< HEAD\n",
        TEXT + TEXT,
        TEXT.replace(b"sha256:", b"md5:"),
        TEXT.replace(b"size ", b"size -"),
        TEXT.replace(b"size ", b"size 99999999999999"),
        TEXT.replace(POINTER.oid.encode(), b"../../../etc/passwd"),
        TEXT.replace(POINTER.oid.encode(), POINTER.oid.upper().encode()),
    ],
    ids=["cut", "conflict", "twice", "md5", "negative", "huge", "path", "case"],
)
def test_a_broken_pointer_does_not_pass_for_a_model(data: bytes) -> None:
    with pytest.raises(BadPointer, match="models/m"):
        parse_pointer(data, "models/m.onnx")


def test_a_file_is_fetched_over_http_once(lfs: Lfs, tmp_path: Path) -> None:
    store = LargeFileStore(f"{lfs.url}/team/models", tmp_path)
    for _ in range(2):
        assert store.get(POINTER).read_bytes() == MODEL
    assert [path for path, _ in lfs.asked] == [
        "/team/models.git/info/lfs/objects/batch",
        f"/objects/{POINTER.oid}",
    ]


def test_credentials_of_the_url_go_to_its_host_only(lfs: Lfs, tmp_path: Path) -> None:
    lfs.password = "ada:s3 cret"
    lfs.header = {"X-Ticket": "1"}
    fetch(lfs.url.replace("://", "://ada:s3%20cret@") + "/m.git", (POINTER,), tmp_path)
    secret = "Basic " + base64.b64encode(b"ada:s3 cret").decode()
    assert lfs.asked == [("/m.git/info/lfs/objects/batch", secret), (f"/objects/{POINTER.oid}", "")]


def test_credentials_are_asked_of_gits_helpers(lfs: Lfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lfs.password = "ada:s3cret"
    helper = "!f() { echo username=ada; echo password=s3cret; }; f"
    for name, value in {"COUNT": "1", "KEY_0": "credential.helper", "VALUE_0": helper}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    fetch(f"{lfs.url}/m.git", (POINTER,), tmp_path)
    assert object_path(tmp_path, POINTER).read_bytes() == MODEL


def test_refused_credentials_are_said_without_the_secret(lfs: Lfs, tmp_path: Path) -> None:
    lfs.password = "ada:other"
    with pytest.raises(LargeFileUnavailable, match="401") as caught:
        fetch(lfs.url.replace("://", "://ada:s3cret@"), (POINTER,), tmp_path)
    assert "s3cret" not in str(caught.value)


def test_a_redirect_carries_no_secret(lfs: Lfs, tmp_path: Path) -> None:
    lfs.header = {"Authorization": "Bearer ticket"}
    lfs.redirect = f"{lfs.url}/elsewhere"
    with pytest.raises(LargeFileUnavailable):
        fetch(f"{lfs.url}/m.git", (POINTER,), tmp_path)
    first, *others = [secret for path, secret in lfs.asked if "batch" not in path]
    assert first == "Bearer ticket" and others and set(others) == {""}


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/etc/passwd", "gopher://x"])
def test_a_server_cannot_lead_us_to_another_protocol(lfs: Lfs, tmp_path: Path, where: str) -> None:
    lfs.href = where
    with pytest.raises(LargeFileUnavailable, match="do not follow"):
        fetch(f"{lfs.url}/m.git", (POINTER,), tmp_path)
    if "://" in where:
        lfs.href, lfs.redirect = "", where
        with pytest.raises(LargeFileUnavailable):
            fetch(f"{lfs.url}/m.git", (POINTER,), tmp_path)


@pytest.mark.parametrize(
    "served", [b"", MODEL[:-1], MODEL + b"x", b"x" * len(MODEL)], ids=["none", "short", "long", "other"]
)
def test_other_bytes_are_not_kept(lfs: Lfs, tmp_path: Path, served: bytes) -> None:
    lfs.files[POINTER.oid] = served
    with pytest.raises((LargeFileMismatch, LargeFileUnavailable)):
        fetch(f"{lfs.url}/m.git", (POINTER,), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>",
        b"[]",
        b'{"objects": 1}',
        b'{"objects": []}',
        b'{"objects": [{"oid": 1}]}',
        b'{"objects": [{"oid": "a"}]}',
    ],
)
def test_a_strange_answer_is_a_fault(lfs: Lfs, tmp_path: Path, answer: bytes) -> None:
    lfs.answer = answer
    with pytest.raises(LargeFileUnavailable):
        fetch(f"{lfs.url}/m.git", (POINTER,), tmp_path)


def test_a_file_that_the_server_does_not_have_is_named(lfs: Lfs, tmp_path: Path) -> None:
    lfs.files.clear()
    with pytest.raises(LargeFileUnavailable, match="does not exist"):
        fetch(f"{lfs.url}/m.git", (POINTER,), tmp_path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/m.git", "https://127.0.0.1:1/m.git"])
def test_a_server_that_is_not_there_is_retried(url: str, tmp_path: Path) -> None:
    with pytest.raises(LargeFileUnavailable):
        fetch(url, (POINTER,), tmp_path)


def test_over_ssh_the_host_says_where_the_server_is(lfs: Lfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    answer = json.dumps({"href": f"{lfs.url}/api", "header": {"Authorization": "Bearer ticket"}, "expires_in": 60})
    ssh.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\necho '{answer}'\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    for url, host in (
        ("git@h.example:team/m.git", "git@h.example"),
        ("ssh://git@h.example:22/team/m.git", "-p 22 git@h.example"),
    ):
        fetch(url, (POINTER,), tmp_path / host.replace(" ", ""))
        asked = (tmp_path / "asked").read_text().strip()
        assert asked in (f"{host} git-lfs-authenticate {path} download" for path in ("team/m.git", "/team/m.git"))
    assert lfs.asked[0] == ("/api/objects/batch", "Bearer ticket")
    with pytest.raises(LargeFileUnavailable):
        fetch("-oProxyCommand=x:y", (POINTER,), tmp_path / "none")


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_repository_on_this_machine_gives_its_large_files(tmp_path: Path, bare: bool, scheme: str) -> None:
    folder = tmp_path / "m" / ("lfs" if bare else ".git/lfs") / "objects"
    path = object_path(folder, POINTER)
    with pytest.raises(LargeFileUnavailable):
        fetch(f"{scheme}{tmp_path / 'm'}", (POINTER,), tmp_path / "into")
    path.parent.mkdir(parents=True)
    path.write_bytes(MODEL)
    fetch(f"{scheme}{tmp_path / 'm'}", (POINTER,), tmp_path / "into")
    assert object_path(tmp_path / "into", POINTER).read_bytes() == MODEL


def test_a_pointer_in_a_repository_opens_as_the_model(tmp_path: Path) -> None:
    models = tmp_path / "models"
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(models)], check=True)
    (models / "model.onnx").write_bytes(TEXT)
    (models / "plain.onnx").write_bytes(b"plain")
    identity = ("-c", "user.name=A", "-c", "user.email=a@x")
    subprocess.run(["git", "-C", str(models), "add", "."], check=True)
    subprocess.run(["git", "-C", str(models), *identity, "commit", "--quiet", "-m", "x"], check=True)
    tree = SourceMirror("main", str(models), tmp_path / "cache").newest()
    file = tree.files["model.onnx"]
    head = tree.blobs.read(file, 1024)
    with pytest.raises(LargeFileUnavailable, match=r"model\.onnx"):
        open_large(tree, file, head)
    path = object_path(models / ".git" / "lfs" / "objects", POINTER)
    path.parent.mkdir(parents=True)
    path.write_bytes(MODEL)
    found = open_large(tree, file, head)
    assert found is not None and found[0] == len(MODEL)
    with found[1]() as stream:
        assert stream.read() == MODEL
    assert open_large(tree, tree.files["plain.onnx"], b"plain") is None
