"""An overlay on the wire: plain files only, bounded, the same bytes for the same files."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.overlay import Limits, OverlayRefused, check_path, pack, unpack

LIMITS = Limits(files=4, file_bytes=1000, total_bytes=2000)
FILES = {"release.json": b"{}", "models/a/x.yaml": b"kind: X\n"}


def archive(change: Callable[[tarfile.TarInfo], None], content: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        member = tarfile.TarInfo("file")
        member.size = len(content)
        change(member)
        out.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue())


def kind(value: bytes) -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname, member.size = value, "release.json", 0

    return change


def named(name: str) -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        member.name = name

    return change


def test_what_is_packed_is_unpacked() -> None:
    assert unpack(pack(FILES), LIMITS, "x") == FILES


def test_the_same_files_are_the_same_bytes() -> None:
    assert pack(FILES) == pack(dict(reversed(FILES.items())))


@pytest.mark.parametrize(
    "data",
    [
        archive(kind(tarfile.SYMTYPE)),
        archive(kind(tarfile.LNKTYPE)),
        archive(kind(tarfile.CHRTYPE)),
        archive(kind(tarfile.FIFOTYPE)),
        archive(kind(tarfile.DIRTYPE)),
        archive(named("../x")),
        archive(named("/etc/passwd")),
        archive(named("a/../../x")),
        archive(named("a\\b")),
        archive(named(".git/config")),
        archive(named("a\nb")),
        archive(lambda _: None, b"x" * 1001),
        pack({str(n): b"" for n in range(5)}),
        pack({str(n): b"x" * 900 for n in range(3)}),
        gzip.compress(bytes(64 << 20)),
        pack(FILES)[:-20],
        b"no gzip",
        b"",
    ],
    ids=[
        "symlink", "hard link", "device", "fifo", "directory", "parent", "absolute", "parent inside", "backslash",
        "git", "line break", "large file", "many files", "large in all", "gzip bomb", "cut short", "text", "nothing",
    ],
)  # fmt: skip
def test_a_hostile_overlay_is_refused(data: bytes) -> None:
    with pytest.raises(OverlayRefused):
        unpack(data, LIMITS, "x")


def test_a_name_that_stands_twice_is_refused() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for _ in range(2):
            out.addfile(tarfile.TarInfo("same"))
    with pytest.raises(OverlayRefused, match="twice"):
        unpack(gzip.compress(buffer.getvalue()), LIMITS, "x")


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(OverlayRefused):
        unpack(data, LIMITS, "x")


@given(st.text(max_size=40))
def test_an_accepted_path_stays_below_its_directory(path: str) -> None:
    try:
        check_path(path, "x")
    except OverlayRefused:
        return
    assert not path.startswith("/") and ".." not in path.split("/") and "\0" not in path
