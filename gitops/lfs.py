"""Git LFS: pointers in Git → the large files they stand for, fetched once and verified.

Source: git-lfs docs/spec.md (pointer) and docs/api/batch.md.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol, runtime_checkable

from agent.wire.errors import EdgeferryError, Retry, Stop
from gitops.git_cli import local_path, redacted
from gitops.lfs_http import LfsFailed, LfsServer
from gitops.tree import File, Tree

POINTER_BYTES: Final = 1024
"""No pointer is longer."""

MAX_FILE_BYTES: Final = 256 << 30

_VERSION: Final = re.compile(rb"version https?://(git-lfs\.github\.com|hawser\.github\.com)/spec/v1\n")
_LINE: Final = re.compile(rb"([a-z0-9.-]+) ([^\n]*)\n")
_OID: Final = re.compile(rb"sha256:([0-9a-f]{64})\Z")
_SIZE: Final = re.compile(rb"[0-9]{1,15}\Z")


class LargeFileUnavailable(Retry):
    """A Git LFS file cannot be had now: its server does not have it, refuses it, or cannot be reached."""

    code = "EF1204"
    delay_s = 30.0


class LargeFileMismatch(Stop):
    """The bytes of a Git LFS file are not those of its pointer."""

    code = "EF1205"


class BadPointer(Stop):
    """A file begins as a Git LFS pointer and is none."""

    code = "EF1206"


@dataclass(frozen=True, slots=True)
class Pointer:
    """What stands in Git for a large file.

    Attributes:
        oid: sha256 of the file, 64 hex digits.
        size_bytes: of the file.
    """

    oid: str
    size_bytes: int


@runtime_checkable
class LargeFiles(Protocol):
    """Blobs of a source that knows where its large files are."""

    def large_file(self, pointer: Pointer) -> Path:
        """Return the large file on this machine, fetched if need be, and verified."""


def parse_pointer(data: bytes, where: str) -> Pointer | None:
    """Return the pointer that a file is; None where it is an ordinary file.

    Args:
        data: the file, or its first ``POINTER_BYTES``.
        where: for the message of the fault.

    Raises:
        BadPointer: it begins as one and is none: a half-merged or cut pointer must not pass for a model.
    """
    if not _VERSION.match(data):
        return None
    lines = [(found[1], found[2]) for found in _LINE.finditer(data)]
    fields = dict(lines)
    oid, size = _OID.match(fields.get(b"oid", b"")), _SIZE.match(fields.get(b"size", b""))
    whole = sum(len(name) + len(value) + 2 for name, value in lines) == len(data)
    if not whole or len(fields) != len(lines) or oid is None or size is None or int(size[0]) > MAX_FILE_BYTES:
        raise BadPointer("a broken Git LFS pointer", where=where, do="commit the file again with git-lfs installed")
    return Pointer(oid[1].decode(), int(size[0]))


def open_large(tree: Tree, file: File, head: bytes) -> tuple[int, Callable[[], BinaryIO]] | None:
    """Return size and opener of the large file that ``file`` points to; None where it is no pointer.

    Args:
        tree: that the file is of.
        file: the file.
        head: its first ``POINTER_BYTES``.

    Raises:
        BadPointer: it begins as a pointer and is none.
        LargeFileUnavailable: it cannot be had now.
        LargeFileMismatch: other bytes came.
    """
    pointer = parse_pointer(head, file.path)
    if pointer is None:
        return None
    if not isinstance(tree.blobs, LargeFiles):
        raise LargeFileUnavailable(
            "a Git LFS pointer in a folder", where=file.path, do="git lfs pull, or name the repository instead"
        )
    try:
        path = tree.blobs.large_file(pointer)
    except EdgeferryError as error:
        raise type(error)(error.what, where=f"{file.path} ({error.where})", do=error.do) from None
    return pointer.size_bytes, lambda: path.open("rb")


class LargeFileStore:
    """Large files of one source on this machine, named after their digests. Safe for several threads.

    Args:
        url: of the source's repository.
        directory: where they are kept; a bare repository's ``lfs/objects`` has the same shape.
        timeout_s: of each network call.
    """

    def __init__(self, url: str, directory: Path, timeout_s: float = 60.0) -> None:
        self._url = url
        self._directory = directory
        self._timeout_s = timeout_s
        self._lock = threading.Lock()

    def get(self, pointer: Pointer) -> Path:
        """Return the file, fetched if it is not here yet."""
        path = object_path(self._directory, pointer)
        if path.is_file() and path.stat().st_size == pointer.size_bytes:
            return path  # verified when it was put here, and again by who packs it
        with self._lock:
            if not path.is_file() or path.stat().st_size != pointer.size_bytes:
                fetch(self._url, (pointer,), self._directory, self._timeout_s)
        return path


def object_path(directory: Path, pointer: Pointer) -> Path:
    """Return where git-lfs keeps an object below an ``objects`` directory."""
    return directory / pointer.oid[:2] / pointer.oid[2:4] / pointer.oid


def fetch(url: str, pointers: Sequence[Pointer], into: Path, timeout_s: float = 60.0) -> None:
    """Bring large files into a directory; each is verified before it appears there.

    Args:
        url: of the Git repository: a path, ``file://``, ``http(s)://`` or SSH.
        pointers: what to fetch.
        into: laid out as git-lfs does.
        timeout_s: of each network call, not of the transfer.

    Raises:
        LargeFileUnavailable: one cannot be had; those before it are there.
        LargeFileMismatch: other bytes came than the pointer names.
    """
    folder = local_path(url.removeprefix("file://"))
    try:
        if folder is not None:
            for pointer in pointers:
                _copy(folder, pointer, into)
            return
        server = LfsServer(url, timeout_s)
        offers = server.downloads([(one.oid, one.size_bytes) for one in pointers])
        for pointer in pointers:
            with server.open(offers[pointer.oid]) as stream:
                _keep(stream, pointer, into, redacted(url))
    except LfsFailed as error:
        raise LargeFileUnavailable(
            str(error), where=redacted(url), do="git lfs push --all from a clone that has it; check the credentials"
        ) from None
    except OSError as error:
        raise LargeFileUnavailable(
            f"cannot be kept: {error.strerror or error}", where=str(into), do="free space or mend the rights"
        ) from None


def _copy(repository: Path, pointer: Pointer, into: Path) -> None:
    for folder in (repository / ".git" / "lfs" / "objects", repository / "lfs" / "objects"):
        path = object_path(folder, pointer)
        if path.is_file():
            with path.open("rb") as stream:
                _keep(stream, pointer, into, str(path))
            return
    raise LfsFailed(f"no large file {pointer.oid[:12]} there")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _keep(stream: _Readable, pointer: Pointer, into: Path, where: str) -> None:
    path = object_path(into, pointer)
    path.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(path.parent).free < pointer.size_bytes:
        raise LfsFailed(f"{pointer.size_bytes} bytes do not fit on the disk")
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    hasher, size = hashlib.sha256(), 0
    try:
        with beside.open("xb") as file:
            while size <= pointer.size_bytes and (piece := stream.read(1 << 20)):
                hasher.update(piece)
                size += len(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if size != pointer.size_bytes or hasher.hexdigest() != pointer.oid:
            raise LargeFileMismatch(
                f"{size} bytes came, not the {pointer.size_bytes} bytes with sha256 {pointer.oid[:12]}…",
                where=where,
                do="the server's copy is damaged: push it again with git lfs push --all",
            )
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
