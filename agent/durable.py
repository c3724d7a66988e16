"""Writing files so that a power cut leaves the old one or the new one, never a part of one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data``, on disk when this returns.

    Args:
        path: in a directory that exists.
        data: the whole file.
        mode: from its first byte on; nobody ever sees a secret under a wider one.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sweep(root: Path) -> None:
    """Remove what writes that were killed left beside their files, in ``root`` and two levels below it.

    Args:
        root: nobody else writes there now.
    """
    for pattern in (".*.new", "*/.*.new", "*/*/.*.new"):
        for path in root.glob(pattern):
            if path.is_file() and not path.is_symlink():
                path.unlink()


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
