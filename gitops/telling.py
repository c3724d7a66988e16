"""Reports → what rollouts look at. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from agent.wire.report import EntryReport, Report
from gitops.decisions import DecisionRecord
from placement.rollout_types import Told

Reports = Mapping[str, tuple[Report, datetime]]
"""Cluster → its newest report, and when the hub took it."""


def arrived_at(record: DecisionRecord, reports: Reports) -> frozenset[str]:
    """Return the clusters that others wait for and that report what they were given as current."""
    return frozenset(
        name
        for name, one in record.chosen.items()
        if one.arriving and name in reports and (one.digest, "current") in _digests(reports[name][0])
    )


def _digests(report: Report) -> set[tuple[str, str]]:
    return {(one.digest, one.health) for one in report.entries}


Known = dict[str, tuple[Report, Told]]
"""Cluster → its newest report, and what it says of one model or workload."""


class Telling(Mapping[str, Told]):
    """What clusters said of one model or workload, worked out when somebody asks.

    Args:
        reports: of the whole fleet.
        kind: ``model`` or ``workload``.
        name: of it.
        known: cluster → report, and what was worked out of it before; it is added to.
    """

    def __init__(self, reports: Reports, kind: str, name: str, known: Known) -> None:
        self._reports, self._kind, self._name, self._known = reports, kind, name, known

    def __getitem__(self, cluster: str) -> Told:
        report, received_at = self._reports[cluster]
        known = self._known.get(cluster)
        if known is not None and known[0] is report and known[1].received_at == received_at:
            return known[1]
        for one in report.entries:
            if one.name == self._name and one.kind == self._kind:
                told = _told(one, report, received_at)
                self._known[cluster] = (report, told)
                return told
        raise KeyError(cluster)

    def __iter__(self) -> Iterator[str]:
        return iter(self._reports)

    def __len__(self) -> int:
        return len(self._reports)


def _told(one: EntryReport, report: Report, received_at: datetime) -> Told:
    since = one.since or one.healthy_since
    steady = 0.0 if since is None else max(0.0, (report.sent_at - since).total_seconds())
    why = f"{one.code} {one.message}".strip() if one.failed or one.health == "degraded" else ""
    return Told(one.wanted, one.digest, one.health, received_at, one.failed, why, steady, one.staged_bytes)
