"""Fetching this cluster's overlay from the hub, from Git, or from a folder: bytes by path, not yet trusted.

All three promise the same, so the loop knows one: see ``Transport``.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from agent.address import Origin
from agent.config import BadConfig, Config
from agent.http import (
    Answer,
    Connection,
    OurCertificateRefused,
    UnexpectedAnswer,
    Unreachable,
    delayed,
    problem_of,
    retry_after_s,
)
from agent.layout import FLEET_GIT
from agent.proof import Proof
from agent.wire.errors import Retry, Stop
from agent.wire.overlay import MEDIA_TYPE, Limits, unpack

_ETAG: Final = re.compile(r'"([\x21\x23-\x7e]{1,200})"\Z')
_MOST_S: Final = 300.0
_LIMITS: Final = Limits()


class CredentialRefused(Retry):
    """The hub or the Git host does not take this site's credential: revoked, or not of this hub."""

    code = "EF4024"
    delay_s = 60.0


class NothingPublished(Retry):
    """There is no overlay for this cluster, or none yet. What runs goes on."""

    code = "EF4025"
    delay_s = 10.0


class HubFault(Retry):
    """The hub answered that it cannot; its own words are in the text."""

    code = "EF4026"
    delay_s = 10.0


@dataclass(frozen=True, slots=True)
class Received:
    """An overlay as it came. Nothing in it is to be believed before agent/verify.py has accepted it.

    Attributes:
        files: path → bytes.
        revision: names these bytes to the same transport; for nothing else.
        transport: ``hub``, ``git`` or ``folder``.
    """

    files: Mapping[str, bytes]
    revision: str
    transport: str


class Transport(Protocol):
    """Where overlays come from. One thread polls; any thread may ``wake``."""

    def poll(self, revision: str, wait_s: float) -> Received | None:
        """Wait for an overlay other than ``revision``.

        Args:
            revision: of what the caller has; empty for nothing. Bytes that were refused count as had.
            wait_s: when there is nothing new, the call takes about so long; 0 looks once.

        Returns:
            The overlay, or None when there is nothing new, or when it was woken.

        Raises:
            Retry: not now; ``delay_s`` says how long to leave it alone.
            Stop: what stands there is refused. Said once: until it changes, further polls wait and return None.
        """

    def wake(self) -> None:
        """End the present poll, or the next one, at once."""

    def close(self) -> None:
        """Let go of connections, after the last poll."""


def open_transport(config: Config, proof: Proof, state: Path) -> Transport:
    """Return the transport that the settings name: Git where ``git`` is set, else the folder, else the hub.

    Args:
        config: settings of the agent.
        proof: who this cluster is.
        state: its directory, for what Git keeps.

    Raises:
        BadConfig: the settings name none of the three.
        BadUrl: an address or a certificate file cannot be used.
    """
    # Imported here: an agent that uses one transport does not carry the others.
    if config.git:
        from agent.fetch_git import GitTransport

        return GitTransport(config, proof, state / FLEET_GIT)
    if config.folder:
        from agent.fetch_folder import FolderTransport

        return FolderTransport(Path(config.folder), config.cluster)
    if config.hub:
        return HubTransport(hub_connection(config, proof), proof)
    raise BadConfig("no hub, no git and no folder to take overlays from", do="set one of them in agent.json")


def hub_connection(config: Config, proof: Proof) -> Connection:
    """Return a connection to the hub; each new one is made with the certificate that ``proof`` has then.

    Raises:
        BadUrl: the address or a certificate file cannot be used.
    """
    origin = Origin.parse(config.hub)
    if origin.scheme == "https":
        proof.tls()
    return Connection(origin, proof.tls)


def basic(user: str, password: str) -> dict[str, str]:
    """Return the header of a user and a password."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


class HubTransport:
    """Long polls over one kept connection.

    Args:
        connection: to the hub; closed with this.
        proof: who this cluster is.
        limits: of an overlay.
    """

    def __init__(self, connection: Connection, proof: Proof, limits: Limits = _LIMITS) -> None:
        self._connection = connection
        self._proof = proof
        self._limits = limits
        self._refused = ""
        self._woken = threading.Event()

    def poll(self, revision: str, wait_s: float) -> Received | None:
        """See ``Transport``."""
        self._connection.resume()  # before the look at woken: a wake after it is not lost
        if self._woken.is_set():
            self._woken.clear()
            return None
        wait_s = min(wait_s, _MOST_S)
        known = self._refused or revision
        if self._proof.tend():
            self._connection.close()
        try:
            answer = self._ask(known, wait_s)
        except Unreachable:
            if self._woken.is_set():
                self._woken.clear()
                return None
            raise
        return self._read(answer, known, wait_s)

    def wake(self) -> None:
        """See ``Transport``."""
        self._woken.set()
        self._connection.interrupt()

    def close(self) -> None:
        """See ``Transport``."""
        self._connection.close()

    def _ask(self, known: str, wait_s: float, tries: int = 3) -> Answer:
        headers = {"Accept": MEDIA_TYPE, "Accept-Encoding": "identity", **self._proof.headers()}
        if known:
            headers["If-None-Match"] = f'"{known}"'
        path, most = f"/v1/overlay?wait={wait_s:.3f}", self._limits.total_bytes
        answer = None
        try:
            answer = self._connection.ask("GET", path, headers, most_bytes=most, wait_s=wait_s * 1.1)
        except OurCertificateRefused:
            if not (self._proof.refused(None) and tries > 1):
                raise
        if answer is not None and answer.status != 401:
            return answer
        self._connection.close()
        if answer is not None and not (self._proof.refused(answer) and tries > 1):
            return answer
        return self._ask(known, wait_s, tries - 1)

    def _read(self, answer: Answer, known: str, wait_s: float) -> Received | None:
        where = f"{self._connection.origin}/v1/overlay"
        if answer.status == 304:
            return None
        if answer.status != 200:
            raise refusal(answer, where)
        tag = _ETAG.match(answer.headers.get("etag", ""))
        if answer.headers.get("content-type", "") != MEDIA_TYPE or tag is None:
            raise UnexpectedAnswer("200, but no overlay", where=where, do="check `hub` in agent.json: is this the hub?")
        if tag[1] == known:
            self._woken.wait(wait_s)  # a cache between that knows no If-None-Match: as with 304, but nobody waited
            self._woken.clear()
            return None
        try:
            files = unpack(answer.body, self._limits, where)
        except Stop:
            self._refused = tag[1]
            raise
        self._refused = ""
        return Received(files, tag[1], "hub")


def refusal(answer: Answer, where: str) -> Retry:
    """Return the fault that an answer of the hub stands for. None is final: the next hub may be a mended one."""
    code, detail = problem_of(answer)
    said = f"{code}: {detail}" if code else f"status {answer.status}"
    if answer.status in (401, 403):
        do = "nothing stops running; ask who runs the hub, and join again with a new token"
        return CredentialRefused(said, where=where, do=do)
    if code == "EF3107":
        return NothingPublished(said, where=where)
    if 300 <= answer.status < 400:
        target = answer.headers.get("location", "")[:200]
        return HubFault(f"moved to {target!r}", where=where, do="set `hub` in agent.json to where it is now")
    fault = HubFault(
        said, where=where, do="see the hub's log" if code else "check `hub` in agent.json: is this the hub?"
    )
    return delayed(fault, retry_after_s(answer, fault.delay_s))
