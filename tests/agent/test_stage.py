"""Staging: the right bytes under their digest, whatever is sent, cut, or full; nothing that runs is touched."""

from __future__ import annotations

import gzip
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config import Config
from agent.content import Content, DiskFull
from agent.http import Unreachable
from agent.oci import OCI_MANIFEST, BadReference, NotInRegistry, OtherBytes, Stream
from agent.partial import Partial, mark_of
from agent.proof import Fixed
from agent.sources import Sources
from agent.stage import FILE, BadArtifact, SiteBytes, UnknownMediaType
from agent.tree import ArtifactRefused, fingerprint
from agent.wire.canonical import canonical, digest
from agent.wire.errors import Stop
from agent.wire.release import Artifact, Entry
from gitops.artifacts import ArtifactStore
from gitops.packing import PackFile, pack

MODEL = b"weights " * 1000
WEIGHT = "application/vnd.cncf.model.weight.v1"


@dataclass
class Shelf:
    """A directory that a site may take blobs from."""

    root: Path
    site: SiteBytes
    content: Content

    def put(self, data: bytes) -> str:
        path = self.root / "blobs" / "sha256" / digest(data).removeprefix("sha256:")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return digest(data)

    def artifact(self, *layers: tuple[str, str, bytes], path: str = "") -> Entry:
        """An entry whose artifact has layers of (media type, file name, bytes)."""
        listed = [
            {
                "mediaType": kind,
                "digest": self.put(data),
                "size": len(data),
                "annotations": {"org.opencontainers.image.title": name} if name else {},
            }
            for kind, name, data in layers
        ]
        return self.manifest({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": listed}, path)

    def manifest(self, value: object, path: str = "", media_type: str = OCI_MANIFEST) -> Entry:
        data = value if isinstance(value, bytes) else canonical(value)
        return of(Artifact(self.put(data), len(data), media_type, "hub://models/reader", path))


def of(*artifacts: Artifact) -> Entry:
    return Entry("model", "reader", "1.0.0", "file", "sha256:" + "e" * 64, artifacts=artifacts)


def site(state: Path, store: Path | str, reserve_bytes: int = 0, **settings: object) -> tuple[SiteBytes, Content]:
    config = Config("milan-01", "f-1", store=str(store), **settings)  # type: ignore[arg-type]  # names are fields
    content = Content(state / "content", reserve_bytes)
    return SiteBytes(content, Sources(config, Fixed("secret"), state)), content


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store", *site(tmp_path / "state", tmp_path / "store"))


def tree_of(path: Path | None) -> dict[str, bytes]:
    assert path is not None
    return {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()}


def tar(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                out.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                out.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_what_the_hub_packs_is_what_the_site_gets(tmp_path: Path) -> None:
    store = ArtifactStore.open(tmp_path / "store")
    files = {"model.onnx": MODEL, "config/labels.json": b"[]"}
    packed = [
        PackFile(path, len(data), lambda data=data: io.BytesIO(data))  # type: ignore[misc]  # mypy takes it for untyped
        for path, data in files.items()
    ]
    entry = of(pack(store, "models/reader", packed, "reader", "1.0.0"))
    here, _ = site(tmp_path / "state", tmp_path / "store")
    told: list[int] = []
    staged = here.stage(entry, {"models/reader/x.yaml": b""}, told.append)
    assert tree_of(staged.content) == files
    assert staged.model == staged.content and staged.files == {"models/reader/x.yaml": b""}
    assert told == sorted(told) and told[-1] == entry.artifacts[0].size_bytes


def test_one_file_is_the_model_itself(shelf: Shelf) -> None:
    staged = shelf.site.stage(shelf.artifact((f"{WEIGHT}.raw", "weights/model.onnx", MODEL)), {})
    assert staged.content is not None
    assert staged.model == staged.content / "weights" / "model.onnx"


def test_a_plain_file_stands_under_the_name_that_the_release_gives(tmp_path: Path, shelf: Shelf) -> None:
    entry = of(Artifact(shelf.put(MODEL), len(MODEL), FILE, "hub://models/reader", "model.onnx"))
    staged = shelf.site.stage(entry, {})
    assert tree_of(staged.content) == {"model.onnx": MODEL}


def test_an_entry_without_an_artifact_is_staged_at_once(shelf: Shelf) -> None:
    staged = shelf.site.stage(of(), {"a": b"b"})
    assert staged.content is None and staged.model is None


def test_a_staged_artifact_is_read_only(shelf: Shelf) -> None:
    archive = tar(special("empty", tarfile.DIRTYPE), ("bin/run", b"x"))
    entry = shelf.artifact((f"{WEIGHT}.raw", "a/model.onnx", MODEL), (f"{WEIGHT}.tar", "", archive))
    staged = shelf.site.stage(entry, {})
    assert staged.content is not None
    for path in (staged.content, *staged.content.rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o222, path


def test_bytes_are_on_the_disk_once(shelf: Shelf) -> None:
    staged = shelf.site.stage(shelf.artifact((f"{WEIGHT}.raw", "model.onnx", MODEL)), {})
    assert staged.model is not None and staged.model.stat().st_nlink == 2
    archive = tar(("model.onnx", MODEL))
    shelf.site.stage(shelf.artifact((f"{WEIGHT}.tar", "", archive)), {})
    assert shelf.content.blob(digest(archive)) is None


@pytest.mark.parametrize("kind", [".tar", ".tar+gzip"])
def test_archives_are_unpacked(shelf: Shelf, kind: str) -> None:
    run = tarfile.TarInfo("bin/run")
    run.mode = 0o755
    data = tar(("./a/model.onnx", MODEL), special("./a/", tarfile.DIRTYPE), ("a/ü" + "x" * 150, b"y"), run)
    packed = gzip.compress(data) if kind.endswith("gzip") else data
    staged = shelf.site.stage(shelf.artifact((WEIGHT + kind, "", packed)), {})
    assert tree_of(staged.content) == {"a/model.onnx": MODEL, "a/ü" + "x" * 150: b"y", "bin/run": b""}
    assert staged.content is not None and os.access(staged.content / "bin" / "run", os.X_OK)


def test_of_an_image_only_the_named_directory_is_taken(shelf: Shelf) -> None:
    layer = tar(special("bin/sh", tarfile.SYMTYPE, "busybox"), ("models/reader.onnx", MODEL), ("modelsx/no", b""))
    entry = shelf.artifact(("application/vnd.oci.image.layer.v1.tar", "", layer), path="models")
    assert tree_of(shelf.site.stage(entry, {}).content) == {"reader.onnx": MODEL}


def test_a_file_that_oras_pushed_as_a_layer_is_a_file(shelf: Shelf) -> None:
    entry = shelf.artifact(("application/vnd.oci.image.layer.v1.tar", "model.onnx", MODEL))
    assert tree_of(shelf.site.stage(entry, {}).content) == {"model.onnx": MODEL}


def giant_header() -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 32
    return info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)


def damaged_header() -> bytes:
    data = bytearray(tar(("a", b"x"), ("b", b"y")))
    data[1024] ^= 1
    return bytes(data)


HOSTILE_ARCHIVES: dict[str, bytes] = {
    "leaves by ..": tar(("../x", b"")),
    "leaves by .. inside": tar(("a/../../x", b"")),
    "absolute": tar(("/etc/passwd", b"")),
    "symbolic link": tar(special("a", tarfile.SYMTYPE, "/etc/passwd")),
    "link and then through it": tar(special("a", tarfile.SYMTYPE, "/tmp"), ("a/x", b"")),
    "hard link": tar(special("a", tarfile.LNKTYPE, "../../key")),
    "character device": tar(special("a", tarfile.CHRTYPE)),
    "block device": tar(special("a", tarfile.BLKTYPE)),
    "fifo": tar(special("a", tarfile.FIFOTYPE)),
    "names that differ only in case": tar(("Model.onnx", b"a"), ("model.onnx", b"b")),
    "directories that differ only in case": tar(("A/x", b"a"), ("a/y", b"b")),
    "a name twice": tar(("a", b"1"), ("a", b"2")),
    "a file under a file": tar(("a", b"1"), ("a/b", b"2")),
    "a directory over a file": tar(("a", b"1"), special("a", tarfile.DIRTYPE)),
    "line break in a name": tar(("a\nb", b"")),
    "backslash in a name": tar(("a\\b", b"")),
    "a name of 300 letters": tar(("a" * 300, b"")),
    "giant header": giant_header(),
    "damaged header": damaged_header(),
    "cut within a file": tar(("a", MODEL))[:3000],
    "no archive": b"this is no archive at all" * 100,
    "no files": tar(special("a", tarfile.DIRTYPE)),
    "nothing": b"",
}


@pytest.mark.parametrize("archive", HOSTILE_ARCHIVES.values(), ids=HOSTILE_ARCHIVES.keys())
@pytest.mark.parametrize("compressed", [False, True], ids=["tar", "tar+gzip"])
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    shelf: Shelf, tmp_path: Path, archive: bytes, compressed: bool
) -> None:
    data = gzip.compress(archive) if compressed else archive
    entry = shelf.artifact((f"{WEIGHT}.tar{'+gzip' if compressed else ''}", "", data))
    with pytest.raises(ArtifactRefused):
        shelf.site.stage(entry, {})
    state = tmp_path / "state" / "content"
    assert not [*(state / "trees").iterdir()] and not [*(state / "making").iterdir()]
    assert {path.name for path in tmp_path.iterdir()} == {"state", "store"}


def test_a_bomb_is_refused(shelf: Shelf) -> None:
    bomb = gzip.compress(tar(("zeros", bytes(80 << 20))), compresslevel=9)
    with pytest.raises(ArtifactRefused, match="83886080 bytes"):
        shelf.site.stage(shelf.artifact((f"{WEIGHT}.tar+gzip", "", bomb)), {})


def test_a_bomb_of_many_files_is_refused(shelf: Shelf) -> None:
    bomb = gzip.compress(tar(*((str(n), bytes(4 << 20)) for n in range(20))), compresslevel=9)
    with pytest.raises(ArtifactRefused, match="bytes when unpacked"):
        shelf.site.stage(shelf.artifact((f"{WEIGHT}.tar+gzip", "", bomb)), {})


def test_too_many_files_are_refused(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.tree.MOST_FILES", 100)
    with pytest.raises(ArtifactRefused, match="more than 100 files"):
        shelf.site.stage(shelf.artifact((f"{WEIGHT}.tar", "", tar(*((str(n), b"") for n in range(101))))), {})


def test_a_gzip_stream_with_rubbish_in_it_is_refused(shelf: Shelf) -> None:
    data = bytearray(gzip.compress(tar(("a", os.urandom(5000)))))
    data[2500] ^= 0xFF
    with pytest.raises(ArtifactRefused):
        shelf.site.stage(shelf.artifact((f"{WEIGHT}.tar+gzip", "", bytes(data))), {})


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.integers(0, 4000), byte=st.integers(0, 255))
def test_a_damaged_archive_never_leaves_its_tree(shelf: Shelf, tmp_path: Path, at: int, byte: int) -> None:
    data = bytearray(tar(("a", b"x" * 600), ("b/c", b"y"), special("d", tarfile.DIRTYPE)))
    data[at % len(data)] = byte
    try:
        shelf.site.stage(shelf.artifact((f"{WEIGHT}.tar", "", bytes(data))), {})
    except Stop:
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"state", "store"}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (b"[]", BadArtifact),
        (b'{"layers": 3}', BadArtifact),
        (b'{"layers": []}', BadArtifact),
        (b'{"layers": [{"digest": "sha256:x", "size": 1, "mediaType": "a.raw"}]}', BadArtifact),
        (b'{"layers": [{"digest": "sha256:%b", "size": -1, "mediaType": "a.raw"}]}' % (b"0" * 64), BadArtifact),
        (b'{"layers": [{"digest": "sha256:%b", "size": 1, "mediaType": "a.raw"}]}' % (b"0" * 64), BadArtifact),
        (b'{"layers": [{"digest": "sha256:%b", "size": 1, "mediaType": "tar+zstd"}]}' % (b"0" * 64), UnknownMediaType),
        (b'{"a":' * 9000, BadArtifact),
    ],
    ids=["a list", "layers that are none", "no layers", "no digest", "negative", "no name", "zstd", "nested deep"],
)  # fmt: skip
def test_a_broken_manifest_is_refused(shelf: Shelf, value: bytes, fault: type[Stop]) -> None:
    with pytest.raises(fault):
        shelf.site.stage(shelf.manifest(value), {})


def test_an_index_is_refused_with_advice(shelf: Shelf) -> None:
    entry = shelf.manifest({}, media_type="application/vnd.oci.image.index.v1+json")
    with pytest.raises(UnknownMediaType, match="one platform"):
        shelf.site.stage(entry, {})


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\b", ""])
def test_a_layers_file_name_may_not_leave(shelf: Shelf, name: str) -> None:
    with pytest.raises((ArtifactRefused, BadArtifact)):
        shelf.site.stage(shelf.artifact((f"{WEIGHT}.raw", name, MODEL)), {})


def test_two_layers_may_not_collide(shelf: Shelf) -> None:
    with pytest.raises(ArtifactRefused, match="collide"):
        shelf.site.stage(shelf.artifact((f"{WEIGHT}.raw", "a", b"1"), (f"{WEIGHT}.raw", "A", b"2")), {})


def test_staging_twice_asks_nobody(tmp_path: Path, shelf: Shelf) -> None:
    entry = shelf.artifact((f"{WEIGHT}.raw", "model.onnx", MODEL))
    first = shelf.site.stage(entry, {})
    (tmp_path / "store").rename(tmp_path / "gone")
    again, _ = site(tmp_path / "state", tmp_path / "store")
    assert again.present(entry, {}) == first == again.stage(entry, {})


def test_a_shared_layer_is_fetched_once(tmp_path: Path, shelf: Shelf) -> None:
    shelf.site.stage(shelf.artifact((f"{WEIGHT}.raw", "model.onnx", MODEL)), {})
    entry = shelf.artifact((f"{WEIGHT}.raw", "model.onnx", MODEL), (f"{WEIGHT}.raw", "labels.txt", b"cat"))
    (tmp_path / "store" / "blobs" / "sha256" / digest(MODEL).removeprefix("sha256:")).unlink()
    assert tree_of(shelf.site.stage(entry, {}).content) == {"model.onnx": MODEL, "labels.txt": b"cat"}


def test_a_damaged_tree_is_not_present_and_is_made_again(tmp_path: Path, shelf: Shelf) -> None:
    entry = shelf.artifact((f"{WEIGHT}.raw", "model.onnx", MODEL))
    staged = shelf.site.stage(entry, {})
    assert staged.model is not None
    staged.model.chmod(0o600)
    with staged.model.open("r+b") as file:
        file.truncate(10)
    again, content = site(tmp_path / "state", tmp_path / "store")
    assert again.present(entry, {}) is None
    assert not content.verify_tree(entry.artifacts[0].digest)
    assert tree_of(again.stage(entry, {}).content) == {"model.onnx": MODEL}
    assert content.verify_tree(entry.artifacts[0].digest, deep=True)


def test_rot_of_one_byte_is_seen_by_a_deep_look(shelf: Shelf) -> None:
    entry = shelf.artifact((f"{WEIGHT}.raw", "model.onnx", MODEL))
    staged = shelf.site.stage(entry, {})
    assert staged.model is not None
    staged.model.chmod(0o600)
    with staged.model.open("r+b") as file:
        file.write(b"X")
    assert shelf.content.verify_tree(entry.artifacts[0].digest)
    assert not shelf.content.verify_tree(entry.artifacts[0].digest, deep=True)


def test_collecting_keeps_what_is_needed_and_nothing_else(tmp_path: Path, shelf: Shelf) -> None:
    kept = shelf.artifact((f"{WEIGHT}.raw", "model.onnx", MODEL), (f"{WEIGHT}.tar", "", tar(("a", b"a"))))
    gone = shelf.artifact((f"{WEIGHT}.raw", "model.onnx", b"old" + MODEL), (f"{WEIGHT}.raw", "same", MODEL))
    coming = shelf.artifact((f"{WEIGHT}.raw", "model.onnx", b"new" + MODEL))
    staged = shelf.site.stage(kept, {})
    shelf.site.stage(gone, {})
    shelf.content.put(coming.artifacts[0].digest, shelf_bytes(tmp_path, coming.artifacts[0].digest))
    half = tmp_path / "state" / "content" / "partial" / digest(b"new" + MODEL).removeprefix("sha256:")
    other = half.with_name("f" * 64)
    half.write_bytes(b"new")
    other.write_bytes(b"?")
    before = tree_of(staged.content)
    shelf.site.collect([kept, coming])
    assert tree_of(staged.content) == before and shelf.content.verify_tree(kept.artifacts[0].digest, deep=True)
    assert shelf.site.present(gone, {}) is None and shelf.content.blob(digest(b"old" + MODEL)) is None
    assert half.exists() and not other.exists()
    assert shelf.content.blob(coming.artifacts[0].digest) is not None


def shelf_bytes(tmp_path: Path, name: str) -> bytes:
    return (tmp_path / "store" / "blobs" / "sha256" / name.removeprefix("sha256:")).read_bytes()


def test_two_artifacts_of_one_entry_are_refused(shelf: Shelf) -> None:
    one = shelf.artifact((f"{WEIGHT}.raw", "a", MODEL)).artifacts[0]
    with pytest.raises(BadArtifact, match="takes one"):
        shelf.site.stage(of(one, one), {})


def test_a_source_that_is_not_there_can_be_there_later(tmp_path: Path, shelf: Shelf) -> None:
    entry = shelf.artifact((f"{WEIGHT}.raw", "model.onnx", MODEL))
    (tmp_path / "store").rename(tmp_path / "gone")
    with pytest.raises(NotInRegistry):
        shelf.site.stage(entry, {})
    (tmp_path / "gone").rename(tmp_path / "store")
    assert shelf.site.stage(entry, {}).model is not None


# ── files of the site itself ──────────────────────────────────────────────────────────────────────────────────────


def file_entry(path: Path, data: bytes = MODEL) -> Entry:
    return of(Artifact(digest(data), len(data), FILE, f"file://{path}", "model.onnx"))


def test_a_file_is_taken_from_below_an_allowed_directory(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.onnx").write_bytes(MODEL)
    here, _ = site(tmp_path / "state", "", file_roots=(str(tmp_path / "models"),))
    assert tree_of(here.stage(file_entry(tmp_path / "models" / "a.onnx"), {}).content) == {"model.onnx": MODEL}


@pytest.mark.parametrize("path", ["key", "models/../key", "models/link", "models/below/key", "models", "modelsx/key"])
def test_no_other_file_of_the_machine_can_be_taken(tmp_path: Path, path: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "modelsx").mkdir()
    for name in ("key", "modelsx/key"):
        (tmp_path / name).write_bytes(MODEL)
    (tmp_path / "models" / "link").symlink_to(tmp_path / "key")
    (tmp_path / "models" / "below").symlink_to(tmp_path)
    here, content = site(tmp_path / "state", "", file_roots=(str(tmp_path / "models"),))
    with pytest.raises((BadReference, NotInRegistry)):
        here.stage(file_entry(tmp_path / path), {})
    assert content.blob(digest(MODEL)) is None


def test_without_allowed_directories_no_file_can_be_taken(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(MODEL)
    with pytest.raises(BadReference, match="file_roots"):
        site(tmp_path / "state", "")[0].stage(file_entry(tmp_path / "a"), {})


@pytest.mark.parametrize("ref", ["", "models", "ftp://x/y", "hub://models/a", "oci://", "oci://x", "file://host/x"])
def test_a_reference_to_nowhere_is_refused(tmp_path: Path, ref: str) -> None:
    with pytest.raises(Stop):
        site(tmp_path / "state", "")[0].stage(of(Artifact(digest(b""), 0, FILE, ref)), {})


# ── bytes on their way ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Wire:
    """A source that can be cut, can lie, and says what it was asked for."""

    data: bytes
    cut_at: int = 1 << 60
    ranges: bool = True
    asked: list[int] = field(default_factory=list)

    @contextmanager
    def __call__(self, first: int) -> Iterator[Stream]:
        self.asked.append(first)
        yield WireStream(self, first if self.ranges else 0)


@dataclass
class WireStream:
    wire: Wire
    first: int
    sent: int = 0

    def read(self) -> bytes:
        at = self.first + self.sent
        if at >= self.wire.cut_at:
            raise Unreachable("cut")
        data = self.wire.data[at : min(at + 70_000, self.wire.cut_at)]
        self.sent += len(data)
        return data


BIG = os.urandom(1 << 20)


def test_a_cut_download_goes_on_where_it_was(tmp_path: Path) -> None:
    wire = Wire(BIG, cut_at=300_000)
    content = Content(tmp_path, 0)
    with pytest.raises(Unreachable):
        content.bring(digest(BIG), len(BIG), wire)
    assert content.bytes_here(digest(BIG)) == 300_000
    wire.cut_at = 1 << 60
    assert Content(tmp_path, 0).bring(digest(BIG), len(BIG), wire).read_bytes() == BIG
    assert wire.asked == [0, 300_000] and not [*(tmp_path / "partial").iterdir()]


def test_a_source_without_ranges_begins_again(tmp_path: Path) -> None:
    wire = Wire(BIG, cut_at=300_000, ranges=False)
    content = Content(tmp_path, 0)
    with pytest.raises(Unreachable):
        content.bring(digest(BIG), len(BIG), wire)
    wire.cut_at = 1 << 60
    assert content.bring(digest(BIG), len(BIG), wire).read_bytes() == BIG


@pytest.mark.parametrize("sent", [BIG[:-1] + b"?", BIG + b"?"], ids=["other bytes", "a byte too many"])
def test_other_bytes_are_thrown_away_and_a_mended_source_will_do(tmp_path: Path, sent: bytes) -> None:
    wire = Wire(sent)
    content = Content(tmp_path, 0)
    with pytest.raises(OtherBytes):
        content.bring(digest(BIG), len(BIG), wire)
    assert content.bytes_here(digest(BIG)) == 0 and content.blob(digest(BIG)) is None
    wire.data = BIG
    assert content.bring(digest(BIG), len(BIG), wire).read_bytes() == BIG


def test_what_a_power_cut_leaves_behind_the_mark_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    with Partial(path) as partial:
        partial.add(BIG[:1000])
    with path.open("ab") as file:
        file.write(bytes(500))
    with Partial(path) as partial:
        assert partial.size_bytes == 1000 and partial.digest == digest(BIG[:1000])
    mark_of(path).write_bytes(b"\0\0")
    with Partial(path) as partial:
        assert partial.size_bytes == 0


def test_progress_may_stop_a_download_and_keeps_what_came(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(bytes_here: int) -> None:
        if bytes_here > 200_000:
            raise Enough

    content = Content(tmp_path, 0)
    with pytest.raises(Enough):
        content.bring(digest(BIG), len(BIG), Wire(BIG), stop)
    assert content.bytes_here(digest(BIG)) == 210_000


KILLED = """
import os, signal, sys
from pathlib import Path
from contextlib import contextmanager
from agent.content import Content
state, name, size, source, most = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5])

class Cut:
    def __init__(self, first):
        self.first, self.file = first, source.open("rb")
        self.file.seek(first)
    def read(self):
        data = self.file.read(50_000)
        if self.file.tell() - self.first >= most:
            os.kill(os.getpid(), signal.SIGKILL)
        return data

@contextmanager
def fetch(first):
    print(first, flush=True)
    yield Cut(first)

Content(state, 0).bring(name, size, fetch)
"""


def test_a_download_survives_kill_9_again_and_again(tmp_path: Path) -> None:
    data = os.urandom(20 << 20)
    (tmp_path / "source").write_bytes(data)
    begun = []
    for _ in range(20):
        arguments = [str(tmp_path / "state"), digest(data), str(len(data)), str(tmp_path / "source"), str(6 << 20)]
        done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        begun.append(int(done.stdout or 0))
        if done.returncode == 0:
            break
    blob = Content(tmp_path / "state", 0).blob(digest(data))
    assert blob is not None and digest(blob.read_bytes()) == digest(data)
    assert begun == sorted(set(begun)) and len(begun) > 2


# ── a full disk ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("only root can mount a disk of 1 MiB")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_what_does_not_fit_is_not_even_begun(tmp_path: Path, small_disk: Path, shelf: Shelf) -> None:
    running = shelf.artifact((f"{WEIGHT}.raw", "model.onnx", MODEL))
    here, _ = site(small_disk, tmp_path / "store")
    before = tree_of(here.stage(running, {}).content)
    with pytest.raises(DiskFull):
        here.stage(shelf.artifact((f"{WEIGHT}.raw", "model.onnx", BIG)), {})
    staged = here.present(running, {})
    assert staged is not None and tree_of(staged.content) == before
    assert not [*(small_disk / "content" / "partial").iterdir()]


def test_a_disk_that_fills_up_underway_stops_staging_and_harms_nothing(
    tmp_path: Path, small_disk: Path, shelf: Shelf
) -> None:
    running = shelf.artifact((f"{WEIGHT}.raw", "model.onnx", MODEL))
    here, content = site(small_disk, tmp_path / "store")
    before = tree_of(here.stage(running, {}).content)

    def others_write_too(bytes_here: int) -> None:
        if bytes_here and not (small_disk / "others").exists():
            (small_disk / "others").write_bytes(bytes(600_000))

    data = BIG[:900_000]
    with pytest.raises(DiskFull):
        content.bring(digest(data), len(data), Wire(data), others_write_too)
    staged = here.present(running, {})
    assert staged is not None and tree_of(staged.content) == before
    (small_disk / "others").unlink()
    wire = Wire(data)
    assert content.bring(digest(data), len(data), wire).read_bytes() == data
    assert wire.asked[0] > 0


def test_a_disk_that_is_full_while_unpacking_leaves_no_half_tree(
    tmp_path: Path, small_disk: Path, shelf: Shelf
) -> None:
    entry = shelf.artifact((f"{WEIGHT}.tar+gzip", "", gzip.compress(tar(("zeros", bytes(4 << 20))))))
    here, _ = site(small_disk, tmp_path / "store")
    with pytest.raises(DiskFull):
        here.stage(entry, {})
    content = small_disk / "content"
    assert not [*(content / "making").iterdir()] and not [*(content / "trees").iterdir()]


def test_the_reserve_stays_free(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with pytest.raises(DiskFull):
        Content(tmp_path, reserve_bytes=free * 2).bring(digest(MODEL), len(MODEL), Wire(MODEL))


def test_a_fingerprint_changes_with_the_bytes_and_not_by_looking(tmp_path: Path) -> None:
    file = tmp_path / "d" / "f"
    file.parent.mkdir()
    file.write_text("one")
    before = fingerprint(tmp_path / "d")
    assert fingerprint(tmp_path / "d") == before
    file.write_text("two!")
    assert fingerprint(tmp_path / "d") != before
    assert fingerprint(tmp_path / "nothing") == ""


def tamper(path: Path) -> None:
    """Change one byte and nothing that a look at names and sizes shows."""
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["file", "manifest", "archive"])
@pytest.mark.parametrize("gone", [False, True], ids=["changed", "changed and gone"])
def test_after_a_doubt_changed_bytes_are_brought_anew(shelf: Shelf, kind: str, gone: bool) -> None:
    if kind == "file":
        entry = of(Artifact(shelf.put(MODEL), len(MODEL), FILE, "hub://models/reader", "model"))
    elif kind == "manifest":
        entry = shelf.artifact((WEIGHT, "model", MODEL))
    else:
        entry = shelf.artifact((f"{WEIGHT}.tar", "", tar(("model", MODEL))))
    staged = shelf.site.stage(entry, {})
    assert staged.model is not None and staged.verified == fingerprint(staged.model)
    tamper(staged.model)
    if gone:
        staged.model.parent.chmod(0o755)
        staged.model.unlink()
    shelf.site.doubt(entry)
    assert shelf.site.present(entry, {}) is None
    again = shelf.site.stage(entry, {})
    assert again.model is not None and again.model.read_bytes() == MODEL
    assert again.verified == fingerprint(again.model)


def test_after_a_doubt_bytes_that_are_right_are_not_brought_again(shelf: Shelf) -> None:
    entry = shelf.artifact((WEIGHT, "model", MODEL))
    staged = shelf.site.stage(entry, {})
    assert staged.model is not None
    os.utime(staged.model, ns=(1, 1))
    shelf.site.doubt(entry)
    again = shelf.site.present(entry, {})
    assert again is not None and again.model is not None and again.verified == fingerprint(again.model)


def test_a_new_agent_takes_no_bytes_for_verified(shelf: Shelf, tmp_path: Path) -> None:
    entry = shelf.artifact((WEIGHT, "model", MODEL))
    shelf.site.stage(entry, {})
    fresh = SiteBytes(shelf.content, Sources(Config("milan-01", "f-1"), Fixed(""), tmp_path))
    found = fresh.present(entry, {})
    assert found is not None and found.verified == ""
