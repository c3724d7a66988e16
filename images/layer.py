"""A directory → an image layer: the same files give the same bytes, whoever built them and when."""

from __future__ import annotations

import gzip
import hashlib
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from images.recipes import STATE, USER

_LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, compressed, in a file.

    Attributes:
        path: the file.
        digest: sha256 of the file.
        size_bytes: of the file.
        diff_id: sha256 of what it holds uncompressed.
    """

    path: Path
    digest: str
    size_bytes: int
    diff_id: str


class _Hashed:
    """Passes writes on and hashes them."""

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)


def write(root: Path, path: Path) -> Layer:
    """Pack everything below ``root`` into ``path``; owners, times and the order on disk leave no trace."""
    with path.open("wb") as file:
        outer = _Hashed(file)
        with gzip.GzipFile("", "wb", _LEVEL, outer, mtime=0) as compressed:  # type: ignore[call-overload]  # takes anything with write
            inner = _Hashed(compressed)
            with tarfile.open(fileobj=inner, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]  # a stream only writes
                for one in sorted(root.rglob("*")):
                    _add(tar, one, one.relative_to(root).as_posix())
    digest = "sha256:" + outer.sha256.hexdigest()
    return Layer(path, digest, path.stat().st_size, "sha256:" + inner.sha256.hexdigest())


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    found = path.lstat()
    info = tarfile.TarInfo(name)
    if stat.S_ISLNK(found.st_mode):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
        tar.addfile(info)
    elif stat.S_ISDIR(found.st_mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        if name == "tmp":
            info.mode = 0o1777
        elif name == STATE:
            info.uid = info.gid = USER
            info.mode = 0o770  # the group's too: whatever the number of the user, a volume's group may be set to it
        tar.addfile(info)
    elif stat.S_ISREG(found.st_mode):
        info.size, info.mode = found.st_size, 0o755 if found.st_mode & 0o111 else 0o644
        with path.open("rb") as file:
            tar.addfile(info, file)
