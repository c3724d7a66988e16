"""What a step means for people, one sentence each: for the fleet commit's message, and for who looks. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gitops.commands import Command
from gitops.rollout_records import RolloutRecord
from placement.rollout_types import RolloutPolicy, RolloutState


def news(
    after: Mapping[str, RolloutRecord],
    before: Mapping[str, RolloutRecord],
    policies: Mapping[str, RolloutPolicy],
    commands: Sequence[Command],
) -> list[str]:
    """Return what happened to rollouts, and what people ordered; a revert first.

    Args:
        after: rollouts as they are to be published.
        before: as they are published.
        policies: decision name → its rollout's policy.
        commands: given in this step.
    """
    lines = []
    for name in sorted(after):
        if after[name] is before.get(name):
            continue
        old = before[name].state if name in before else None
        lines += _changed(name, after[name].state, old, policies.get(name))
    lines.sort(key=lambda line: not line.startswith("Revert "))
    return lines + [told(one) for one in commands]


def told(command: Command) -> str:
    """Return an order in one sentence."""
    what = f"{command.object} {command.argument}".strip()
    return f"{command.by} orders {command.verb} of {what}: {command.why}"


def standing(state: RolloutState, policy: RolloutPolicy | None) -> str:
    """Return where a rollout stands, in a few words."""
    if state.phase == "rolling" and policy is not None and state.wave < len(policy.waves):
        return f"wave {policy.waves[state.wave].name}, {state.wave + 1} of {len(policy.waves)}"
    return state.phase


def _changed(name: str, new: RolloutState, old: RolloutState | None, policy: RolloutPolicy | None) -> list[str]:
    subject = f"rollout {new.number} of {name}"
    begun = old is None or old.number != new.number
    lines = [f"Begin {subject}"] if begun and new.phase != "complete" else []
    if old is None or begun or old.phase != new.phase:
        if new.phase == "reverted":
            return [*lines, f"Revert {subject}: {new.why}"]
        if new.phase == "paused":
            lines.append(f"Pause {subject}: {new.why}")
        elif new.phase == "complete" and not begun:
            lines.append(f"Complete {subject}")
        elif old is not None and not begun:
            lines.append(f"Resume {subject}")
    if not begun and old is not None and new.phase == "rolling" and old.wave != new.wave:
        lines.append(f"Go on with {subject}: {standing(new, policy)}")
    failed = {c for c, one in new.places.items() if one.step == "failed"}
    failed -= {c for c, one in old.places.items() if one.step == "failed"} if old is not None and not begun else set()
    lines += [f"Failed in {subject}: {c}: {new.places[c].why}" for c in sorted(failed)[:10]]
    return lines
