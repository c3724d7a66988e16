"""``/v2/``: the part of an OCI registry that pulls.

A person with the operator token reads everything. For a cluster, a manifest or blob outside its current and previous
release is not there, whether the store has it or not; it asks by digest alone.

Source: OCI distribution specification 1.1; RFC 9110 for ranges.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import BinaryIO, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from agent.wire.canonical import Json, canonical, is_digest
from gitops.artifacts import ArtifactStore, NoSuchBlob
from gitops.oci_manifest import OCI_INDEX, BadManifest, read_manifest
from gitops.serve.identity import cluster_of
from gitops.serve.overlays import Overlays
from gitops.serve.people import may
from gitops.serve.registered import Roll
from gitops.serve.registry_faults import VERSION, NoSuchManifest, NoSuchRepository
from gitops.serve.uploads import BadUpload
from gitops.serve.view import HubView

_CHUNK_BYTES: Final = 256 << 10
_RANGE: Final = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))\Z")


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
        if not self.is_operator(request):
            self.check_cluster(request)
        return JSONResponse({}, headers=VERSION)

    def check_cluster(self, request: Request) -> None:
        """Let a registered cluster on.

        Raises:
            Unauthenticated: nobody known.
        """
        cluster_of(request, self._roll.newest())

    def is_operator(self, request: Request) -> bool:
        """Tell whether a person with the operator token asks."""
        return may(request, "read")

    async def manifest(self, request: Request) -> Response:
        """Answer ``GET|HEAD /v2/REPOSITORY/manifests/REFERENCE``."""
        if self.is_operator(request):
            repository, reference = request.path_params["repository"], request.path_params["reference"]
            wanted = await run_in_threadpool(resolve, self._view.artifacts, repository, reference)
        else:
            wanted = request.path_params["reference"]
            await self._granted(request, wanted)
        data = await run_in_threadpool(self._manifest_bytes, wanted)
        self._view.artifacts.note_use(wanted)
        try:
            kind = str(read_manifest(data)["mediaType"])
        except BadManifest:
            raise NoSuchManifest(f"{wanted} is no manifest", do="ask for it under /blobs/") from None
        head = {**VERSION, "docker-content-digest": wanted, "etag": f'"{wanted}"', "content-length": str(len(data))}
        return Response(b"" if request.method == "HEAD" else data, media_type=kind, headers=head)

    async def tags(self, request: Request) -> Response:
        """Answer ``GET /v2/REPOSITORY/tags/list``, in order, ``n`` at a time after ``last``."""
        repository = self._for_operator(request)
        entries = await run_in_threadpool(self._view.artifacts.repositories.entries, repository)
        if not entries:
            raise NoSuchRepository(f"nothing stands in {repository[:80]!r}")
        found = sorted(one.tag for one in entries if one.tag)
        last, most = request.query_params.get("last", ""), request.query_params.get("n", "")
        found = [tag for tag in found if tag > last] if last else found
        head = dict(VERSION)
        if most.isdecimal() and int(most) < len(found):
            found = found[: int(most)]
            if found:
                head["link"] = f'</v2/{repository}/tags/list?n={most}&last={found[-1]}>; rel="next"'
        return JSONResponse({"name": repository, "tags": found}, headers=head)

    async def referrers(self, request: Request) -> Response:
        """Answer ``GET /v2/REPOSITORY/referrers/DIGEST``: what refers to a manifest, such as deltas to it."""
        repository, subject = request.path_params["repository"], request.path_params["reference"]
        if not self.is_operator(request):
            await self._granted(request, subject)
        if not is_digest(subject):
            raise BadUpload(f"{subject[:80]!r} is not a sha256 digest", do="ask for the referrers of a digest")
        wanted = request.query_params.get("artifactType", "")
        found = await run_in_threadpool(referrers, self._view.artifacts, repository, subject)
        kept = [one for one in found if not wanted or one["artifactType"] == wanted]
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": kept}
        head = {**VERSION, **({"oci-filters-applied": "artifactType"} if wanted else {})}
        return Response(canonical(index), media_type=OCI_INDEX, headers=head)

    async def blob(self, request: Request) -> Response:
        """Answer ``GET|HEAD /v2/REPOSITORY/blobs/DIGEST``, whole or one range of it."""
        wanted = request.path_params["reference"]
        who = None if self.is_operator(request) else await self._granted(request, wanted)
        size = await run_in_threadpool(self._view.artifacts.size_bytes, wanted)
        tag = f'"{wanted}"'
        head = {**VERSION, "docker-content-digest": wanted, "etag": tag, "accept-ranges": "bytes"}
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
        identity = None if who is None else self._roll.recent.by_name.get(who)
        still = None if who is None else lambda: self._roll.recent.by_name.get(who) == identity
        return StreamingResponse(_read(file, span, still), status, head, kind)

    def _manifest_bytes(self, wanted: str) -> bytes:
        try:
            return self._view.artifacts.manifest_bytes(wanted)
        except BadManifest:
            return b""

    def _for_operator(self, request: Request) -> str:
        """Return the repository that a person asks about; for a cluster there is none."""
        repository = str(request.path_params["repository"])
        if not self.is_operator(request):
            cluster_of(request, self._roll.newest())
            raise NoSuchRepository(f"nothing stands in {repository[:80]!r}")
        return repository

    async def _granted(self, request: Request, wanted: str) -> str:
        cluster = cluster_of(request, self._roll.newest())
        repository = request.path_params["repository"]
        grants = await run_in_threadpool(self._overlays.grants, cluster)
        if (repository, wanted) not in grants and not await run_in_threadpool(
            self._overlays.refers, cluster, repository, wanted
        ):
            raise NoSuchBlob(f"{wanted[:80]!r} is not in a release of this cluster", do="take the newest release first")
        return cluster


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


def resolve(store: ArtifactStore, repository: str, reference: str) -> str:
    """Return the digest of a manifest that a repository holds, asked for by digest or tag.

    Raises:
        NoSuchManifest: it holds none of that name.
        BadRepository: not the name of a repository.
    """
    for one in store.repositories.entries(repository):
        if reference in (one.digest, one.tag) and store.has(one.digest):
            return one.digest
    raise NoSuchManifest(f"no {reference[:80]!r} in {repository}", do="list what is there with /tags/list")


def referrers(store: ArtifactStore, repository: str, subject: str) -> list[dict[str, Json]]:
    """Return descriptors of the manifests of a repository that refer to ``subject``, in order of digest."""
    found = []
    listed = {one.digest: one for one in store.repositories.entries(repository) if one.subject == subject}
    for digest, one in sorted(listed.items()):
        top = read_manifest(store.manifest_bytes(digest))
        kind = top.get("artifactType") or top.get("config", {}).get("mediaType", "")
        plain = {"mediaType": one.media_type, "digest": digest, "size": one.size_bytes, "artifactType": kind}
        found.append(plain | ({"annotations": top["annotations"]} if top.get("annotations") else {}))
    return found


async def _read(file: BinaryIO, span: Span, still: Callable[[], bool] | None) -> AsyncIterator[bytes]:
    """Give the bytes; a cluster that is revoked meanwhile gets no more of them."""
    with file:
        await run_in_threadpool(file.seek, span.first)
        left = span.end - span.first
        while left:
            if still is not None and not still():
                raise OSError("the cluster was revoked while it read")
            chunk = await run_in_threadpool(file.read, min(left, _CHUNK_BYTES))
            if not chunk:
                raise OSError("a blob became shorter while it was read")
            left -= len(chunk)
            yield chunk
