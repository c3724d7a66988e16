"""Pushing to OCI registries: blobs in pieces that go on where they were cut, then manifests.

Source: OCI distribution specification 1.1, pushing blobs and manifests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Final
from urllib.parse import urlencode, urlsplit

from agent.address import Origin
from agent.http import Answer, Unreachable
from agent.oci import Login, Registry, RegistryFault

PIECE_BYTES: Final = 8 << 20
_TRIES: Final = 5

Told = Callable[[int], None]
"""Told how many bytes of the blob are at the registry."""

Pause = Callable[[int], None]
"""Waits before attempt n, from 1 on."""


def open_registry(host: str, login: Login, actions: str) -> Registry:
    """Return a client of ``HOST[:PORT]``: over TLS, except on this machine.

    Raises:
        BadUrl: no such host can be.
    """
    secure = Origin.parse(f"https://{host}")
    return Registry(Origin.parse(f"http://{host}") if secure.loopback else secure, login=login, actions=actions)


def push_blob(
    registry: Registry, repository: str, digest: str, size_bytes: int, file: BinaryIO, told: Told, pause: Pause
) -> bool:
    """Have a blob at the registry; return whether it had to be sent.

    Args:
        registry: whose tokens may push.
        repository: that is to hold it.
        digest: of the blob.
        size_bytes: of the blob.
        file: its bytes; read from where the registry wants to go on.
        told: progress.
        pause: between attempts.

    Raises:
        Retry: the registry does not take it; what it has taken stays there for a day or so.
    """
    if registry.ask("HEAD", repository, f"/v2/{repository}/blobs/{digest}").status == 200:
        told(size_bytes)
        return False
    place = _place(_done(registry.ask("POST", repository, f"/v2/{repository}/blobs/uploads/", body=b""), 202))
    query = urlencode({"digest": digest})
    if size_bytes <= PIECE_BYTES:
        file.seek(0)
        body = file.read(size_bytes)
        _done(registry.ask("PUT", repository, f"{place}{'&' if '?' in place else '?'}{query}", body=body), 201)
        told(size_bytes)
        return True
    at = tries = 0
    while at < size_bytes:
        file.seek(at)
        piece = file.read(min(PIECE_BYTES, size_bytes - at))
        span = {"Content-Range": f"{at}-{at + len(piece) - 1}", "Content-Type": "application/octet-stream"}
        try:
            answer = registry.ask("PATCH", repository, place, span, piece)
            if answer.status != 202 and answer.status != 416:
                _done(answer, 202)
            if answer.status == 416:
                answer = _done(registry.ask("GET", repository, place), 204)
            at, place, tries = _end(answer), _place(answer), 0
        except (Unreachable, RegistryFault):
            tries += 1
            if tries > _TRIES:
                raise
            pause(tries)
            at = _end(_done(registry.ask("GET", repository, place), 204))
        told(at)
    _done(registry.ask("PUT", repository, f"{place}{'&' if '?' in place else '?'}{query}", body=b""), 201)
    return True


def push_manifest(registry: Registry, repository: str, reference: str, data: bytes, media_type: str) -> None:
    """Have a manifest at the registry, under a tag or its digest.

    Raises:
        Retry: the registry does not take it.
    """
    path = f"/v2/{repository}/manifests/{reference}"
    _done(registry.ask("PUT", repository, path, {"Content-Type": media_type}, data), 201)


def _done(answer: Answer, wanted: int) -> Answer:
    if answer.status != wanted:
        said = answer.body[:200].decode(errors="replace")
        raise RegistryFault(f"status {answer.status}: {said}", do="see the registry's log")
    return answer


def _place(answer: Answer) -> str:
    """Return path and query of an upload; the same registry is asked, wherever it says it stands."""
    parts = urlsplit(answer.headers.get("location", ""))
    if not parts.path.startswith("/"):
        raise RegistryFault("it names no place for the upload")
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _end(answer: Answer) -> int:
    """Return how many bytes an upload has; ``0-0`` stands for none: a piece is never one byte."""
    last = answer.headers.get("range", "0-0").removeprefix("bytes=").partition("-")[2]
    if not last.isdecimal():
        raise RegistryFault("it does not say how much it has")
    return int(last) + 1 if int(last) else 0
