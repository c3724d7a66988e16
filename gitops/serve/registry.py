"""``/v2/``: the part of an OCI registry that pulls, for clusters and what their releases name.

A manifest or blob outside the current and previous release of the cluster that asks is not there for it,
whether the store has it or not.

Source: OCI distribution specification 1.1; RFC 9110 for ranges.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from agent.wire.errors import EdgeferryError
from gitops.artifacts import NoSuchBlob
from gitops.oci_manifest import BadManifest, read_manifest
from gitops.serve.faults import status_of
from gitops.serve.identity import cluster_of
from gitops.serve.overlays import Overlays
from gitops.serve.registered import Roll
from gitops.serve.view import HubView

_VERSION: Final = {"docker-distribution-api-version": "registry/2.0"}
_CHUNK_BYTES: Final = 256 << 10
_RANGE: Final = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))\Z")
_CODES: Final = {401: "UNAUTHORIZED", 404: "BLOB_UNKNOWN", 405: "UNSUPPORTED"}


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``first`` up to and without ``end``."""

    first: int
    end: int


class Registry:
    """Answers pulls. Bytes go from disk to socket in pieces, as fast as the reader takes them."""

    def __init__(self, view: HubView, overlays: Overlays, roll: Roll) -> None:
        self._view = view
        self._roll = roll
        self._overlays = overlays

    async def base(self, request: Request) -> Response:
        """Answer ``GET /v2/``: this is a registry, and you may use it."""
        cluster_of(request, self._roll.newest())
        return JSONResponse({}, headers=_VERSION)

    async def manifest(self, request: Request) -> Response:
        """Answer ``GET|HEAD /v2/REPOSITORY/manifests/DIGEST``."""
        wanted = await self._granted(request)
        data = await run_in_threadpool(self._manifest_bytes, wanted)
        try:
            kind = str(read_manifest(data)["mediaType"])
        except BadManifest:
            raise NoSuchBlob(f"{wanted} is no manifest", do="ask for it under /blobs/") from None
        head = {**_VERSION, "docker-content-digest": wanted, "etag": f'"{wanted}"', "content-length": str(len(data))}
        return Response(b"" if request.method == "HEAD" else data, media_type=kind, headers=head)

    async def blob(self, request: Request) -> Response:
        """Answer ``GET|HEAD /v2/REPOSITORY/blobs/DIGEST``, whole or one range of it."""
        wanted = await self._granted(request)
        size = await run_in_threadpool(self._view.artifacts.size_bytes, wanted)
        tag = f'"{wanted}"'
        head = {**_VERSION, "docker-content-digest": wanted, "etag": tag, "accept-ranges": "bytes"}
        asked = request.headers.get("range", "")
        if request.headers.get("if-range", tag) != tag:
            asked = ""
        span = read_range(asked, size)
        if span is None:
            return Response(status_code=416, headers={**head, "content-range": f"bytes */{size}"})
        partial = bool(asked) and _RANGE.match(asked) is not None
        if partial:
            head["content-range"] = f"bytes {span.first}-{span.end - 1}/{size}"
        head["content-length"] = str(span.end - span.first)
        status, kind = 206 if partial else 200, "application/octet-stream"
        if request.method == "HEAD":
            return Response(status_code=status, headers=head, media_type=kind)
        file = await run_in_threadpool(self._view.artifacts.open_blob, wanted)
        return StreamingResponse(_read(file, span), status, head, kind)

    def _manifest_bytes(self, wanted: str) -> bytes:
        try:
            return self._view.artifacts.manifest_bytes(wanted)
        except BadManifest:
            return b""

    async def _granted(self, request: Request) -> str:
        cluster = cluster_of(request, self._roll.newest())
        repository, wanted = request.path_params["repository"], request.path_params["digest"]
        grants = await run_in_threadpool(self._overlays.grants, cluster)
        if (repository, wanted) not in grants:
            raise NoSuchBlob(f"{wanted[:80]!r} is not in a release of this cluster", do="take the newest release first")
        return str(wanted)


def read_range(header: str, size: int) -> Span | None:
    """Return the bytes that a Range header asks for; all of them where it is absent, unreadable, or asks for several.

    Returns:
        None where the range begins past the end.
    """
    found = _RANGE.match(header)
    if found is None:
        return Span(0, size)
    first, last, tail = found.groups()
    if tail is not None:
        return Span(max(size - int(tail), 0), size) if int(tail) and size else None
    if int(first) >= size or (last is not None and int(last) < int(first)):
        return None
    return Span(int(first), size if last is None else min(int(last) + 1, size))


def registry_problem(error: EdgeferryError) -> Response:
    """Return a fault as registry clients read it."""
    status = 404 if isinstance(error, NoSuchBlob) else status_of(error)
    fault = {"code": _CODES.get(status, "UNKNOWN"), "message": str(error)}
    return JSONResponse({"errors": [fault]}, status, headers=_VERSION)


async def _read(file: BinaryIO, span: Span) -> AsyncIterator[bytes]:
    with file:
        await run_in_threadpool(file.seek, span.first)
        left = span.end - span.first
        while left:
            chunk = await run_in_threadpool(file.read, min(left, _CHUNK_BYTES))
            if not chunk:
                raise OSError("a blob became shorter while it was read")
            left -= len(chunk)
            yield chunk
