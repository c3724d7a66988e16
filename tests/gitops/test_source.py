"""Model repositories: the newest commit is read, whatever is in it; what cannot be read is never an instruction."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

import pygit2
import pytest

from gitops.source import NotARepository, SourceMirror, Sources
from gitops.source_tree import MAX_DEPTH, SourceTooLarge, SourceUnreadable
from gitops.tree import Tree

IDENTITY = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")


def git(path: Path, *arguments: str, stdin: bytes = b"") -> str:
    command = ["git", "-C", str(path), *IDENTITY, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=True).stdout.decode().strip()


def commit(path: Path, files: Mapping[str, bytes | None], *options: str) -> str:
    for name, data in files.items():
        target = path / name
        if data is None:
            target.unlink()
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--allow-empty", "-m", "x", *options)
    return git(path, "rev-parse", "HEAD")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(path)], check=True)
    commit(path, {"fleet.yaml": b"kind: Fleet\n", "models/a/model.yaml": b"a", "models/a-b.yaml": b"b"})
    return path


@pytest.fixture(params=["folder", "mirror"])
def source(request: pytest.FixtureRequest, models: Path, tmp_path: Path) -> SourceMirror:
    url = str(models) if request.param == "folder" else f"file://{models}"
    return SourceMirror("main", url, tmp_path / "cache")


def contents(tree: Tree) -> dict[str, bytes]:
    return {path: tree.blobs.read(file, 1 << 20) for path, file in tree.files.items()}


def test_the_newest_commit_is_read(source: SourceMirror, models: Path) -> None:
    tree = source.newest()
    assert contents(tree) == {"fleet.yaml": b"kind: Fleet\n", "models/a-b.yaml": b"b", "models/a/model.yaml": b"a"}
    assert tree.revision == git(models, "rev-parse", "HEAD")
    assert tree.committed_at.timestamp() == int(git(models, "show", "-s", "--format=%ct"))
    assert tree.files["fleet.yaml"].size_bytes == 12
    assert list(tree.files) == sorted(tree.files), "Git's order is that of the paths"


def test_it_is_looked_at_only_when_there_is_a_reason(source: SourceMirror, models: Path) -> None:
    before = source.newest()
    after = commit(models, {"new.yaml": b"n"})
    assert source.newest() is before
    source.look_again()
    assert source.newest().revision == after


def test_a_directory_of_a_repository_is_a_source(models: Path, tmp_path: Path) -> None:
    for path in ("models", "./models/", "/models"):
        source = SourceMirror("team", str(models), tmp_path / "cache", path=path)
        assert set(source.newest().files) == {"a/model.yaml", "a-b.yaml"}
    with pytest.raises(SourceUnreadable, match="nowhere"):
        SourceMirror("team", str(models), tmp_path / "cache", path="nowhere").newest()
    with pytest.raises(SourceUnreadable, match="no directory"):
        SourceMirror("team", str(models), tmp_path / "cache", path="fleet.yaml").newest()


def test_an_earlier_commit_and_a_branch_can_be_read(source: SourceMirror, models: Path) -> None:
    first = git(models, "rev-parse", "HEAD")
    git(models, "branch", "people")
    commit(models, {"new.yaml": b"n"})
    source.newest()
    for revision in (first, "people"):
        assert "new.yaml" not in source.at(revision).files
    with pytest.raises(SourceUnreadable):
        source.at("f" * 40)
    assert "new.yaml" in source.newest().files, "the newest is the newest still"


def test_unchanged_directories_are_not_read_again(models: Path, tmp_path: Path) -> None:
    source = SourceMirror("main", str(models), tmp_path / "cache")
    before = source.newest()
    commit(models, {"fleet.yaml": b"kind: Other\n"})
    source.look_again()
    after = source.newest()
    assert after.files["models/a/model.yaml"] is before.files["models/a/model.yaml"]
    assert after.files["fleet.yaml"] != before.files["fleet.yaml"]


def test_a_rewritten_branch_is_followed_with_a_note_until_the_next_commit(source: SourceMirror, models: Path) -> None:
    used = source.newest().revision
    rewritten = commit(models, {"fleet.yaml": b"again"}, "--amend")
    for _ in range(2):  # also when it is looked at again, and is as it was
        source.look_again()
        newest = source.newest()
        assert newest.revision == rewritten
        assert "rewritten" in newest.note and used[:12] in newest.note
    commit(models, {"fleet.yaml": b"more"})
    source.look_again()
    assert source.newest().note == ""


def test_what_a_rewritten_branch_held_is_kept(models: Path, tmp_path: Path) -> None:
    source = SourceMirror("main", f"file://{models}", tmp_path / "cache")
    used = source.newest().revision
    commit(models, {"fleet.yaml": b"again"}, "--amend")
    source.look_again()
    source.newest()
    git(models, "reflog", "expire", "--expire=now", "--all")
    git(models, "gc", "--prune=now", "--quiet")
    assert source.at(used).files["fleet.yaml"].size_bytes == 12, "what was used is kept"


def test_a_vanished_branch_is_a_fault_and_no_deletion(source: SourceMirror, models: Path) -> None:
    used = source.newest().revision
    git(models, "checkout", "--quiet", "-b", "other")
    git(models, "branch", "-D", "main")
    source.look_again()
    with pytest.raises(SourceUnreadable, match="main"):
        source.newest()
    assert source.at(used).files


def test_an_emptied_branch_is_a_fault_and_no_deletion(source: SourceMirror, models: Path) -> None:
    source.newest()
    git(models, "rm", "-r", "--quiet", ".")
    git(models, "commit", "--quiet", "-m", "gone")
    source.look_again()
    with pytest.raises(SourceUnreadable, match="no files"):
        source.newest()


def test_a_repository_without_a_commit_is_a_fault(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "new")], check=True)
    for url in (str(tmp_path / "new"), f"file://{tmp_path / 'new'}"):
        with pytest.raises(SourceUnreadable):
            SourceMirror("main", url, tmp_path / "cache").newest()


def test_an_unreachable_repository_is_retried_later_and_found_again(models: Path, tmp_path: Path) -> None:
    now = [0.0]
    source = SourceMirror("main", f"file://{models}", tmp_path / "cache", monotonic=lambda: now[0])
    source.newest()
    models.rename(tmp_path / "away")
    source.look_again()
    with pytest.raises(SourceUnreadable):
        source.newest()
    (tmp_path / "away").rename(models)
    with pytest.raises(SourceUnreadable):
        source.newest()
    now[0] = 2.0
    assert source.newest().files


def test_a_folder_that_is_gone_and_comes_back_is_read_again(models: Path, tmp_path: Path) -> None:
    source = SourceMirror("main", str(models), tmp_path / "cache")
    source.newest()
    models.rename(tmp_path / "away")
    source.look_again()
    with pytest.raises(SourceUnreadable):
        source.newest()
    (tmp_path / "away").rename(models)
    after = commit(models, {"new": b"1"})
    source.look_again()
    assert source.newest().revision == after


def test_a_folder_without_git_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "plain" / "inner").mkdir(parents=True)
    with pytest.raises(NotARepository, match="git init"):
        SourceMirror("main", str(tmp_path / "plain"), tmp_path / "cache").newest()


def test_a_folder_inside_a_repository_is_not_taken_for_it(models: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(models / "models")
    for folder in (models / "models", tmp_path / "link"):
        with pytest.raises(NotARepository):
            SourceMirror("main", str(folder), tmp_path / "cache").newest()


@pytest.mark.parametrize("url", ["--upload-pack=touch x", "ext::sh -c touch% x", "fd::3", "ftp://a/b", "http://a/\nb"])
def test_a_url_that_runs_something_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((NotARepository, SourceUnreadable)):
        SourceMirror("main", url, tmp_path / "cache").newest()
    assert not (tmp_path / "x").exists()


def test_no_secret_of_a_url_is_shown(tmp_path: Path) -> None:
    source = SourceMirror("main", "http://ada:s3cret@127.0.0.1:1/models.git", tmp_path / "cache", timeout_s=20)
    with pytest.raises(SourceUnreadable) as caught:
        source.newest()
    assert "s3cret" not in str(caught.value) and "127.0.0.1" in str(caught.value)


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"git://127.0.0.1:{server.getsockname()[1]}/models.git"
        with pytest.raises(SourceUnreadable):
            SourceMirror("main", url, tmp_path / "cache", timeout_s=0.5).newest()


def test_links_submodules_and_unsafe_names_are_left_out(models: Path, tmp_path: Path) -> None:
    (models / "link").symlink_to("/etc/passwd")
    commit(models, {"ok.yaml": b"1", "run.sh": b"#!"})
    (models / "run.sh").chmod(0o755)
    head = commit(models, {})
    blob = git(models, "rev-parse", f"{head}:ok.yaml")
    repository = pygit2.Repository(str(models))

    def raw(entries: list[tuple[str, bytes, str]]) -> str:
        lines = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
        return str(repository.odb.write(pygit2.enums.ObjectType.TREE, lines))

    bad = [b"..", b".git", b".GIT", b"a\\b", b"caf\xe9", b"new\nline", b"sub/dir"]
    entries = [("100644", name, blob) for name in bad] + [("160000", b"module", head), ("40000", b"..", raw([]))]
    entries += [("120000", b"link", blob), ("100755", b"run", blob), ("100644", b"ok.yaml", blob)]
    made = repository.create_commit(None, _who(), _who(), "x", pygit2.Oid(hex=raw(entries)), [])
    assert set(SourceMirror("main", str(models), tmp_path / "cache").at(str(made)).files) == {"run", "ok.yaml"}


def _who() -> pygit2.Signature:
    return pygit2.Signature("Eve", "eve@example.org", 1, 0)


def _nested(models: Path, depth: int, width: int, *, empty: bool = False) -> str:
    """A commit whose tree names the same tree ``width`` times, ``depth`` deep."""
    repository = pygit2.Repository(str(models))
    builder = repository.TreeBuilder()
    if not empty:
        builder.insert("f", repository.create_blob(b"x"), pygit2.enums.FileMode.BLOB)
    tree = builder.write()
    for _ in range(depth):
        builder = repository.TreeBuilder()
        for n in range(width):
            builder.insert(f"d{n}", tree, pygit2.enums.FileMode.TREE)
        tree = builder.write()
    return str(repository.create_commit(None, _who(), _who(), "x", tree, []))


def test_a_tree_bomb_is_refused(models: Path, tmp_path: Path) -> None:
    source = SourceMirror("main", str(models), tmp_path / "cache")
    with pytest.raises(SourceTooLarge, match="files"):
        source.at(_nested(models, 8, 10))
    with pytest.raises(SourceTooLarge, match="folders"):
        source.at(_nested(models, 8, 10, empty=True))
    with pytest.raises(SourceTooLarge, match="deeper"):
        source.at(_nested(models, MAX_DEPTH + 1, 1))
    assert source.newest().files


def test_the_first_bytes_of_a_large_file_do_not_cost_the_whole(models: Path, tmp_path: Path) -> None:
    commit(models, {"model.bin": b"head" + bytes(17 << 20)})
    tree = SourceMirror("main", str(models), tmp_path / "cache").newest()
    file = tree.files["model.bin"]
    assert tree.blobs.read(file, 4) == b"head"
    assert len(tree.blobs.read(file, file.size_bytes)) == file.size_bytes


def test_a_damaged_repository_is_a_fault(models: Path, tmp_path: Path) -> None:
    source = SourceMirror("main", str(models), tmp_path / "cache")
    blob = git(models, "rev-parse", "HEAD:fleet.yaml")
    file = source.newest().files["fleet.yaml"]
    path = models / ".git" / "objects" / blob[:2] / blob[2:]
    path.chmod(0o644)
    path.write_bytes(b"rubbish")
    with pytest.raises(SourceUnreadable):
        SourceMirror("main", str(models), tmp_path / "cache").newest().blobs.read(file, 10)


def test_sources_are_opened_once_and_told_to_look_again(models: Path, tmp_path: Path) -> None:
    sources = Sources(tmp_path / "cache", str(models))
    main = sources("main", None)
    assert sources("main", None) is main
    main.newest()
    sources.look_again("other")
    assert not main.due
    sources.look_again()
    assert main.due


def test_hooks_of_the_environment_do_not_lead_git_elsewhere(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert SourceMirror("main", f"file://{models}", tmp_path / "cache").newest().files


def test_several_threads_may_read(models: Path, tmp_path: Path) -> None:
    source = SourceMirror("main", str(models), tmp_path / "cache")
    tree = source.newest()
    found: list[dict[str, bytes]] = []
    threads = [threading.Thread(target=lambda: found.append(contents(tree))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [contents(tree)] * 4
