"""``GET /v1/status``: what runs where, for people with the operator token."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent.wire.fields import write_time
from agent.wire.report import EntryReport
from gitops.serve.identity import check_operator
from gitops.serve.view import HubState, HubView
from gitops.store import Registration, StoredReport


class Status:
    """Answers with the state of the hub and of every cluster, or of one: ``?cluster=NAME``."""

    def __init__(self, view: HubView) -> None:
        self._view = view

    async def get(self, request: Request) -> Response:
        """Answer one look."""
        check_operator(request, self._view.operator_token)
        shown = await run_in_threadpool(self._show, request.query_params.get("cluster"))
        return JSONResponse(shown, headers={"cache-control": "no-store"})

    def _show(self, only: str | None) -> dict[str, Any]:
        view = self._view
        state, now, reports = view.state(), view.now(), view.store.latest_reports()
        joined = {one.name: one for one in view.store.registrations()}
        names = sorted(joined.keys() | state.published.keys()) if only is None else [only]
        return {
            "fleet": view.fleet,
            "at": write_time(now),
            "head": state.head,
            "faults": list(state.faults),
            "sources": [
                {"name": one.name, "revision": one.revision, "used": one.used, "faults": list(one.faults)}
                for one in state.sources
            ],
            "clusters": [
                _cluster(name, joined.get(name), reports.get(name), state, now)
                for name in names
                if name in joined or name in state.published
            ],
        }


def _cluster(
    name: str, registration: Registration | None, stored: StoredReport | None, state: HubState, now: datetime
) -> dict[str, Any]:
    """Return one cluster; one not heard of in time is unknown, whatever it said last."""
    seen = None if registration is None else registration.seen_at
    unknown = seen is None or (now - seen).total_seconds() > state.offline_after_s
    report = None if stored is None else stored.report
    return {
        "name": name,
        "joined": registration is not None,
        "seenAt": _time(seen),
        "unknownSince": _time(seen or (registration.joined_at if registration else None)) if unknown else "",
        "published": state.published.get(name, 0),
        "sequence": 0 if report is None else report.sequence,
        "reportedAt": "" if stored is None else write_time(stored.received_at),
        "agent": "" if report is None else report.agent,
        "trust": 0 if report is None else report.trust,
        "health": "unknown" if unknown or report is None else _worst(report.entries, report.fault_code),
        "fault": {"code": "", "message": ""}
        if report is None
        else {"code": report.fault_code, "message": report.fault},
        "sourceRevision": {} if report is None else dict(report.source_revision),
        "entries": [] if report is None else [_entry(one, unknown=unknown) for one in report.entries],
    }


def _worst(entries: tuple[EntryReport, ...], fault_code: str) -> str:
    healths = {one.health for one in entries}
    if fault_code:
        return "degraded"
    return next((one for one in ("degraded", "unknown", "progressing") if one in healths), "current")


def _entry(one: EntryReport, *, unknown: bool) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "name": one.name,
        "version": one.version,
        "health": "unknown" if unknown else one.health,
        "lastHealth": one.health,
        "healthySince": _time(one.healthy_since),
        "running": one.digest,
        "wanted": one.wanted,
        "url": one.url,
        "code": one.code,
        "message": one.message,
        "stagedBytes": one.staged_bytes,
        "sizeBytes": one.size_bytes,
    }


def _time(time: datetime | None) -> str:
    return "" if time is None else write_time(time)
