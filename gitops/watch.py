"""What wakes the hub: webhooks, commits in a repository on this machine, and a look every so often.

However many signals come while the hub is at work, they become one: it looks once, at what is newest then.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pygit2
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from gitops.git_cli import local_path

POLL: Final = "poll"
FOLDER: Final = "folder"

_CHANGES: Final = {"created", "modified", "moved", "deleted"}  # not "opened": reading a file would wake us for ever
_log: Final = logging.getLogger("edgeferry.watch")


class Watch:
    """Merges signals. Every method may be called from any thread.

    Args:
        poll_s: seconds between looks without any signal.
        jitter: share of ``poll_s`` that each pause is longer or shorter by, at most, so that hubs do not fall in step.
        folder: Git directory on this machine whose branches are watched; None for none.
        chance: random numbers from 0 to 1.
    """

    def __init__(
        self,
        *,
        poll_s: float,
        jitter: float = 0.1,
        folder: Path | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._poll_s, self._jitter, self._chance = poll_s, jitter, chance
        self._changed = threading.Condition()
        self._reasons: set[str] = set()
        self._closed = False
        self._next_poll = time.monotonic() + self._pause()
        self._observer = None if folder is None else _observe(folder, lambda: self.poke(FOLDER))

    def poke(self, reason: str) -> None:
        """Wake who waits, or who waits next. Returns at once."""
        with self._changed:
            self._reasons.add(reason)
            self._changed.notify_all()

    def wait(self, timeout_s: float | None = None) -> frozenset[str]:
        """Return the reasons that came since the last call, as soon as there is one.

        Args:
            timeout_s: return nothing after so long; None waits on. The next poll is a reason, too.

        Returns:
            ``poll``, ``folder``, and what ``poke`` was given; empty after the timeout, or once closed.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._reasons and not self._closed:
                now = time.monotonic()
                if now >= self._next_poll:
                    self._reasons.add(POLL)
                    break
                if deadline is not None and now >= deadline:
                    break
                self._changed.wait(min(self._next_poll, self._next_poll if deadline is None else deadline) - now)
            found = frozenset(self._reasons)
            self._reasons.clear()
            if found:
                self._next_poll = time.monotonic() + self._pause()
            return found

    def close(self) -> None:
        """Stop watching; ``wait`` returns at once from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(5)

    def _pause(self) -> float:
        return self._poll_s * (1 + self._jitter * (2 * self._chance() - 1))


def local_git_folder(url: str) -> Path | None:
    """Return the Git directory of a repository on this machine; None for any other URL, and for a plain folder."""
    folder = local_path(url)
    if folder is None or not folder.is_dir():
        return None
    folder = folder.resolve()
    found = pygit2.discover_repository(str(folder), False, str(folder.parent))
    return None if found is None else Path(found)


class _Branches(FileSystemEventHandler):
    """Calls ``changed`` when a branch, or what is checked out, may have moved."""

    def __init__(self, folder: Path, changed: Callable[[], None]) -> None:
        self._files = {str(folder / "HEAD"), str(folder / "packed-refs")}
        self._heads = str(folder / "refs" / "heads")
        self._changed = changed

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Look at the paths only: what moved is found out by reading Git."""
        if event.event_type in _CHANGES and not event.is_directory:
            paths = (str(event.src_path), str(event.dest_path))
            if any(path in self._files or (path.startswith(self._heads) and path[-5:] != ".lock") for path in paths):
                self._changed()


def _observe(folder: Path, changed: Callable[[], None]) -> BaseObserver | None:
    common = folder / "commondir"  # a linked work tree: branches are in the repository that it belongs to
    where = (folder / common.read_text().strip()).resolve() if common.is_file() else folder.resolve()
    handler = _Branches(where, changed)
    try:
        observer = Observer()  # the kernel gives a user only so many
        observer.schedule(handler, str(where), recursive=False)
        observer.schedule(handler, str(where / "refs" / "heads"), recursive=True)
        observer.start()
    except OSError as error:
        _log.warning("%s cannot be watched (%s): its commits are found by polling", folder, error)
        return None
    return observer
