"""What was accepted, on disk: the signed release in force, and every entry's own files for as long as they are needed.

``STATE/overlay/HEX/`` has release and signature as they were received, HEX being sha256 of the release's bytes;
``STATE/entries/HEX/`` has one entry by its digest, with its files: a return works after the overlay has moved on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from agent.durable import sync_directory
from agent.state import StateNotWritten
from agent.steps import KeptDamaged
from agent.wire.canonical import canonical, digest
from agent.wire.errors import EdgeferryError
from agent.wire.fields import Fields
from agent.wire.release import NAME, SIGNATURE_NAME, Entry, Release, decode_entry, decode_release, encode_entry

ENTRIES: Final = "entries"
OVERLAY: Final = "overlay"

_ENTRY: Final = "entry.json"
_FILES: Final = "files"


def keep_release(root: Path, files: Mapping[str, bytes]) -> str:
    """Keep a verified release; return the name under which ``read_release`` finds it."""
    name = digest(files[NAME]).removeprefix("sha256:")
    directory = root / OVERLAY / name
    if not directory.exists():
        directory.parent.mkdir(mode=0o700, exist_ok=True)
        _place(directory, {path: files[path] for path in (NAME, SIGNATURE_NAME)})
    return name


def read_release(root: Path, name: str) -> Release:
    """Return a kept release.

    Raises:
        KeptDamaged: its bytes are gone or were changed.
    """
    path = root / OVERLAY / name / NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _damaged(path, error.strerror or "unreadable") from None
    if digest(data) != f"sha256:{name}":
        raise _damaged(path, "its bytes were changed")
    return decode_release(data, str(path))


def drop_releases(root: Path, keep: str) -> None:
    """Remove every kept release but one."""
    for directory in _directories(root / OVERLAY):
        if directory.name != keep:
            _drop(directory)


def keep_entry(root: Path, entry: Entry, files: Mapping[str, bytes]) -> None:
    """Keep an entry and its files; nothing is written when they are there, whole.

    Args:
        root: the state directory.
        entry: its digest names it.
        files: path within the overlay → bytes, of this entry's directory.
    """
    if read_entry(root, entry.digest) is not None:
        return
    directory = _directory(root, entry.digest)
    directory.parent.mkdir(mode=0o700, exist_ok=True)
    index = {"format": 1, "entry": encode_entry(entry), "files": {path: digest(files[path]) for path in files}}
    content = {f"{_FILES}/{path}": data for path, data in files.items()}
    _place(directory, {_ENTRY: canonical(index), **content})


def read_entry(root: Path, entry_digest: str) -> tuple[Entry, dict[str, bytes]] | None:
    """Return an entry and its files; None where it is not kept, or not whole any more."""
    directory = _directory(root, entry_digest)
    try:
        top = Fields.parse((directory / _ENTRY).read_bytes(), str(directory / _ENTRY))
        top.format((1,))
        entry = top.one("entry", decode_entry)
        files = {path: (directory / _FILES / path).read_bytes() for path in top.mapping("files")}
        whole = all(digest(files[path]) == wanted for path, wanted in top.mapping("files").items())
    except (OSError, EdgeferryError):
        return None
    return (entry, files) if whole and entry is not None and entry.digest == entry_digest else None


def drop_entries(root: Path, keep: Collection[str]) -> tuple[str, ...]:
    """Remove kept entries that are not in ``keep``; return their digests."""
    dropped = []
    for directory in _directories(root / ENTRIES):
        entry_digest = f"sha256:{directory.name}"
        if entry_digest not in keep:
            _drop(directory)
            dropped.append(entry_digest)
    return tuple(dropped)


def _place(path: Path, files: Mapping[str, bytes]) -> None:
    """Make a directory with these files at once: whole or not there; one that is there already is replaced."""
    beside = path.with_name(f".{path.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(mode=0o700)
        directories = {beside}
        for name in sorted(files):
            target = beside / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            directories.update(parent for parent in target.parents if parent.is_relative_to(beside))
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:
                out.write(files[name])
                out.flush()
                os.fsync(out.fileno())
        for directory in directories:
            sync_directory(directory)
        if path.exists():
            _drop(path)
        beside.rename(path)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise StateNotWritten(
            error.strerror or str(error), where=str(path), do="free space on the disk, or see whether it may be written"
        ) from error
    sync_directory(path.parent)


def _drop(path: Path) -> None:
    """Remove a directory so that a power cut leaves it whole, or under a name that nobody reads."""
    away = path.with_name(f".{path.name}.gone")
    shutil.rmtree(away, ignore_errors=True)
    path.rename(away)
    shutil.rmtree(away, ignore_errors=True)


def _directories(parent: Path) -> Iterator[Path]:
    if parent.is_dir():
        yield from sorted(one for one in parent.iterdir() if one.is_dir())


def _directory(root: Path, entry_digest: str) -> Path:
    return root / ENTRIES / entry_digest.removeprefix("sha256:")


def _damaged(path: Path, why: str) -> KeptDamaged:
    return KeptDamaged(why, where=str(path), do="nothing: the release is fetched again once the site is online")
