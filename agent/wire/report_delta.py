"""A report that says only what differs from an earlier one of the same incarnation, and the way back to the whole.

``whole(since(report, base), base) == report`` for every two reports of one incarnation. Events are never part of it:
each report carries those that the hub has not acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from agent.wire.errors import Stop
from agent.wire.report import Report

T = TypeVar("T")

ACCEPTS_HEADER: Final = "edgeferry-reports"
"""Header of the hub's answer; ``base`` in it says that the hub completes reports by what it has."""


class BaseForgotten(Stop):
    """A report builds on one that the hub does not have, or has no more; the agent sends it whole."""

    code = "EF3330"
    status = 409


def since(report: Report, base: Report) -> Report:
    """Return what of a report differs from an earlier one.

    Args:
        report: whole.
        base: whole, of the same incarnation, with a lower number: what the hub acknowledged last.
    """
    parts = _parts(report), _parts(base)
    changed = {key: value for key, value in parts[0].items() if parts[1].get(key) != value}
    return replace(
        report,
        base=base.number,
        entries=tuple(one for one in report.entries if f"{one.kind}/{one.name}" in changed),
        facts=tuple(one for one in report.facts if f"fact/{one.name}" in changed),
        artifacts=tuple(one for one in report.artifacts if one in changed),
        gone=tuple(sorted(parts[1].keys() - parts[0].keys())),
    )


def whole(delta: Report, base: Report | None) -> Report:
    """Return the whole report.

    Args:
        delta: as it came; one without a base comes back as it is.
        base: the whole report that stands in the place of ``delta.base``; None for none.

    Raises:
        BaseForgotten: ``base`` is not the one that the delta builds on.
    """
    if not delta.base:
        return delta
    if base is None or (base.incarnation, base.number) != (delta.incarnation, delta.base):
        raise BaseForgotten(f"report {delta.number} builds on {delta.base}", do="send it whole")
    gone = frozenset(delta.gone)
    return replace(
        delta,
        base=0,
        gone=(),
        entries=_merged(base.entries, delta.entries, gone, lambda one: f"{one.kind}/{one.name}"),
        facts=_merged(base.facts, delta.facts, gone, lambda one: f"fact/{one.name}"),
        artifacts=_merged(base.artifacts, delta.artifacts, gone, lambda one: one),
    )


def _parts(report: Report) -> Mapping[str, object]:
    found: dict[str, object] = {f"{one.kind}/{one.name}": one for one in report.entries}
    found.update((f"fact/{one.name}", one) for one in report.facts)
    found.update((one, one) for one in report.artifacts)
    return found


def _merged(before: Iterable[T], now: Iterable[T], gone: frozenset[str], key: Callable[[T], str]) -> tuple[T, ...]:
    found = {key(one): one for one in before if key(one) not in gone}
    found.update((key(one), one) for one in now)
    return tuple(found[name] for name in sorted(found))
