"""References of the fleet repository: always packed, replaced as one file, so that a reader sees all of one moment.

Two kinds of writer are kept apart. Publishers of ours hold ``flock`` on one file, which ends with the process, however
it ends. Stock git respects ``packed-refs.lock`` and ``refs/heads/main.lock``; ours are hard links to the file under
``flock``, so that one left behind by a killed publisher is known as ours and taken away by the next.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.wire.errors import Retry, Stop
from gitops.pack import sync_directory

MAIN: Final = "refs/heads/main"
CLUSTERS: Final = "refs/heads/cluster/"

_LOCK: Final = "edgeferry.lock"
_TRAITS: Final = "# pack-refs with:"
_ALL_TRAITS: Final = "# pack-refs with: peeled fully-peeled sorted "
_LINE: Final = re.compile(r"^([0-9a-f]{40}) (.+)\n(?:\^([0-9a-f]{40})\n)?", re.MULTILINE)
_HEX: Final = frozenset("0123456789abcdef")


class FleetLocked(Retry):
    """Another process holds the fleet repository's locks."""

    code = "EF3003"


class FleetUnreadable(Stop):
    """There is no fleet repository, or it is damaged."""

    code = "EF3005"


@dataclass(frozen=True, slots=True)
class Refs:
    """``packed-refs`` as of one moment.

    Attributes:
        values: reference → 40 hex digits, in the file's order.
        peeled: annotated tag → what it points to.
        traits: first line of the file.
        stamp: inode, time and size of the file that was read; None for no file.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    peeled: Mapping[str, str] = field(default_factory=dict)
    traits: str = _ALL_TRAITS
    stamp: tuple[int, int, int] | None = None


def read_refs(repository: Path, known: Refs | None = None) -> Refs:
    """Return the packed references; ``known`` itself while the file is the one it was read from.

    Raises:
        FleetUnreadable: the file is damaged.
    """
    path = repository / "packed-refs"
    try:
        if known is not None and known.stamp == _stamp(os.stat(path)):  # noqa: PTH116  # asked at every poll
            return known
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            stamp = _stamp(os.fstat(file.fileno()))
            text = file.read()
    except FileNotFoundError:
        return Refs()
    first, _, rest = text.partition("\n")
    traits, lines = (first, rest) if first.startswith(_TRAITS) else (_TRAITS + " ", text)
    values = {name: value for value, name, _ in _LINE.findall(lines)}
    peeled = {name: value for _, name, value in _LINE.findall(lines) if value} if "\n^" in lines else {}
    if len(values) + len(peeled) != lines.count("\n") or (text and not text.endswith("\n")):
        raise FleetUnreadable("not a file of references", where=str(path), do="restore the repository")
    return Refs(values, peeled, traits, stamp)


def loose_main(repository: Path) -> str | None:
    """Return the value of a loose ``refs/heads/main``: somebody moved it with stock git, and it outranks the packed.

    Raises:
        FleetUnreadable: it is not a commit id.
    """
    path = repository / MAIN
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not _is_oid(text):
        raise FleetUnreadable(f"main is {text[:80]!r}, not a commit id", where=str(path), do="restore the repository")
    return text


@contextmanager
def locked(repository: Path, patience_s: float = 10.0) -> Iterator[None]:
    """Keep every other writer of references out, publishers of ours and stock git alike.

    Raises:
        FleetLocked: somebody else held a lock for longer than ``patience_s``.
        OSError: the repository cannot be written.
    """
    deadline = time.monotonic() + patience_s
    ours = repository / _LOCK
    locks = (repository / f"{MAIN}.lock", repository / "packed-refs.lock")
    with ours.open("a") as file:
        while not _try_flock(file.fileno()):
            _wait(deadline, ours, "another publisher is at work: try again")
        taken: list[Path] = []
        try:
            locks[0].parent.mkdir(parents=True, exist_ok=True)
            for lock in locks:
                while not _try_link(ours, lock):
                    _wait(deadline, lock, f"a git process is at work there; if none is, remove {lock.name}")
                taken.append(lock)
            yield
        finally:
            for lock in reversed(taken):
                lock.unlink(missing_ok=True)


def move_refs(repository: Path, refs: Refs, moved: Mapping[str, str | None]) -> Refs:
    """Replace the packed references by ``refs`` with ``moved`` in them, durably, in one rename. Call it ``locked``.

    Args:
        repository: the Git directory.
        refs: what was read under the lock.
        moved: reference → new value; None removes it.

    Returns:
        What stands there now.

    Raises:
        OSError: it cannot be written; the old references stand then.
    """
    values = {**refs.values, **{name: value for name, value in moved.items() if value is not None}}
    for name, value in moved.items():
        if value is None:
            values.pop(name, None)
    if values.keys() - refs.values.keys() or "sorted" not in refs.traits:
        values = dict(sorted(values.items()))
    peeled = {name: value for name, value in refs.peeled.items() if values.get(name) == refs.values[name]}
    traits = refs.traits if "sorted" in refs.traits else f"{refs.traits.rstrip()} sorted "
    lines = [f"{value} {name}\n" for name, value in values.items()]
    if peeled:
        lines = [f"{line}^{peeled[line[41:-1]]}\n" if line[41:-1] in peeled else line for line in lines]
    beside = repository / "edgeferry-refs.new"
    with beside.open("wb") as file:
        file.write(f"{traits}\n".encode() + "".join(lines).encode(errors="surrogateescape"))
        file.flush()
        os.fsync(file.fileno())
        stamp = _stamp(os.fstat(file.fileno()))
    beside.rename(repository / "packed-refs")
    sync_directory(repository)
    return Refs(values, peeled, traits, stamp)


def absorb_loose(repository: Path, refs: Refs) -> Refs:
    """Bring a loose main into the packed references, and drop loose cluster references. Call it ``locked``.

    Cluster references follow from main: one that somebody set by hand would hide ours for ever.
    """
    value = loose_main(repository)
    if value is not None:
        refs = move_refs(repository, refs, {MAIN: value})
        (repository / MAIN).unlink(missing_ok=True)
        sync_directory((repository / MAIN).parent)
    foreign = repository / CLUSTERS.rstrip("/")
    if foreign.is_dir():
        for path in sorted(foreign.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        foreign.rmdir()
    elif foreign.exists() or CLUSTERS.rstrip("/") in refs.values:
        raise FleetUnreadable(
            "a branch named cluster stands in the way of the clusters' branches",
            where=str(repository),
            do="delete it: git branch -D cluster",
        )
    return refs


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _is_oid(text: str) -> bool:
    return len(text) == 40 and _HEX.issuperset(text)


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _try_link(ours: Path, lock: Path) -> bool:
    try:
        lock.hardlink_to(ours)
    except FileExistsError:
        try:
            if lock.samefile(ours):  # flock is held: whoever made this link is dead
                lock.unlink()
        except FileNotFoundError:
            pass
        return False
    return True


def _wait(deadline: float, lock: Path, advice: str) -> None:
    if time.monotonic() > deadline:
        raise FleetLocked("somebody else is writing to the fleet repository", where=str(lock), do=advice)
    time.sleep(0.005)
