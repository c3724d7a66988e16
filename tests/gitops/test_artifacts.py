"""The embedded OCI store and the packing of files into it."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from agent.wire.canonical import canonical, digest
from agent.wire.errors import DigestMismatch
from gitops.artifacts import ArtifactStore, NoSuchBlob
from gitops.oci_manifest import OCI_INDEX, OCI_MANIFEST, BadManifest
from gitops.packing import ContentChanged, PackFile, TooMuchContent, UnsafeContent, pack
from gitops.repository_index import BadRepository


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.open(tmp_path / "artifacts")


def file(path: str, data: bytes = b"weights", size: int | None = None) -> PackFile:
    return PackFile(path, len(data) if size is None else size, lambda: io.BytesIO(data))


def manifest(*layers: str, kind: str = OCI_MANIFEST) -> bytes:
    return canonical({"schemaVersion": 2, "mediaType": kind, "layers": [{"digest": one} for one in layers]})


def test_a_blob_comes_back_as_it_went_in(store: ArtifactStore) -> None:
    data = os.urandom(3 << 20)
    stored = store.put_blob(io.BytesIO(data), digest(data))
    assert (stored.digest, stored.size_bytes) == (digest(data), len(data))
    with store.open_blob(stored.digest) as back:
        assert back.read() == data
    assert (store.root / "blobs" / "sha256" / digest(data)[7:]).read_bytes() == data


def test_other_bytes_than_the_digest_names_are_not_kept(store: ArtifactStore) -> None:
    with pytest.raises(DigestMismatch):
        store.put_blob(io.BytesIO(b"other"), digest(b"these"))
    assert not store.has(digest(b"other"))
    assert not store.has(digest(b"these"))
    assert not list((store.root / "incoming").iterdir())


@pytest.mark.parametrize("name", ["", "sha256:zz", "../../etc/passwd", "sha256:" + "A" * 64, "sha512:" + "a" * 64])
def test_only_digests_are_asked_for(store: ArtifactStore, name: str) -> None:
    with pytest.raises(NoSuchBlob):
        store.open_blob(name)


@pytest.mark.parametrize(
    "name", ["", "../x", "a//b", "/a", "A", "a/../b", "a-", "a/index.json", "oci-layout", "x" * 256, "a-a" * 60 + "!"]
)
def test_repositories_have_safe_names(store: ArtifactStore, name: str) -> None:
    with pytest.raises(BadRepository):
        store.put_manifest(name, manifest())


def test_a_manifest_is_of_its_repository_alone(store: ArtifactStore) -> None:
    blob = store.put_bytes(b"layer").digest
    wanted = store.put_manifest("models/a", manifest(blob), tag="1.0.0")
    store.put_manifest("models/b", manifest())
    assert store.manifest("models/a", wanted) == manifest(blob)
    assert store.blobs_of(wanted) == {wanted, blob}
    with pytest.raises(NoSuchBlob):
        store.manifest("models/b", wanted)
    with pytest.raises(NoSuchBlob):
        store.manifest("models/a", blob)


def test_an_index_leads_to_the_blobs_of_its_manifests(store: ArtifactStore) -> None:
    blob = store.put_bytes(b"layer").digest
    inner = store.put_manifest("models/a", manifest(blob))
    outer = store.put_manifest(
        "models/a", canonical({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{"digest": inner}]})
    )
    assert store.blobs_of(outer) == {outer, inner, blob}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"[" * 100_000, id="nested deep"),
        pytest.param(manifest(kind="text/html"), id="another media type"),
        pytest.param(manifest("sha256:zz"), id="no digest"),
        pytest.param(canonical({"mediaType": OCI_MANIFEST, "layers": 7}), id="layers that are no list"),
        pytest.param(manifest("sha256:" + "0" * 64), id="a blob that is missing"),
        pytest.param(b" " * (4 << 20) + b" ", id="too large"),
    ],
)
def test_what_is_no_manifest_is_refused(store: ArtifactStore, data: bytes) -> None:
    with pytest.raises(BadManifest):
        store.put_manifest("models/a", data)


def test_a_tag_moves_and_the_manifest_stays(store: ArtifactStore) -> None:
    blob = store.put_bytes(b"layer").digest
    first, second = store.put_manifest("m", manifest(), "stable"), store.put_manifest("m", manifest(blob), "stable")
    listed = json.loads((store.root / "repositories/m/index.json").read_bytes())["manifests"]
    assert {one["digest"]: one.get("annotations") for one in listed} == {
        second: {"org.opencontainers.image.ref.name": "stable"},
        first: None,
    }
    assert store.manifest("m", first) == manifest()


def test_the_directory_is_an_oci_layout(store: ArtifactStore) -> None:
    pack(store, "models/a", [file("model.onnx")], "a", "1.0.0")
    for directory in (store.root, store.root / "repositories/models/a"):
        assert json.loads((directory / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
        assert json.loads((directory / "index.json").read_bytes())["mediaType"] == OCI_INDEX


def test_the_same_files_give_the_same_digest_in_any_order_and_store(tmp_path: Path) -> None:
    files = [file("b/vocab.txt", b"words"), file("model.onnx", b"w" * 100), file("README.md", b"read me")]
    one = pack(ArtifactStore.open(tmp_path / "1"), "models/a", files, "a", "1.0.0")
    two = pack(ArtifactStore.open(tmp_path / "2"), "models/a", files[::-1], "a", "1.0.0")
    assert one == two
    assert one.size_bytes == 5 + 100 + 7
    assert one.ref == "hub://models/a"


def test_the_manifest_is_a_modelpack(store: ArtifactStore) -> None:
    artifact = pack(store, "models/a", [file("model.onnx", b"w" * 9), file("config.json", b"{}")], "a", "1.0.0")
    top = json.loads(store.manifest("models/a", artifact.digest))
    assert (top["mediaType"], top["artifactType"]) == (OCI_MANIFEST, "application/vnd.cncf.model.manifest.v1+json")
    assert [(one["mediaType"], one["annotations"]["org.cncf.model.filepath"]) for one in top["layers"]] == [
        ("application/vnd.cncf.model.weight.config.v1.raw", "config.json"),
        ("application/vnd.cncf.model.weight.v1.raw", "model.onnx"),
    ]
    assert top["layers"][1]["annotations"]["org.opencontainers.image.title"] == "model.onnx"
    assert json.loads(top["layers"][1]["annotations"]["org.cncf.model.file.metadata+json"])["size"] == 9
    with store.open_blob(top["config"]["digest"]) as config:
        assert json.load(config) == {
            "descriptor": {"name": "a", "version": "1.0.0"},
            "config": {"format": "onnx"},
            "modelfs": {"type": "layers", "diffIds": [one["digest"] for one in top["layers"]]},
        }


@pytest.mark.parametrize(
    "paths",
    [
        ["../x"],
        ["/etc/passwd"],
        ["a/../b"],
        ["a//b"],
        ["a\\b"],
        ["a\nb"],
        [""],
        ["x" * 513],
        ["Model.onnx", "model.onnx"],
        ["a", "a/b"],
        ["A/x", "a/y"],
        ["same", "same"],
    ],
    ids=repr,
)
def test_unsafe_and_colliding_paths_are_refused(store: ArtifactStore, paths: list[str]) -> None:
    with pytest.raises(UnsafeContent):
        pack(store, "models/a", [file(path) for path in paths], "a", "1.0.0")


def test_directories_with_several_files_do_not_collide(store: ArtifactStore) -> None:
    pack(store, "models/a", [file("a/x"), file("a/y"), file("a/b/z"), file("a.b")], "a", "1.0.0")


def test_no_files_and_too_many_files_are_refused(store: ArtifactStore) -> None:
    for files in ([], [file(str(n)) for n in range(4097)]):
        with pytest.raises(TooMuchContent):
            pack(store, "models/a", files, "a", "1.0.0")


def test_a_file_of_another_length_than_its_tree_says_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(ContentChanged):
        pack(store, "models/a", [file("model.onnx", b"short", size=500)], "a", "1.0.0")


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import io, resource, sys
        from pathlib import Path
        from gitops.artifacts import ArtifactStore, StoreFull
        store = ArtifactStore.open(Path(sys.argv[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            store.put_blob(io.BytesIO(bytes(1_000_000)))
        except StoreFull as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert "EF2183 StoreFull" in done.stdout
    assert not list((tmp_path / "blobs/sha256").iterdir())
    assert not list((tmp_path / "incoming").iterdir())


def test_packing_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as sparse:
        sparse.truncate(300 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = ArtifactStore.open(tmp_path / "artifacts")
    artifact = pack(store, "models/a", [PackFile("big.onnx", 300 << 20, lambda: big.open("rb"))], "a", "1.0.0")
    assert artifact.size_bytes == 300 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
