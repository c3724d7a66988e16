"""``GET /v1/overlay``: the long poll.

Thousands of agents ask all the time and mostly learn nothing, so a poll is no request of the application: the
connection hands it over as a value, and it is answered by callbacks, without a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from agent.wire.errors import EdgeferryError
from agent.wire.overlay import MEDIA_TYPE, pack
from gitops.serve.faults import PROBLEM, BadRequest, Broken, NothingPublished, Unauthenticated, problem, status_of
from gitops.serve.identity import Certificate, identify
from gitops.serve.notifier import Notifier
from gitops.serve.overlays import Overlays
from gitops.serve.registered import Roll
from gitops.serve.view import HubView

PATH: Final = b"/v1/overlay"
MOST_S: Final = 300.0
"""A poll is held so long at most, whatever it asks for."""

JITTER: Final = 0.1

TICK_S: Final = 0.125
"""Waits end on whole ticks: waking for many polls at once costs half of waking for each."""

_WAIT: Final = re.compile(rb"(?:^|&)wait=(\d{1,6}(?:\.\d{1,3})?)(?:&|$)")
_log: Final = logging.getLogger(__name__)


class Ask(NamedTuple):
    """One poll as it came.

    Attributes:
        query: of the URL.
        known: ``If-None-Match``: the overlay that the agent has; empty for none.
        authorization: the header; empty for none.
        certificate: that the TLS handshake proved; None without one.
    """

    query: bytes
    known: bytes
    authorization: bytes
    certificate: Certificate | None


class Asker(Protocol):
    """The connection that a poll came by."""

    def reply(self, status: int, headers: bytes, body: bytes) -> None:
        """Send the answer: header lines, each with its end, and a body; called once."""


class Polls:
    """Answers polls: at once when the cluster has another overlay than the agent knows, else after the wait.

    The wait is spread by ± 10 %, so that agents that started together do not ask together. A poll whose
    registration ends while it waits is refused then.
    """

    def __init__(self, view: HubView, overlays: Overlays, notifier: Notifier, roll: Roll) -> None:
        self.view = view
        self.overlays = overlays
        self.notifier = notifier
        self.roll = roll
        self.packers = ThreadPoolExecutor(2, "edgeferry-pack")
        self._ticks: dict[int, set[Poll]] = {}

    def begin(self, ask: Ask, asker: Asker) -> Poll:
        """Take one poll; it is answered before or after this returns."""
        poll = Poll(self, ask, asker)
        poll.attempt(poll.begin)
        return poll

    def hold(self, poll: Poll, wait_s: float) -> int:
        """Let a poll expire after its wait, more or less; return the tick that it does so at."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + wait_s * (1 - JITTER + 2 * JITTER * self.view.jitter())
        tick = math.ceil(end_s / TICK_S)
        held = self._ticks.get(tick)
        if held is None:
            held = self._ticks[tick] = set()
            loop.call_at(tick * TICK_S, self._expire, tick)
        held.add(poll)
        return tick

    def release(self, poll: Poll, tick: int) -> None:
        """Let a poll expire no more."""
        self._ticks.get(tick, set()).discard(poll)

    def _expire(self, tick: int) -> None:
        for poll in self._ticks.pop(tick):  # one that goes meanwhile is found to wait no more
            poll.expire()

    def close(self) -> None:
        """Let the threads that pack overlays end."""
        self.packers.shutdown(wait=False)


class Poll:
    """One poll, from its question to its answer. All of it runs on the loop."""

    __slots__ = ("_ask", "_asker", "_cluster", "_commit", "_polls", "_tick", "answered")

    def __init__(self, polls: Polls, ask: Ask, asker: Asker) -> None:
        self._polls = polls
        self._ask = ask
        self._asker = asker
        self._cluster = ""
        self._commit: str | None = None
        self._tick = 0  # that its wait ends at; 0 while it does not wait
        self.answered = False

    def begin(self) -> None:
        """Answer at once or start to wait.

        Raises:
            EdgeferryError: what to refuse it with.
        """
        polls = self._polls
        wait_s = _wait_s(self._ask.query)
        cluster = self._identify()
        polls.view.store.touch(cluster, polls.view.now())
        commit = polls.overlays.current(cluster)
        if wait_s == 0 or (commit is not None and self._ask.known[1:-1] != commit.encode()):
            self._answer(commit)
            return
        self._cluster, self._commit = cluster, commit
        polls.notifier.add(cluster, self.look)
        self._tick = polls.hold(self, min(wait_s, MOST_S))

    def look(self) -> None:
        """There may be news, or the registration may have ended."""
        self.attempt(self._look)

    def expire(self) -> None:
        """End the wait: nothing was told meanwhile, and the agent asks again at once."""
        if self._tick:
            self.cancel()
            self.attempt(lambda: self._answer(self._commit))

    def attempt(self, part: Callable[[], None]) -> None:
        """Do a part; a fault ends the poll with a problem."""
        try:
            part()
        except EdgeferryError as error:
            self.cancel()
            self._refuse(error)
        except Exception:
            _log.exception("a poll of %r failed", self._cluster)
            self.cancel()
            self._refuse(Broken("the hub has a fault of its own", do="see its log"))

    def cancel(self) -> None:
        """Wait no longer, and do not answer: the client is gone, or the answer follows here."""
        if self._tick:
            self._polls.release(self, self._tick)
            self._tick = 0
            self._polls.notifier.remove(self._cluster, self.look)

    def _look(self) -> None:
        commit = self._polls.overlays.current(self._identify())
        if commit is not None and self._ask.known[1:-1] != commit.encode():
            self.cancel()
            self._answer(commit)

    def _refuse(self, error: EdgeferryError) -> None:
        headers = b"content-type: %b\r\n" % PROBLEM
        if isinstance(error, Unauthenticated):
            now = int(self._polls.view.now().timestamp())
            headers += b'www-authenticate: Bearer realm="edgeferry"\r\nedgeferry-time: %d\r\n' % now
        self._reply(status_of(error), headers, problem(error))

    def _identify(self) -> str:
        ask, roll = self._ask, self._polls.roll
        try:
            return identify(ask.certificate, ask.authorization.decode("latin-1"), roll.recent)
        except Unauthenticated:  # it may have joined a moment ago, at another hub on the same database
            return identify(ask.certificate, ask.authorization.decode("latin-1"), roll.newest())

    def _answer(self, commit: str | None) -> None:
        if commit is None:
            raise NothingPublished(
                "no release has been published for this cluster",
                do="add clusters/NAME.yaml to the model repository; it comes by itself then",
            )
        if self._ask.known[1:-1] == commit.encode():
            self._reply(304, b'etag: "%b"\r\n' % commit.encode(), b"")
            return
        loop = asyncio.get_running_loop()
        packing = loop.run_in_executor(self._polls.packers, self._packed, commit)
        packing.add_done_callback(lambda done: self._send(commit, done))

    def _packed(self, commit: str) -> bytes:
        return pack(self._polls.overlays.files(commit))

    def _send(self, commit: str, packing: asyncio.Future[bytes]) -> None:
        headers = b'etag: "%b"\r\ncontent-type: %b\r\n' % (commit.encode(), MEDIA_TYPE.encode())
        self.attempt(lambda: self._reply(200, headers, packing.result()))

    def _reply(self, status: int, headers: bytes, body: bytes) -> None:
        self.answered = True
        self._asker.reply(status, headers, body)


@lru_cache(64)
def _wait_s(query: bytes) -> float:
    found = _WAIT.search(query)
    if found is None and b"wait" in query:
        raise BadRequest("wait is not a number of seconds", do="use wait=30")
    return float(found[1]) if found else 0.0
