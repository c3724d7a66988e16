"""What was accepted, on disk: the signed release in force, and every entry's own files for as long as they are needed.

``STATE/overlay/HEX/`` has release and signature as they were received, HEX being sha256 of the release's bytes;
``STATE/entries/HEX`` has one entry by its digest, with its files: a return works after the overlay has moved on. It is
one file, a line of JSON and then the files' bytes in its order: an entry of a thousand manifests costs one flush, not a
thousand.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from agent import durable
from agent.durable import sync_directory
from agent.state import StateNotWritten
from agent.steps import KeptDamaged
from agent.wire.canonical import canonical, digest
from agent.wire.errors import EdgeferryError
from agent.wire.fields import Fields
from agent.wire.release import NAME, SIGNATURE_NAME, Entry, Release, decode_entry, decode_release, encode_entry

ENTRIES: Final = "entries"
OVERLAY: Final = "overlay"


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

    Raises:
        StateNotWritten: the disk does not take it; nothing is kept.
    """
    if read_entry(root, entry.digest) is not None:
        return
    path = _entry_path(root, entry.digest)
    listed = {name: {"digest": digest(data), "size": len(data)} for name, data in files.items()}
    head = canonical({"format": 1, "entry": encode_entry(entry), "files": listed})
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        durable.write(path, head + b"".join(files[name] for name in sorted(files)))
    except OSError as error:
        raise _not_written(path, error) from error


def read_entry(root: Path, entry_digest: str) -> tuple[Entry, dict[str, bytes]] | None:
    """Return an entry and its files; None where it is not kept, or not whole any more."""
    path = _entry_path(root, entry_digest)
    try:
        head, _, content = path.read_bytes().partition(b"\n")
        top = Fields.parse(head, str(path))
        top.format((1,))
        entry = top.one("entry", decode_entry)
        listed = top.one("files", lambda files: files.every(_listed)) or {}
    except (OSError, EdgeferryError):
        return None
    files, at = {}, 0
    for name in sorted(listed):
        wanted, size = listed[name]
        files[name] = content[at : at + size]
        at += size
        if digest(files[name]) != wanted:
            return None
    return (entry, files) if at == len(content) and entry is not None and entry.digest == entry_digest else None


def drop_entries(root: Path, keep: Collection[str]) -> tuple[str, ...]:
    """Remove kept entries that are not in ``keep``, and what a killed writer left; return the entries' digests."""
    dropped = []
    for path in sorted((root / ENTRIES).glob("*")):
        if f"sha256:{path.name}" not in keep:
            path.unlink(missing_ok=True)
            if not path.name.startswith("."):
                dropped.append(f"sha256:{path.name}")
    return tuple(dropped)


def _listed(fields: Fields) -> tuple[str, int]:
    return fields.text("digest"), fields.integer("size")


def _place(path: Path, files: Mapping[str, bytes]) -> None:
    """Make a directory with these files at once: whole or not there."""
    beside = path.with_name(f".{path.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(mode=0o700)
        for name in sorted(files):
            durable.write(beside / name, files[name])
        beside.rename(path)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise _not_written(path, error) from error
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


def _entry_path(root: Path, entry_digest: str) -> Path:
    return root / ENTRIES / entry_digest.removeprefix("sha256:")


def _not_written(path: Path, error: OSError) -> StateNotWritten:
    do = "free space on the disk, or see whether it may be written"
    return StateNotWritten(error.strerror or str(error), where=str(path), do=do)


def _damaged(path: Path, why: str) -> KeptDamaged:
    return KeptDamaged(why, where=str(path), do="nothing: the release is fetched again once the site is online")
