"""``/v2/``: the part of an OCI registry that takes pushes and deletes, from people with the operator token.

A blob is one for all repositories: a push of bytes that are here costs nothing, mounted or not. A blob that a manifest
leads to is not deleted.

Source: OCI distribution specification 1.1.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from agent.wire.canonical import is_digest
from gitops.artifacts import NoSuchBlob
from gitops.oci_manifest import MAX_MANIFEST_BYTES, BadManifest, read_manifest, subject_of
from gitops.serve.bodies import chunks
from gitops.serve.faults import Unauthenticated, WrongMethod
from gitops.serve.people import authorize, may, people_of
from gitops.serve.registry import Registry, resolve
from gitops.serve.registry_faults import VERSION, StillUsed
from gitops.serve.uploads import BadUpload, Upload, Uploads
from gitops.serve.view import HubView

MOST_BLOB_BYTES: Final = 1 << 40
UPLOAD_S: Final = 86400.0
"""One piece of a blob must be complete within this; thin links send large pieces."""

_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")


class Pushes:
    """Answers pushes and deletes.

    Args:
        view: for the store.
        pulls: answers the other methods of the same addresses.
    """

    def __init__(self, view: HubView, pulls: Registry) -> None:
        self._store = view.artifacts
        self._pulls = pulls
        self._uploads = Uploads(view.artifacts)

    async def manifest(self, request: Request) -> Response:
        """Answer ``GET|HEAD|PUT|DELETE /v2/REPOSITORY/manifests/REFERENCE``."""
        match request.method:
            case "PUT":
                return await self._noted(request, await self._put_manifest(request))
            case "DELETE":
                return await self._noted(request, await self._delete_manifest(request))
        return await self._pulls.manifest(request)

    async def _noted(self, request: Request, answer: Response) -> Response:
        await people_of(request).note(request, authorize(request, "push"), request.method.lower(), request.url.path)
        return answer

    async def blob(self, request: Request) -> Response:
        """Answer ``GET|HEAD|DELETE /v2/REPOSITORY/blobs/DIGEST``."""
        if request.method != "DELETE":
            return await self._pulls.blob(request)
        self._check(request)
        await run_in_threadpool(self._delete_blob, request.path_params["reference"])
        return Response(status_code=202, headers=VERSION)

    async def uploads(self, request: Request) -> Response:
        """Answer ``POST /v2/REPOSITORY/blobs/uploads/``: begin an upload, take a whole blob, or mount one."""
        repository = self._check(request)
        mounted = request.query_params.get("mount", "")
        if is_digest(mounted) and await run_in_threadpool(self._store.has, mounted):
            self._store.repositories.directory(repository)
            return _created(repository, "blobs", mounted)
        upload = await run_in_threadpool(self._uploads.begin, repository)
        wanted = request.query_params.get("digest", "")
        if not wanted:
            return _accepted(repository, upload)
        return await self._finish(request, upload, wanted)

    async def upload(self, request: Request) -> Response:
        """Answer ``GET|PATCH|PUT|DELETE`` of one upload."""
        repository = self._check(request)
        upload = await run_in_threadpool(self._uploads.find, repository, request.path_params["upload"])
        match request.method:
            case "PATCH":
                await self._add(request, upload)
                return _accepted(repository, upload)
            case "PUT":
                return await self._finish(request, upload, request.query_params.get("digest", ""))
            case "DELETE":
                self._uploads.cancel(upload)
                return Response(status_code=204, headers=VERSION)
        return _accepted(repository, upload, 204)

    async def _add(self, request: Request, upload: Upload) -> None:
        pieces = chunks(request, MOST_BLOB_BYTES, UPLOAD_S)
        await self._uploads.add(upload, request.headers.get("content-range", ""), pieces)

    async def _finish(self, request: Request, upload: Upload, wanted: str) -> Response:
        if not is_digest(wanted):
            raise BadUpload(f"{wanted[:80]!r} is not a sha256 digest", do="end with PUT …?digest=sha256:…")
        await self._add(request, upload)
        await run_in_threadpool(self._uploads.finish, upload, wanted)
        return _created(request.path_params["repository"], "blobs", wanted)

    async def _put_manifest(self, request: Request) -> Response:
        repository, reference = self._check(request), request.path_params["reference"]
        body = b"".join([piece async for piece in chunks(request, MAX_MANIFEST_BYTES + 1)])
        declared = request.headers.get("content-type", "").partition(";")[0].strip()
        top = read_manifest(body, declared)
        if declared and top["mediaType"] != declared:
            raise BadManifest(f"sent as {declared[:80]!r}, and it says {top['mediaType']}", do="send it as what it is")
        tag = "" if ":" in reference else reference
        if tag and not _TAG.match(tag):
            raise BadManifest(f"{tag[:80]!r} is no tag", do="use at most 128 of A-Z a-z 0-9 . _ -")
        found = await run_in_threadpool(self._keep, repository, body, reference, tag, declared)
        subject = subject_of(top)
        return _created(repository, "manifests", found, {"oci-subject": subject} if subject else {})

    def _keep(self, repository: str, body: bytes, reference: str, tag: str, declared: str) -> str:
        if not tag and self._store.put_bytes(body).digest != reference:
            raise BadUpload(f"the manifest is not {reference[:80]!r}", do="name the sha256 digest of these bytes")
        return self._store.put_manifest(repository, body, tag, declared)

    async def _delete_manifest(self, request: Request) -> Response:
        repository, reference = self._check(request), request.path_params["reference"]
        found = await run_in_threadpool(resolve, self._store, repository, reference)
        what = {"digest": found} if ":" in reference else {"tag": reference}
        await run_in_threadpool(lambda: self._store.repositories.remove(repository, **what))
        return Response(status_code=202, headers=VERSION)

    def _delete_blob(self, wanted: str) -> None:
        if not self._store.has(wanted):
            raise NoSuchBlob(f"no {wanted[:80]} in the store")
        user = self._store.user_of(wanted)
        if user:
            raise StillUsed(f"{user} leads to it", do="delete that first")
        self._store.path(wanted).unlink(missing_ok=True)

    def _check(self, request: Request) -> str:
        """Return the repository, for a person who may push.

        Raises:
            Unauthenticated: nobody known.
            Forbidden: a person of another role.
            WrongMethod: a cluster; it reads only.
        """
        if not may(request, "push"):
            if may(request, "read"):
                authorize(request, "push")
            if request.headers.get("authorization"):
                self._pulls.check_cluster(request)
                raise WrongMethod("a cluster's credential reads only", do="push with a token of an engineer")
            raise Unauthenticated("pushes need a token of an engineer", do="log in with it as the password")
        return str(request.path_params["repository"])


def _created(repository: str, what: str, digest: str, more: dict[str, str] | None = None) -> Response:
    place = {"location": f"/v2/{repository}/{what}/{digest}", "docker-content-digest": digest}
    return Response(status_code=201, headers={**VERSION, **place, **(more or {})})


def _accepted(repository: str, upload: Upload, status: int = 202) -> Response:
    place = f"/v2/{repository}/blobs/uploads/{upload.id}"
    head = {"location": place, "range": upload.range, "docker-upload-uuid": upload.id}
    return Response(status_code=status, headers={**VERSION, **head})
