"""Takes reports to the hub, signed, from a thread of its own; without a hub they go into ``STATE/report/``."""

from __future__ import annotations

import base64
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from agent import durable
from agent.fetch import refusal
from agent.http import Connection, OurCertificateRefused, problem_of
from agent.proof import Proof
from agent.staging import SystemFault
from agent.wire.errors import EdgeferryError, Retry
from agent.wire.report import REPORT_NAME, REPORT_SIGNATURE_NAME, Report, encode_report
from agent.wire.report_delta import ACCEPTS_HEADER, BaseForgotten, since
from agent.wire.signature import REPORT, SigningKey

DIRECTORY: Final = "report"
SIGNATURE_HEADER: Final = "Edgeferry-Signature"
LONGEST_PAUSE_S: Final = 120.0

_MOST_ANSWER_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Letter:
    """One report on its way.

    Attributes:
        report: whole.
        base: an earlier report that the hub has; only what differs from it is sent. None: all of it is sent.
    """

    report: Report
    base: Report | None = None

    @property
    def events(self) -> int:
        """Number of the last event in it; 0 for none."""
        return self.report.events[-1].number if self.report.events else 0

    def data(self) -> bytes:
        """Return the bytes that are signed."""
        return encode_report(self.report if self.base is None else since(self.report, self.base))


class Post(Protocol):
    """Somewhere reports go."""

    def send(self, data: bytes, signature: bytes) -> bool:
        """Deliver one report; it is durable there when this returns.

        Returns:
            Whether the next report may say only what differs from this one.

        Raises:
            BaseForgotten: send it whole.
            Retry: not now.
        """

    def interrupt(self) -> None:
        """End a delivery that another thread waits for."""


class HubPost:
    """``POST /v1/reports``.

    Args:
        connection: to the hub; used by the courier's thread only.
        proof: who this cluster is.
    """

    def __init__(self, connection: Connection, proof: Proof) -> None:
        self._connection = connection
        self._proof = proof

    def send(self, data: bytes, signature: bytes) -> bool:
        """See ``Post``."""
        if self._proof.tend():
            self._connection.close()
        headers = {
            "Content-Type": "application/json",
            SIGNATURE_HEADER: base64.b64encode(signature).decode(),
            **self._proof.headers(),
        }
        where = f"{self._connection.origin}/v1/reports"
        try:
            answer = self._connection.ask("POST", "/v1/reports", headers, data, most_bytes=_MOST_ANSWER_BYTES)
        except OurCertificateRefused:
            self._proof.refused(None)
            raise
        if answer.status == BaseForgotten.status and problem_of(answer)[0] == BaseForgotten.code:
            raise BaseForgotten(problem_of(answer)[1], where=where)
        if answer.status == 401:
            self._proof.refused(answer)
            self._connection.close()
        if answer.status != 204:
            raise refusal(answer, where)
        return "base" in answer.headers.get(ACCEPTS_HEADER, "")

    def interrupt(self) -> None:
        """See ``Post``."""
        self._connection.interrupt()


class FolderPost:
    """``STATE/report/report.json`` and its signature: for a person, or a job, that carries them on.

    Events stay in the outbox: nobody says that they have arrived.

    Args:
        root: the state directory.
    """

    def __init__(self, root: Path) -> None:
        self._directory = root / DIRECTORY

    def send(self, data: bytes, signature: bytes) -> bool:
        """See ``Post``."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        durable.write(self._directory / REPORT_SIGNATURE_NAME, signature)
        durable.write(self._directory / REPORT_NAME, data)
        return False

    def interrupt(self) -> None:
        """See ``Post``."""


class Courier:
    """Delivers the newest report; one that was overtaken before it left is not sent.

    Args:
        post: where to.
        key: the agent's.
        wake: called from the thread after each attempt.
    """

    def __init__(self, post: Post, key: SigningKey, wake: Callable[[], None]) -> None:
        self._post = post
        self._key = key
        self._wake = wake
        self._changed = threading.Condition()
        self._next: Letter | None = None
        self._delivered: list[Letter] = []
        self._fault: EdgeferryError | None = None
        self._tries = 0
        self._takes_differences = False
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def idle(self) -> bool:
        """Tell whether nothing waits to be delivered."""
        with self._changed:
            return self._next is None

    @property
    def fault(self) -> EdgeferryError | None:
        """Why the last attempt failed; None when it did not."""
        with self._changed:
            return self._fault

    def take(self, letter: Letter) -> None:
        """Deliver this report next, in place of one that has not left."""
        with self._changed:
            self._next = letter
            if self._thread is None:
                self._thread = threading.Thread(target=self._deliver, name="courier", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def delivered(self) -> tuple[Letter, ...]:
        """Return what arrived since the last call."""
        with self._changed:
            delivered, self._delivered = tuple(self._delivered), []
            return delivered

    def settle(self, most_s: float) -> bool:
        """Wait until nothing is on its way, or an attempt failed; return whether all has arrived."""
        with self._changed:
            self._changed.wait_for(lambda: self._next is None or self._fault is not None, most_s)
            return self._next is None

    def close(self) -> None:
        """Send nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._post.interrupt()

    def _deliver(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None or self._closed)
                letter = self._next
                if self._closed or letter is None:
                    return
            try:
                self._takes_differences = self._send(letter)
            except EdgeferryError as error:
                self._pause(error)
            except OSError as error:
                self._pause(SystemFault(error.strerror or str(error), where=str(error.filename or "")))
            else:
                self._arrived(letter)
            self._wake()

    def _send(self, letter: Letter) -> bool:
        whole = replace(letter, base=None)
        for one in (letter if self._takes_differences else whole, whole):
            data = one.data()
            try:
                return self._post.send(data, self._key.sign(data, REPORT))
            except BaseForgotten:
                if one.base is None:
                    raise
        raise AssertionError("a whole report was sent or raised")

    def _arrived(self, letter: Letter) -> None:
        with self._changed:
            self._delivered.append(letter)
            self._fault, self._tries = None, 0
            if self._next is letter:
                self._next = None
            self._changed.notify_all()

    def _pause(self, error: EdgeferryError) -> None:
        """Leave the hub alone for a while, longer each time; a new report does not shorten it."""
        with self._changed:
            self._fault = error
            self._tries += 1
            self._changed.notify_all()
            least_s = error.delay_s if isinstance(error, Retry) else 30.0
            pause_s = min(LONGEST_PAUSE_S, max(1.0, min(least_s, 5.0)) * 2 ** min(self._tries - 1, 8))
            self._changed.wait_for(lambda: self._closed, pause_s * random.uniform(0.8, 1.2))
