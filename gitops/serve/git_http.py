"""``/git/CLUSTER``: the cluster's overlay for stock Git, over smart HTTP."""

from __future__ import annotations

from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gitops.serve.bodies import read_body
from gitops.serve.faults import NotFound
from gitops.serve.git_protocol import Repository, advertise, answer
from gitops.serve.identity import cluster_of
from gitops.serve.overlays import Overlays
from gitops.serve.registered import Roll
from gitops.serve.view import HubView

_MOST_BYTES: Final = 2 << 20
_UPLOAD_PACK: Final = "git-upload-pack"
_HEADERS: Final = {"cache-control": "no-cache"}


class GitHttp:
    """Answers Git's two requests for the virtual repository of the cluster that asks."""

    def __init__(self, view: HubView, overlays: Overlays, roll: Roll) -> None:
        self._view = view
        self._roll = roll
        self._overlays = overlays

    async def refs(self, request: Request) -> Response:
        """Answer ``GET /git/CLUSTER/info/refs``."""
        repository = self._open(request)
        if request.query_params.get("service") != _UPLOAD_PACK:
            raise NotFound("only git-upload-pack is served", do="use a Git client with smart HTTP; nobody pushes here")
        return Response(
            advertise(repository, _version(request)),
            media_type=f"application/x-{_UPLOAD_PACK}-advertisement",
            headers=_HEADERS,
        )

    async def upload_pack(self, request: Request) -> Response:
        """Answer ``POST /git/CLUSTER/git-upload-pack``."""
        repository = self._open(request)
        body = await read_body(request, _MOST_BYTES)
        data = await run_in_threadpool(answer, repository, _version(request), body)
        return Response(data, media_type=f"application/x-{_UPLOAD_PACK}-result", headers=_HEADERS)

    def _open(self, request: Request) -> Repository:
        cluster = cluster_of(request, self._roll.newest())
        if request.path_params["cluster"].removesuffix(".git") != cluster:
            raise NotFound("no such repository", do=f"this cluster's is /git/{cluster}")
        self._view.store.touch(cluster, self._view.now())
        return Repository(cluster, self._overlays.commits(cluster), self._overlays.closure)


def _version(request: Request) -> int:
    asked = request.headers.get("git-protocol", "").split(":")
    return 2 if "version=2" in asked else 1 if "version=1" in asked else 0
