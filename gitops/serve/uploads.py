"""Uploads under way: a file each, which grows where the last piece ended, also after the hub was restarted.

Source: OCI distribution specification 1.1, pushing blobs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.concurrency import run_in_threadpool

from agent.wire.canonical import is_digest
from agent.wire.errors import DigestMismatch
from gitops.artifacts import ArtifactStore, Stored
from gitops.serve.faults import Refusal

_ID: Final = re.compile(r"[0-9a-f]{32}\Z")
_SPAN: Final = re.compile(r"(?:bytes[= ])?(\d{1,18})-(\d{1,18})(?:/.*)?\Z")


class NoSuchUpload(Refusal):
    """There is no upload of this name: it is complete, was cancelled, or lay still for a day."""

    code = "EF3301"
    status = 404


class WrongPiece(Refusal):
    """A piece of an upload does not begin where the last one ended."""

    code = "EF3302"
    status = 416


class BadUpload(Refusal):
    """An upload cannot become what was asked for: no digest, other bytes than the digest names, or another length."""

    code = "EF3303"


@dataclass(frozen=True, slots=True)
class Upload:
    """One blob on its way in.

    Attributes:
        path: the bytes that came so far.
    """

    id: str
    path: Path

    @property
    def size_bytes(self) -> int:
        """How much came so far."""
        return self.path.stat().st_size

    @property
    def range(self) -> str:
        """Value of the Range header: first and last byte that are here; ``0-0`` also for none, as clients expect."""
        return f"0-{max(self.size_bytes - 1, 0)}"


@dataclass(frozen=True, slots=True)
class Uploads:
    """The uploads of a store.

    Attributes:
        store: where the blobs go.
    """

    store: ArtifactStore

    def begin(self, repository: str) -> Upload:
        """Return a new upload into a repository.

        Raises:
            BadRepository: not the name of a repository.
        """
        self.store.repositories.directory(repository)
        upload = self._upload(repository, secrets.token_hex(16))
        os.close(os.open(upload.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        return upload

    def find(self, repository: str, name: str) -> Upload:
        """Return an upload of a repository.

        Raises:
            NoSuchUpload: there is none.
        """
        upload = self._upload(repository, name) if _ID.match(name) else None
        if upload is None or not upload.path.is_file():
            raise NoSuchUpload(f"no upload {name[:40]!r}", do="begin a new one with POST")
        return upload

    async def add(self, upload: Upload, span: str, pieces: AsyncIterator[bytes]) -> None:
        """Append a piece. What came of it stays when the sender breaks off.

        Args:
            upload: that it belongs to.
            span: of the Content-Range header; empty to append whatever comes.
            pieces: the bytes.

        Raises:
            WrongPiece: it does not begin at the end, or another piece is being sent.
            StoreFull: no room.
        """
        with self._open(upload) as file:
            first = os.fstat(file).st_size
            if span:
                found = _SPAN.match(span.strip())
                if found is None or int(found[1]) != first or int(found[2]) < first:
                    raise WrongPiece(f"{span[:60]!r}, and {first} bytes are here", do="ask where it ended with GET")
            os.lseek(file, 0, os.SEEK_END)
            async for piece in pieces:
                with self.store.full_named():
                    await run_in_threadpool(_write, file, piece)

    def finish(self, upload: Upload, expected: str) -> Stored:
        """Make the upload a blob.

        Raises:
            BadUpload: the digest is none, or not of these bytes: then the upload is gone.
        """
        if not is_digest(expected):
            raise BadUpload(f"{expected[:80]!r} is not a sha256 digest", do="end with PUT …?digest=sha256:…")
        try:
            return self.store.adopt(upload.path, expected)
        except DigestMismatch as error:
            self.cancel(upload)
            raise BadUpload(error.what, do="send the blob again from its start") from None

    def cancel(self, upload: Upload) -> None:
        """Throw away what came."""
        upload.path.unlink(missing_ok=True)

    def _upload(self, repository: str, name: str) -> Upload:
        place = hashlib.sha256(repository.encode()).hexdigest()[:16]
        return Upload(name, self.store.incoming / f"upload-{name}-{place}")

    @contextmanager
    def _open(self, upload: Upload) -> Iterator[int]:
        file = os.open(upload.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise WrongPiece("another piece of this upload is being sent", do="send one after the other") from None
            yield file
        finally:
            with contextlib.suppress(OSError):
                os.close(file)


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
