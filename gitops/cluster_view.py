"""One registered cluster as people see it."""

from __future__ import annotations

from typing import Any

from agent.wire.fields import write_time
from agent.wire.signature import fingerprint
from gitops.store import Registration, StoredReport


def cluster_shown(one: Registration, stored: StoredReport | None) -> dict[str, Any]:
    """Return what is known of a cluster; its health is the last it said, however long ago that is."""
    report = None if stored is None else stored.report
    healths = {entry.health for entry in report.entries} if report else set()
    return {
        "name": one.name,
        "key": fingerprint(one.key),
        "labels": dict(one.labels),
        "joinedAt": write_time(one.joined_at),
        "seenAt": "" if one.seen_at is None else write_time(one.seen_at),
        "reportedAt": "" if stored is None else write_time(stored.received_at),
        "sequence": 0 if report is None else report.sequence,
        "lastHealth": next((h for h in ("degraded", "unknown", "progressing", "current") if h in healths), ""),
        "fault": "" if report is None else f"{report.fault_code} {report.fault}".strip(),
        "agent": "" if report is None else report.agent,
    }
