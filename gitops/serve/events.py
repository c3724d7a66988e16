"""``GET /v1/events``: what happened at the edges, in the order in which the hub heard of it."""

from __future__ import annotations

from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent.wire.fields import write_time
from gitops.serve.faults import BadRequest
from gitops.serve.people import authorize
from gitops.serve.view import HubView
from gitops.store import StoredEvent

_MOST: Final = 1000


class Events:
    """Answers with events: ``?cluster=NAME&after=CURSOR&limit=N``; without a cursor with the newest."""

    def __init__(self, view: HubView) -> None:
        self._view = view

    async def get(self, request: Request) -> Response:
        """Answer one look."""
        authorize(request, "read")
        asked = request.query_params
        after, limit = asked.get("after", ""), asked.get("limit", "100")
        if not all(one.isascii() and one.isdecimal() and len(one) < 16 for one in (after or "0", limit)):
            raise BadRequest("`after` and `limit` are whole numbers")
        most = min(max(1, int(limit)), _MOST)
        found = await run_in_threadpool(self._find, asked.get("cluster"), after, most)
        return JSONResponse({"events": [_shown(one) for one in found]}, headers={"cache-control": "no-store"})

    def _find(self, cluster: str | None, after: str, limit: int) -> tuple[StoredEvent, ...]:
        store = self._view.store
        if after:
            return store.events(cluster, int(after), limit)
        return store.newest_events(cluster, limit)


def _shown(one: StoredEvent) -> dict[str, Any]:
    event = one.event
    return {
        "id": one.id,
        "cluster": one.cluster,
        "at": write_time(event.at),
        "receivedAt": write_time(one.received_at),
        "kind": event.kind,
        "object": event.object,
        "version": event.version,
        "code": event.code,
        "message": event.message,
        "count": event.count,
    }
