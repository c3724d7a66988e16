"""``POST /v1/reports``: signed word from the edge into the store."""

from __future__ import annotations

from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from agent.wire.report import decode_report
from agent.wire.signature import REPORT, verify
from gitops.serve.bodies import read_body
from gitops.serve.faults import BadRequest, OtherCluster, Unauthenticated
from gitops.serve.identity import SIGNATURE_HEADER, cluster_of, read_signature
from gitops.serve.registered import Roll
from gitops.serve.view import HubView

MOST_BYTES: Final = 1 << 20
_MOST_FACTS: Final = 512
_MOST_ENTRIES: Final = 4096
_MOST_EVENTS: Final = 4096


class Reports:
    """Takes reports; wakes the hub only when one says something that placement or a rollout looks at."""

    def __init__(self, view: HubView, roll: Roll) -> None:
        self._view = view
        self._roll = roll

    async def post(self, request: Request) -> Response:
        """Answer one report with 204."""
        cluster = cluster_of(request, self._roll.newest())
        body = await read_body(request, MOST_BYTES)
        await run_in_threadpool(self._take, cluster, body, request.headers.get(SIGNATURE_HEADER, ""))
        return Response(status_code=204)

    def _take(self, cluster: str, body: bytes, signature: str) -> None:
        view = self._view
        registration = view.store.registration(cluster)
        if registration is None:
            raise Unauthenticated("no registered cluster any more")
        armored = read_signature(signature, f"report of {cluster}")
        verify(body, armored, REPORT, (registration.key,), f"report of {cluster}")
        report = decode_report(body, f"report of {cluster}")
        if report.cluster != cluster or report.fleet != view.fleet:
            raise OtherCluster(
                f"a report of {report.cluster[:80]!r} in fleet {report.fleet[:80]!r}, sent by {cluster!r}",
                do="join this cluster again",
            )
        if len(report.facts) > _MOST_FACTS or len(report.entries) > _MOST_ENTRIES or len(report.events) > _MOST_EVENTS:
            raise BadRequest(
                f"{len(report.facts)} facts, {len(report.entries)} entries, {len(report.events)} events:"
                f" at most {_MOST_FACTS}, {_MOST_ENTRIES}, {_MOST_EVENTS}"
            )
        now = view.now()
        view.store.touch(cluster, now)
        if view.store.put_report(cluster, report, body, now):
            view.wake(f"report: {cluster}")
