"""Bytes come in the background: a thin link holds up neither repairs nor reports.

One entry at a time, models before workloads. What fails for now is tried again after a growing pause.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from agent.actions import Staged
from agent.wire.errors import EdgeferryError, Retry, Stop
from agent.wire.release import Entry

LONGEST_PAUSE_S: Final = 300.0


class SystemFault(Retry):
    """The operating system refused something that works on a sound machine: a full disk, no more processes."""

    code = "EF4070"


class Bytes(Protocol):
    """Where entries' bytes come from and stay (agent/stage.py)."""

    def present(self, entry: Entry, files: Mapping[str, bytes]) -> Staged | None:
        """Return the entry as staged where all of it is at the site; ask nobody."""

    def stage(self, entry: Entry, files: Mapping[str, bytes], progress: Callable[[int], None]) -> Staged:
        """Bring what is missing; tell how many bytes are here.

        Raises:
            Retry, Wait, Stop: as agent/wire/errors.py says.
        """

    def doubt(self, entry: Entry) -> None:
        """Read the entry's bytes again before they count as present."""

    def collect(self, keep: Collection[Entry]) -> None:
        """Remove what no entry of ``keep`` needs."""


@dataclass(slots=True)
class _Job:
    entry: Entry
    files: Mapping[str, bytes]
    number: int
    tries: int = 0
    after_s: float = 0.0
    bytes_here: int = 0
    fault: EdgeferryError | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one entry's staging is.

    Attributes:
        fault: why it pauses; None while it goes on.
    """

    bytes_here: int
    fault: EdgeferryError | None = None


@dataclass(slots=True)
class _Shared:
    jobs: dict[str, _Job] = field(default_factory=dict)
    staged: dict[str, Staged] = field(default_factory=dict)
    failed: list[tuple[str, Stop]] = field(default_factory=list)
    made: int = 0
    changes: int = 0
    running: bool = False
    closed: bool = False


class Staging:
    """The staged entries, and a thread for those that are not yet; it ends when there is nothing to bring.

    Args:
        store: brings and keeps bytes.
        wake: called from the thread when something is complete, or has failed.
    """

    def __init__(self, store: Bytes, wake: Callable[[], None]) -> None:
        self._store = store
        self._wake = wake
        self._shared = _Shared()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def staged(self) -> dict[str, Staged]:
        """Entry digest → staged, of everything complete."""
        with self._changed:
            return dict(self._shared.staged)

    @property
    def underway(self) -> frozenset[str]:
        """Entry digests that are being brought, or wait to be tried again."""
        with self._changed:
            return frozenset(self._shared.jobs)

    @property
    def completed(self) -> int:
        """Count of changes to what is staged, failed or underway: equal counts, equal answers."""
        with self._changed:
            return self._shared.changes

    def progress(self, digest: str) -> Progress | None:
        """Return how far an entry is; None where nobody wants it."""
        with self._changed:
            job = self._shared.jobs.get(digest)
            return None if job is None else Progress(job.bytes_here, job.fault)

    def look(self, entry: Entry, files: Mapping[str, bytes]) -> bool:
        """Take an entry as staged where all of it is at the site already; return whether it is."""
        with self._changed:
            if entry.digest in self._shared.staged:
                return True
        try:
            found = self._store.present(entry, files)
        except EdgeferryError:
            return False  # bringing it will say why
        if found is not None:
            with self._changed:
                self._shared.staged[entry.digest] = found
                self._shared.changes += 1
        return found is not None

    def want(self, entry: Entry, files: Mapping[str, bytes]) -> None:
        """Have an entry brought, unless it is here or underway."""
        with self._changed:
            shared = self._shared
            if entry.digest in shared.staged or entry.digest in shared.jobs or shared.closed:
                return
            shared.made += 1
            shared.jobs[entry.digest] = _Job(entry, files, shared.made)
            if not shared.running:
                shared.running = True
                self._thread = threading.Thread(target=self._bring_all, name="staging", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def failures(self) -> tuple[tuple[str, Stop], ...]:
        """Return what failed for good since the last call: entry digest and fault."""
        with self._changed:
            failed, self._shared.failed = tuple(self._shared.failed), []
            return failed

    def hurry(self) -> None:
        """Try again now what waits for its next attempt: the link may be back."""
        with self._changed:
            for job in self._shared.jobs.values():
                job.after_s = 0.0
            self._changed.notify_all()

    def doubt(self, entry: Entry) -> None:
        """An entry's bytes turned out not to be those that were staged: they are read again, and brought anew."""
        self._store.doubt(entry)
        with self._changed:
            self._shared.staged.pop(entry.digest, None)
            self._shared.changes += 1

    def keep(self, entries: Mapping[str, Entry]) -> None:
        """Forget every other entry, and have the bytes that none of these needs removed.

        Args:
            entries: entry digest → entry.
        """
        with self._changed:
            shared = self._shared
            shared.staged = {digest: one for digest, one in shared.staged.items() if digest in entries}
            shared.jobs = {digest: job for digest, job in shared.jobs.items() if digest in entries}
            busy = bool(shared.jobs)
        if not busy:
            self._store.collect(tuple(entries.values()))

    def close(self) -> None:
        """Bring nothing more. What is half here stays and is gone on with by the next agent."""
        with self._changed:
            self._shared.closed = True
            self._changed.notify_all()

    def _bring_all(self) -> None:
        while (job := self._next()) is not None:
            self._bring(job)

    def _next(self) -> _Job | None:
        with self._changed:
            shared = self._shared
            while shared.jobs and not shared.closed:
                now_s = time.monotonic()
                order = sorted(shared.jobs.values(), key=lambda job: (job.entry.kind != "model", job.tries, job.number))
                ready = next((job for job in order if job.after_s <= now_s), None)
                if ready is not None:
                    return ready
                self._changed.wait(min(job.after_s for job in order) - now_s)
            shared.running = False
            return None

    def _bring(self, job: _Job) -> None:
        def progress(bytes_here: int) -> None:
            job.bytes_here = bytes_here

        fault: EdgeferryError
        try:
            staged = self._store.stage(job.entry, job.files, progress)
        except EdgeferryError as error:
            fault = error
        except OSError as error:
            fault = SystemFault(f"{error.strerror or error}", where=str(error.filename or job.entry.name))
        else:
            with self._changed:
                self._shared.changes += 1
                if self._shared.jobs.pop(job.entry.digest, None) is not None:
                    self._shared.staged[job.entry.digest] = staged
            self._wake()
            return
        with self._changed:
            job.tries += 1
            self._shared.changes += 1
            job.fault = fault
            least_s = fault.delay_s if isinstance(fault, Retry) else 30.0
            pause_s = min(LONGEST_PAUSE_S, max(least_s, 2.0 ** min(job.tries, 10) / 2))
            job.after_s = time.monotonic() + pause_s * random.uniform(0.9, 1.1)
            if isinstance(fault, Stop) and self._shared.jobs.pop(job.entry.digest, None) is not None:
                self._shared.failed.append((job.entry.digest, fault))
        self._wake()
