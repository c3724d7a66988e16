"""What of a report can move a placement or a rollout."""

from __future__ import annotations

import hashlib

from agent.wire.canonical import canonical
from agent.wire.fields import write_time
from agent.wire.report import Report


def what_matters(report: Report) -> bytes:
    """Return a digest that changes when the hub has to think again.

    Covered: the release in force, the fault, the formats that the agent reads, per entry what runs and is wanted
    and how healthy since when, and the values of the facts. Not covered: numbers, times of measurement, messages,
    progress in bytes, events.
    """
    covered = [
        report.incarnation,
        report.sequence,
        report.content,
        report.fault_code,
        sorted(report.reads),
        sorted(
            [
                one.kind,
                one.name,
                one.digest,
                one.wanted,
                one.health,
                "" if one.healthy_since is None else write_time(one.healthy_since),
                one.code,
            ]
            for one in report.entries
        ),
        sorted([fact.name, fact.value] for fact in report.facts),
    ]
    return hashlib.sha256(canonical(covered)).digest()
