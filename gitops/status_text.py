"""The hub's status for people: what is wrong first, then what runs where. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from agent.wire.fields import parse_time

_MOST: Final = 100
_WORST_FIRST: Final = ("degraded", "unknown", "progressing", "current")
Rows = list[tuple[str, ...]]


def overview(shown: Mapping[str, Any], *, everything: bool = False) -> tuple[list[str], Rows, list[str]]:
    """Return the whole fleet: lines above, the table of clusters with its heads, lines below.

    Args:
        shown: what ``GET /v1/status`` answers.
        everything: also beyond a hundred clusters.
    """
    now = parse_time(shown["at"], "status")
    clusters = sorted(shown["clusters"], key=lambda one: (_WORST_FIRST.index(one["health"]), one["name"]))
    counts = Counter(one["health"] for one in clusters)
    healths = ", ".join(f"{counts[health]} {health}" for health in reversed(_WORST_FIRST) if counts[health])
    above = [*_top(shown), f"{len(clusters)} clusters: {healths}" if clusters else "no cluster has joined yet"]
    rows: Rows = [("CLUSTER", "HEALTH", "RELEASE", "REPORTED", "RUNS")]
    left = clusters if everything else clusters[:_MOST]
    rows += [(one["name"], one["health"], _release(one), age(one["reportedAt"], now), _runs(one)) for one in left]
    below = [line for one in left for line in _faults(one, now)]
    if len(left) < len(clusters):
        below.append(f"… and {len(clusters) - len(left)} more; --all shows them")
    return above, rows, below


def about(shown: Mapping[str, Any], *, everything: bool = False) -> tuple[list[str], Rows, list[str]]:
    """Return one cluster, model, workload or application: one row for every entry on every cluster.

    Args:
        shown: what ``GET /v1/status?about=NAME`` answers.
        everything: also beyond a hundred rows.
    """
    now = parse_time(shown["at"], "status")
    found = [(one, entry) for one in shown["clusters"] for entry in one["entries"]]
    found.sort(key=lambda pair: (_WORST_FIRST.index(pair[1]["health"]), pair[0]["name"], pair[1]["kind"]))
    rows: Rows = [("CLUSTER", "KIND", "NAME", "RUNS", "WANTED", "HEALTH", "SINCE", "REPORTED", "URL")]
    left = found if everything else found[:_MOST]
    rows += [
        (
            one["name"],
            entry["kind"],
            entry["name"],
            _version(entry),
            entry["wantedVersion"] or "none",
            entry["health"],
            age(entry["healthySince"], now) if entry["health"] == "current" else "–",
            age(one["reportedAt"], now),
            entry["url"] or "–",
        )
        for one, entry in left
    ]
    below = [line for one in shown["clusters"][:_MOST] for line in _faults(one, now)]
    if len(left) < len(found):
        below.append(f"… and {len(found) - len(left)} more; --all shows them")
    return _top(shown), rows if found else [], below


def age(text: str, now: datetime) -> str:
    """Return how long ago a time is, in one unit: ``12 s``, ``5 min``, ``3 h``, ``9 d``; ``never`` for none."""
    if not text:
        return "never"
    seconds = max(0, int((now - parse_time(text, "status")).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _top(shown: Mapping[str, Any]) -> list[str]:
    lines = [f"fleet {shown['fleet']}, published {shown['head'][:12] or 'nothing yet'}"]
    lines += [f"fault: {fault}" for fault in shown["faults"]]
    for one in shown["sources"]:
        lines += _source(one)
    return lines


def _source(one: Mapping[str, Any]) -> list[str]:
    name, used = one["name"], one["used"][:12] or "nothing"
    note = [f"  {one['note']}"] if one["note"] else []
    if not one["faults"]:
        return [f"source {name} at {used}", *note]
    held = f"at {one['revision'][:12]} " if one["revision"] else ""
    return [f"source {name} is held back {held}and stays at {used}:", *(f"  {line}" for line in one["faults"]), *note]


def _release(one: Mapping[str, Any]) -> str:
    if one["sequence"] == one["published"]:
        return str(one["published"]) if one["published"] else "none"
    return f"{one['sequence'] or 'none'} of {one['published'] or 'none'}"


def _runs(one: Mapping[str, Any]) -> str:
    entries: Sequence[Mapping[str, Any]] = one["entries"]
    texts = [f"{entry['name']} {_version(entry)}" for entry in entries[:4]]
    return ", ".join(texts) + (f" and {len(entries) - 4} more" if len(entries) > 4 else "") or "–"


def _version(entry: Mapping[str, Any]) -> str:
    return entry["version"] if entry["running"] else "–"


def _faults(one: Mapping[str, Any], now: datetime) -> list[str]:
    lines = []
    if not one["joined"]:
        lines.append(f"{one['name']} has not joined: `edgeferry cluster token {one['name']}`")
    elif one["unknownSince"]:
        lines.append(f"{one['name']} is unknown since {one['unknownSince']}, {age(one['unknownSince'], now)} ago")
    if one["kept"]:
        lines.append(f"{one['name']} keeps its release: {one['kept']}")
    fault = one["fault"]
    if fault["code"] or fault["message"]:
        lines.append(f"{one['name']}: {fault['code']} {fault['message']}".rstrip())
    for entry in one["entries"]:
        if entry["code"] or (entry["message"] and entry["lastHealth"] != "current"):
            told = f"{entry['code']} {entry['message']}".strip()
            lines.append(f"{one['name']} {entry['kind']}/{entry['name']}: {told}")
    return lines
