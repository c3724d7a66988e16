"""Rollouts for people: where each stands, who failed, and what it waits for. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from agent.wire.fields import parse_time, write_time
from gitops.decisions import DecisionRecord
from gitops.news import standing
from placement.rollout_types import LATE, Orders, RolloutPolicy, RolloutState

_BAR: Final = 20
Rows = list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Rolling:
    """One rollout as the last step left it.

    Attributes:
        policy: None where it is not known, as in a fleet repository alone.
        orders: what people ordered for it.
    """

    record: DecisionRecord
    state: RolloutState
    policy: RolloutPolicy | None = None
    orders: Orders = field(default_factory=Orders)


def shown(one: Rolling) -> dict[str, Any]:
    """Return a rollout as JSON."""
    record, state, policy = one.record, one.state, one.policy
    on = sum(placed.digest in state.targets for placed in record.chosen.values())
    steps = [place.step for place in state.places.values()]
    return {
        "name": record.name,
        "kind": record.kind,
        "subject": record.subject,
        "version": record.version,
        "number": state.number,
        "phase": state.phase,
        "wave": state.wave,
        "waves": [] if policy is None else [wave.name for wave in policy.waves],
        "stands": _stands(one),
        "why": state.why,
        "began": write_time(state.began),
        "since": write_time(state.since),
        "chosen": len(record.chosen),
        "published": on,
        "moving": steps.count("moving"),
        "done": steps.count("done"),
        "held": sorted(state.held),
        "halted": one.orders.halted,
        "waitsForApproval": _asks(one),
        "clusters": [
            {
                "name": name,
                "wave": "late" if place.wave == LATE else _wave(policy, place.wave),
                "step": place.step,
                "at": write_time(place.at),
                "why": place.why,
            }
            for name, place in sorted(state.places.items())
        ],
        "failed": sorted(name for name, place in state.places.items() if place.step == "failed"),
    }


def table_rows(rollouts: Sequence[Mapping[str, Any]], at: str) -> Rows:
    """Return heads and one row for each rollout."""
    now = parse_time(at, "rollouts")
    rows: Rows = [("PLACEMENT", "VERSION", "ROLLOUT", "STANDS", "PROGRESS", "MOVING", "FAILED", "SINCE")]
    rows += [
        (
            one["name"],
            one["version"] or "–",
            str(one["number"]),
            one["stands"],
            bar(one["published"], one["chosen"]),
            str(one["moving"]),
            str(len(one["failed"])),
            _ago(one["since"], now),
        )
        for one in rollouts
    ]
    return rows


def about(one: Mapping[str, Any], at: str, *, everything: bool = False) -> tuple[list[str], Rows]:
    """Return one rollout: lines, and the table of the clusters that are on their way or failed.

    Args:
        one: as ``shown`` returns it.
        at: time of the look.
        everything: also the clusters that are done.
    """
    now = parse_time(at, "rollouts")
    lines = [
        f"rollout {one['number']} of {one['name']}: {one['kind']} {one['subject']} {one['version']}",
        f"{one['stands']} since {_ago(one['since'], now)}; began {_ago(one['began'], now)} ago",
        f"{bar(one['published'], one['chosen'])} of {one['chosen']} clusters; {one['moving']} on their way,"
        f" {one['done']} through the soak, {len(one['failed'])} failed",
    ]
    if one["waves"]:
        lines.append("waves: " + " → ".join(_marked(one["waves"], one)))
    if one["why"]:
        lines.append(f"why: {one['why']}")
    lines += [f"do: {line}" for line in _advice(one)]
    found = [c for c in one["clusters"] if everything or c["step"] in ("moving", "failed", "carried")]
    rows: Rows = [("CLUSTER", "WAVE", "STEP", "SINCE", "WHY")]
    rows += [(c["name"], c["wave"], c["step"], _ago(c["at"], now), c["why"] or "–") for c in found]
    return lines, rows if found else []


def bar(part: int, whole: int) -> str:
    """Return a bar that shows how far something is."""
    full = _BAR * part // whole if whole else _BAR
    return f"{'█' * full}{'░' * (_BAR - full)} {part}/{whole}"


def _stands(one: Rolling) -> str:
    text = standing(one.state, one.policy)
    if one.state.phase == "rolling" and one.orders.halted:
        return f"{text}, halted"
    return f"{text}, waits for approval" if _asks(one) else text


def _asks(one: Rolling) -> bool:
    state, policy = one.state, one.policy
    if policy is None or state.phase != "rolling" or state.wave >= len(policy.waves) or not policy.asks(state.wave):
        return False
    started = any(place.wave == state.wave and place.step != "waiting" for place in state.places.values())
    return not started and (state.number, state.wave) not in one.orders.approved


def _wave(policy: RolloutPolicy | None, wave: int) -> str:
    return str(wave + 1) if policy is None or wave >= len(policy.waves) else policy.waves[wave].name


def _marked(waves: Sequence[str], one: Mapping[str, Any]) -> list[str]:
    return [f"[{wave}]" if n == one["wave"] and one["phase"] == "rolling" else wave for n, wave in enumerate(waves)]


def _advice(one: Mapping[str, Any]) -> list[str]:
    name = one["name"]
    if one["waitsForApproval"]:
        return [f"`edgeferry rollout approve {name}` begins the next wave"]
    if one["phase"] == "reverted":
        return [f"publish another version, or `edgeferry rollout retry {name}`"]
    if one["phase"] == "paused":
        return [
            f"`edgeferry rollout resume {name}` passes over what failed; `edgeferry rollout abort {name}` goes back"
        ]
    return [f"`edgeferry rollout resume {name}`, or `edgeferry freeze --off`"] if one["halted"] else []


def _ago(text: str, now: datetime) -> str:
    seconds = max(0, int((now - parse_time(text, "rollouts")).total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
