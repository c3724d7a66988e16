"""The agent's life: one thread polls, one stages, one reports, and this one runs the cycles.

A cycle runs on news, when the platform or another thread has something, after each ``look_s``, and quickly while
something is on its way. SIGTERM ends it between two steps; what serves goes on.
"""

from __future__ import annotations

import os
import random
import select
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from agent.actions import Herald
from agent.clock import Instant, read_wall
from agent.courier import Courier
from agent.fetch import Received, Transport
from agent.offline import keep_contact
from agent.reconcile import Site, cycle
from agent.speak import CONTACT_MS, Voice, speak
from agent.wire.errors import EdgeferryError, Retry

LONGEST_PAUSE_S: Final = 60.0


class Bell:
    """Wakes the main thread: from any thread, and from a signal handler."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        self.stopped = False

    def ring(self) -> None:
        """Have the main thread look now."""
        os.eventfd_write(self._descriptor, 1)

    def stop(self, *_: Any) -> None:
        """Have the main thread end; a signal handler."""
        self.stopped = True
        self.ring()

    def wait(self, most_ms: int) -> None:
        """Wait until somebody rings, or so long."""
        if self._poll.poll(max(0, most_ms)):
            os.eventfd_read(self._descriptor)

    def close(self) -> None:
        """Let go of the descriptor, once no thread rings any more."""
        self._poll.unregister(self._descriptor)
        os.close(self._descriptor)


@dataclass(slots=True)
class Line:
    """The poller's side of the connection to where overlays come from. One thread polls, the main thread reads.

    Args:
        transport: polled by the thread only.
        wait_s: of one poll.
        revision: of what is in force.
        bell: rung with every change.
    """

    transport: Transport
    wait_s: float
    revision: str
    bell: Bell
    heard: bool = False
    fault: EdgeferryError | None = None
    _newest: Received | None = None
    _closed: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def open(self) -> None:
        """Begin to poll."""
        self._thread = threading.Thread(target=self._poll, name="poll", daemon=True)
        self._thread.start()

    def take(self) -> Received | None:
        """Return the newest overlay that came since the last call."""
        with self._lock:
            newest, self._newest = self._newest, None
            return newest

    def close(self) -> None:
        """End the poll at once."""
        self._closed.set()
        self.transport.wake()
        if self._thread is not None:
            self._thread.join(5.0)

    def _poll(self) -> None:
        failures = 0
        while not self._closed.is_set():
            try:
                received = self.transport.poll(self.revision, self.wait_s)
            except EdgeferryError as error:
                failures += 1
                self._say(None, error)
                least_s = error.delay_s if isinstance(error, Retry) else 1.0
                pause_s = min(max(LONGEST_PAUSE_S, least_s), least_s * 2 ** min(failures - 1, 6))
                self._closed.wait(pause_s * random.uniform(0.7, 1.0))
                continue
            failures = 0
            if received is not None:
                self.revision = received.revision
            self._say(received, None)

    def _say(self, received: Received | None, fault: EdgeferryError | None) -> None:
        with self._lock:
            news = received is not None or self.heard != (fault is None) or str(self.fault) != str(fault)
            self._newest = received or self._newest
            self.heard, self.fault = fault is None, fault
        if news:
            self.bell.ring()


def run(
    site: Site,
    transport: Transport,
    courier: Courier,
    voice: Voice,
    bell: Bell,
    log: Callable[[str], None],
    wall: Callable[[], tuple[datetime, int, str]] = read_wall,
) -> None:
    """Run cycles until the bell says stop.

    Args:
        site: as the last agent left it.
        transport: where overlays come from.
        courier: takes reports away.
        voice: what was said so far.
        bell: rung by everything that has news.
        log: takes one line for people.
        wall: reads the clocks.
    """
    line = Line(transport, site.config.wait_s, site.force.revision, bell)
    line.open()
    if isinstance(site.platform, Herald):
        site.platform.listen(bell.ring)
    said = _Said()
    while not bell.stopped:
        instant = site.clock.instant(*wall())
        outcome = cycle(site, line.take(), instant)
        next_ms = outcome.next_ms
        try:
            _note_contact(site, line, said, instant)
            speak(site, voice, courier, instant)
        except EdgeferryError as error:
            site.fault = site.fault or error
            next_ms = min(next_ms, 10_000)
        _log(site, line, said, log)
        if not bell.stopped:
            bell.wait(min(next_ms, voice.beat_ms or next_ms))
    line.close()
    site.staging.close()
    courier.close()


@dataclass(slots=True)
class _Said:
    fault: str = ""
    link: str = ""
    heard_ms: int | None = None
    sequence: int | None = None
    why: str | None = None


def _note_contact(site: Site, line: Line, said: _Said, instant: Instant) -> None:
    """Keep when the hub was heard; the disk is spared: at changes, and once in a while."""
    why = str(line.fault) if line.fault is not None else ""
    if not line.heard and not why:
        return
    lately = said.heard_ms is not None and instant.uptime_ms - said.heard_ms < CONTACT_MS
    if why == said.why and (lately or why):
        return
    if line.heard and said.why:
        site.staging.hurry()
    keep_contact(site.state, instant.now if line.heard else None, why)
    said.why, said.heard_ms = why, instant.uptime_ms


def note_once(site: Site, fault: EdgeferryError | None, instant: Instant) -> None:
    """Keep whether overlays could be asked for, where no loop does."""
    keep_contact(site.state, instant.now if fault is None else None, str(fault or ""))


def _log(site: Site, line: Line, said: _Said, log: Callable[[str], None]) -> None:
    for (kind, name), one in site.book.said:
        text = " ".join(part for part in (one.kind, f"{kind}/{name}", one.version, one.code, one.message) if part)
        log(text)
    site.book.said.clear()
    release = site.force.release
    if release is not None and release.sequence != said.sequence:
        log(f"release {release.sequence} is in force, {len(release.entries)} entries")
        said.sequence = release.sequence
    fault = site.fault or site.force.fault
    for now, before, healed in (
        (str(fault or ""), said.fault, "the fault is gone"),
        (str(line.fault or ""), said.link, "overlays come again"),
    ):
        if now != before:
            log(now or healed)
    said.fault, said.link = str(fault or ""), str(line.fault or "")


def ended_by_signals(bell: Bell) -> None:
    """Have SIGTERM and SIGINT stop the loop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, bell.stop)
