"""``POST /v1/reports``: signed word from the edge into the store."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from agent.wire.report import Report, decode_report, encode_report
from agent.wire.report_delta import ACCEPTS_HEADER, whole
from agent.wire.signature import REPORT, verify
from gitops.fact_checks import admitted
from gitops.serve.bodies import read_body
from gitops.serve.faults import BadRequest, OtherCluster, Unauthenticated
from gitops.serve.identity import SIGNATURE_HEADER, cluster_of, read_signature
from gitops.serve.registered import Roll
from gitops.serve.view import HubView

MOST_BYTES: Final = 1 << 20
_MOST: Final = {"entries": 4096, "events": 4096, "artifacts": 4096}
_log: Final = logging.getLogger(__name__)


class Reports:
    """Takes reports; wakes the hub only when one says something that placement or a rollout looks at."""

    def __init__(self, view: HubView, roll: Roll) -> None:
        self._view = view
        self._roll = roll
        self._told: dict[str, tuple[str, ...]] = {}

    async def post(self, request: Request) -> Response:
        """Answer one report with 204."""
        cluster = cluster_of(request, self._roll.newest())
        body = await read_body(request, MOST_BYTES)
        await run_in_threadpool(self._take, cluster, body, request.headers.get(SIGNATURE_HEADER, ""))
        return Response(status_code=204, headers={ACCEPTS_HEADER: "base"})

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
        now = view.now()
        view.store.touch(cluster, now)
        if report.base:
            report = self._completed(cluster, report)
            body = encode_report(report)
        for name, most in _MOST.items():
            if (count := len(getattr(report, name))) > most:
                raise BadRequest(f"{count} {name}, at most {most}")
        facts, faults = admitted(report.facts, now, report.unread)
        self._tell(cluster, tuple(map(str, faults)))
        if view.store.put_report(cluster, replace(report, facts=facts), body, now):
            view.wake(f"report: {cluster}")

    def _tell(self, cluster: str, faults: tuple[str, ...]) -> None:
        """Log facts that do not count, once."""
        if faults != self._told.get(cluster, ()):
            self._told[cluster] = faults
            for one in faults[:10]:
                _log.warning("%s: %s", cluster, one)

    def _completed(self, cluster: str, report: Report) -> Report:
        """Return the whole report; one that came before, its answer lost, as it is: only its events may count."""
        stored = self._view.store.report(cluster)
        known = None if stored is None else stored.report
        if known is not None and known.incarnation == report.incarnation and known.number >= report.number:
            return report
        return whole(report, known)
