"""``GET /v1/status``: what runs where, for people with the operator token."""

from __future__ import annotations

import difflib
from datetime import datetime
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent.wire.fields import write_time
from agent.wire.report import EntryReport
from gitops.changes import Entries
from gitops.serve.faults import NothingNamed
from gitops.serve.people import authorize
from gitops.serve.view import HubState, HubView
from gitops.store import Registration, StoredReport


class Status:
    """Answers with the state of the hub and of the clusters.

    ``?about=NAME`` leaves one cluster; or, for the name of an application, model or workload, the clusters that run it
    or are to run it, with its entries alone.
    """

    def __init__(self, view: HubView) -> None:
        self._view = view

    async def get(self, request: Request) -> Response:
        """Answer one look."""
        authorize(request, "read")
        shown = await run_in_threadpool(self._show, request.query_params.get("about"))
        return JSONResponse(shown, headers={"cache-control": "no-store"})

    def _show(self, about: str | None) -> dict[str, Any]:
        view = self._view
        state, now, reports = view.state(), view.now(), view.store.latest_reports()
        joined = {one.name: one for one in view.store.registrations()}
        names = joined.keys() | state.published.keys()
        only = None
        if about is not None and about not in names:
            only = state.named.get(about) or _once_reported(about, reports.values())
            if not only:
                near = difflib.get_close_matches(about, [*names, *state.named], 1)
                do = f"did you mean {near[0]}?" if near else "`edgeferry status` lists what there is"
                raise NothingNamed(f"no cluster, model, workload or application {about[:80]!r}", do=do)
        elif about is not None:
            names = {about}
        clusters = [_cluster(name, joined.get(name), reports.get(name), state, now) for name in sorted(names)]
        if only is not None:
            for one in clusters:
                one["entries"] = [entry for entry in one["entries"] if (entry["kind"], entry["name"]) in only]
            clusters = [one for one in clusters if one["entries"]]
        return {
            "fleet": view.fleet,
            "at": write_time(now),
            "head": state.head,
            "faults": list(state.faults),
            "sources": [
                {
                    "name": one.name,
                    "revision": one.revision,
                    "used": one.used,
                    "faults": list(one.faults),
                    "note": one.note,
                }
                for one in state.sources
            ],
            "clusters": clusters,
        }


def _once_reported(name: str, reports: Any) -> frozenset[tuple[str, str]]:
    """Return the entries of that name that clusters report, of a model or workload that is declared no more."""
    return frozenset((one.kind, one.name) for stored in reports for one in stored.report.entries if one.name == name)


def _cluster(
    name: str, registration: Registration | None, stored: StoredReport | None, state: HubState, now: datetime
) -> dict[str, Any]:
    """Return one cluster; one not heard of in time is unknown, whatever it said last."""
    seen = None if registration is None else registration.seen_at
    unknown = seen is None or (now - seen).total_seconds() > state.offline_after_s
    report = None if stored is None else stored.report
    published = state.published.get(name)
    return {
        "name": name,
        "joined": registration is not None,
        "seenAt": _time(seen),
        "unknownSince": _time(seen or (registration.joined_at if registration else None)) if unknown else "",
        "published": 0 if published is None else published.sequence,
        "kept": state.kept.get(name, ""),
        "sequence": 0 if report is None else report.sequence,
        "reportedAt": "" if stored is None else write_time(stored.received_at),
        "agent": "" if report is None else report.agent,
        "trust": 0 if report is None else report.trust,
        "health": "unknown" if unknown or report is None else _worst(report.entries, report.fault_code),
        "fault": {"code": "", "message": ""}
        if report is None
        else {"code": report.fault_code, "message": report.fault},
        "sourceRevision": {} if report is None else dict(report.source_revision),
        "entries": _entries(
            () if report is None else report.entries, {} if published is None else published.entries, unknown=unknown
        ),
    }


def _worst(entries: tuple[EntryReport, ...], fault_code: str) -> str:
    healths = {one.health for one in entries}
    if fault_code:
        return "degraded"
    return next((one for one in ("degraded", "unknown", "progressing") if one in healths), "current")


def _entries(reported: tuple[EntryReport, ...], published: Entries, *, unknown: bool) -> list[dict[str, Any]]:
    """Return what the cluster reported, and what is published for it and it has not mentioned yet."""
    missing = published.keys() - {(one.kind, one.name) for one in reported}
    silent = [
        EntryReport(kind, name, "", "", published[kind, name][1], "progressing") for kind, name in sorted(missing)
    ]
    return [_entry(one, published, unknown=unknown) for one in (*reported, *silent)]


def _entry(one: EntryReport, published: Entries, *, unknown: bool) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "name": one.name,
        "version": one.version,
        "wantedVersion": published.get((one.kind, one.name), ("", ""))[0],
        "health": "unknown" if unknown else one.health,
        "lastHealth": one.health if one.version else "",
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
