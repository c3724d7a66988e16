"""``GET /v1/facts``: the newest facts of every cluster, with the times they were measured at, for people."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gitops.serve.people import authorize
from gitops.serve.view import HubView
from gitops.snapshot import encode_snapshot


class KnownFacts:
    """Answers with a snapshot: gitops/snapshot.py."""

    def __init__(self, view: HubView) -> None:
        self._view = view

    async def get(self, request: Request) -> Response:
        """Answer one look."""
        authorize(request, "read")
        return JSONResponse(await run_in_threadpool(self._snapshot), headers={"cache-control": "no-store"})

    def _snapshot(self) -> dict[str, Any]:
        view = self._view
        return encode_snapshot(view.fleet, view.now(), view.store.facts())
