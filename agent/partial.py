"""A blob on its way: a file that grows, its hash so far, and a mark that says how much of it a power cut leaves."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from agent import durable

_MARK_BYTES: Final = 4 << 20
_MARK_S: Final = 15.0
_READ_BYTES: Final = 1 << 20


class Partial:
    """Opened, it holds what was marked last; closed, it is marked at what it holds.

    Bytes behind the mark may be anything after a power cut, so they are cut off; those before it are hashed again.

    Args:
        path: of the file; the mark stands beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = mark_of(path)
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        self._marked_bytes = 0
        self._marked_s = time.monotonic()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> Self:
        try:
            self._go_on()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.size_bytes != self._marked_bytes:
                self._set_mark()
        except OSError:
            pass  # a full disk: the older mark holds
        finally:
            os.close(self._file)

    def add(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            OSError: they could not be written; the file is as it was before.
        """
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            os.ftruncate(self._file, self.size_bytes)
            os.lseek(self._file, self.size_bytes, os.SEEK_SET)
            raise
        self._hash.update(data)
        self.size_bytes += len(data)
        grown = self.size_bytes - self._marked_bytes
        if grown >= _MARK_BYTES or (grown and time.monotonic() - self._marked_s > _MARK_S):
            self._set_mark()

    def begin_again(self) -> None:
        """Throw away what is there."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        self._set_mark()

    @property
    def digest(self) -> str:
        """Of what is there."""
        return f"sha256:{self._hash.hexdigest()}"

    def sync(self) -> None:
        """Bring all of it to disk."""
        os.fsync(self._file)

    def _go_on(self) -> None:
        try:
            marked = int(self._mark.read_text())
        except (FileNotFoundError, ValueError):
            marked = 0
        self._marked_bytes = min(marked, os.fstat(self._file).st_size)
        os.ftruncate(self._file, self._marked_bytes)
        while data := os.read(self._file, _READ_BYTES):
            self._hash.update(data)
            self.size_bytes += len(data)

    def _set_mark(self) -> None:
        os.fdatasync(self._file)
        durable.write(self._mark, b"%d" % self.size_bytes)
        self._marked_bytes = self.size_bytes
        self._marked_s = time.monotonic()


def mark_of(path: Path) -> Path:
    """Return where the mark of a partial file stands."""
    return path.with_name(f"{path.name}.mark")
