"""Packs as git reads them, and torn ones that nobody sees."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pygit2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitops import pack
from gitops.fleet_tree import BLOB, TREE, Layout, Trees, decode_tree, encode_tree
from gitops.pack import Kind, PackWriter, object_id


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    pygit2.init_repository(str(tmp_path), bare=True)
    return tmp_path / "objects" / "pack"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> pygit2.Repository:
    return pygit2.init_repository(str(tmp_path_factory.mktemp("trees")), bare=True)


def git(packs: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    command = ["git", "--git-dir", str(packs.parents[1]), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=True).stdout


def test_git_reads_every_size_of_object(packs: Path) -> None:
    datas = [os.urandom(size // 2).hex().encode() for size in (0, 2, 14, 16, 510, 514, 2046, 2048, 262_142, 6 << 20)]
    with PackWriter(packs, frozenset()) as writer:
        oids = [writer.put("blob", data) for data in datas]
        writer.finish()
    for oid, data in zip(oids, datas, strict=True):
        assert git(packs, "cat-file", "blob", oid.hex()) == data
    (index,) = packs.glob("*.idx")
    git(packs, "verify-pack", str(index))
    git(packs, "fsck", "--strict")


def test_an_index_with_offsets_beyond_two_gigabytes_is_read() -> None:
    offsets = (12, 1 << 31, (1 << 31) - 1, 5 << 32)
    data = pack._index({bytes([n]) * 20: offset << 32 | n for n, offset in enumerate(offsets)}, b"\0" * 20)
    shown = subprocess.run(["git", "show-index"], input=data, capture_output=True, check=True).stdout.decode()
    assert [line.split()[0] for line in shown.splitlines()] == [str(offset) for offset in offsets]


def test_what_is_present_is_not_written(packs: Path) -> None:
    present = {object_id("blob", b"old")}
    with PackWriter(packs, present) as writer:
        assert writer.put("blob", b"old") in present
        writer.finish()
        assert not list(packs.iterdir())
        assert writer.put("blob", b"new") == writer.put("blob", b"new")
        assert len(writer.written) == 1


def test_a_writer_that_fails_leaves_nothing(packs: Path) -> None:
    with pytest.raises(RuntimeError), PackWriter(packs, frozenset()) as writer:
        writer.put("blob", os.urandom(5 << 20))
        writer.put("blob", b"x")
        raise RuntimeError
    assert not list(packs.iterdir())


def test_the_same_objects_give_the_same_pack(packs: Path) -> None:
    for _ in range(2):
        with PackWriter(packs, frozenset()) as writer:
            writer.put("blob", b"one" * 1000)
            writer.finish()
    assert len(list(packs.iterdir())) == 2


names = st.text("ab.-_0", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=4).map("/".join)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(names.map(str.encode), st.sampled_from((TREE, BLOB)), min_size=1))
def test_trees_are_as_git_writes_them(repository: pygit2.Repository, entries: dict[bytes, bytes]) -> None:
    builder = repository.TreeBuilder()
    found = {}
    for name, mode in entries.items():
        oid = repository.odb.write(pygit2.enums.ObjectType.TREE if mode == TREE else pygit2.enums.ObjectType.BLOB, b"")
        builder.insert(name.decode(), oid, int(mode, 8))
        found[name] = (mode, bytes(oid.raw))
    data = encode_tree(found)
    assert object_id("tree", data).hex() == str(builder.write())
    assert decode_tree(data) == found


@settings(max_examples=200, deadline=None)
@given(st.sets(paths, min_size=1, max_size=12))
def test_a_layout_writes_what_editing_file_by_file_writes(chosen: set[str]) -> None:
    files = sorted(path for path in chosen if not any(other.startswith(f"{path}/") for other in chosen))
    objects: dict[bytes, bytes] = {}

    def put(kind: Kind, data: bytes) -> bytes:
        oid = object_id(kind, data)
        objects[oid] = data
        return oid

    oids = [put("blob", path.encode()) for path in files]
    trees = Trees(objects.__getitem__)
    top: bytes | None = None
    for path, oid in zip(files, oids, strict=True):
        edits: dict[bytes, object] = {path.split("/")[-1].encode(): (BLOB, oid)}
        for part in reversed(path.split("/")[:-1]):
            edits = {part.encode(): edits}
        top = trees.changed(top, edits, put)  # type: ignore[arg-type]  # built inside out
    assert Layout(files).write(oids, put) == top
    assert top is not None and all(trees.find(top, path) == (BLOB, oid) for path, oid in zip(files, oids, strict=True))
    for path in files:
        edits = {path.split("/")[-1].encode(): None}
        for part in reversed(path.split("/")[:-1]):
            edits = {part.encode(): edits}
        top = trees.changed(top, edits, put)  # type: ignore[arg-type]  # built inside out
    assert top is None, "a directory goes with its last file"
