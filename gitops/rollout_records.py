"""Rollouts as they stand in the fleet repository, beside the decision that they belong to.

``decisions/<placement>/rollout.json`` tells where the rollout stands; ``rollout/<h>/<h>.json`` has the clusters that
were started, sharded as the chosen ones are; ``entries/<digest>.json`` has every entry that somebody may have to go
back to. They are written when somebody is started, has failed, or a wave ends; not for each report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast, get_args

from agent.wire.canonical import canonical
from agent.wire.errors import Malformed
from agent.wire.fields import Fields, write_time
from gitops.decisions import shard
from gitops.render.entries import Rendered
from gitops.render.kept import decode_kept, encode_kept
from placement.rollout_types import LATE, Phase, Place, RolloutState, Step

FORMATS: Final = (1,)


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """One rollout as published.

    Attributes:
        state: where it stands.
        entries: entry digest → entry, of all that clusters may go back to.
    """

    state: RolloutState
    entries: Mapping[str, Rendered] = field(default_factory=dict)


def rollout_path(name: str) -> str:
    """Return the path of a rollout's head."""
    return f"decisions/{name}/rollout.json"


def encode_rollout(name: str, record: RolloutRecord) -> dict[str, bytes]:
    """Return path → bytes of everything of one rollout."""
    state = record.state
    head = {
        "format": 1,
        "number": state.number,
        "phase": state.phase,
        "targets": sorted(state.targets),
        "began": write_time(state.began),
        "since": write_time(state.since),
        "wave": state.wave,
        "held": sorted(state.held),
        "excused": sorted(state.excused),
        "why": state.why,
        "failed": sorted(name for name, one in state.places.items() if one.step == "failed"),
    }
    shards: dict[str, dict[str, Any]] = {}
    for cluster, one in state.places.items():
        shards.setdefault(shard(cluster), {})[cluster] = _place(one)
    files = {rollout_path(name): canonical(head)}
    for part, places in shards.items():
        files[f"decisions/{name}/rollout/{part}.json"] = canonical({"format": 1, "clusters": places})
    for digest, entry in record.entries.items():
        files[f"decisions/{name}/entries/{digest.removeprefix('sha256:')}.json"] = encode_kept(entry)
    return files


def decode_rollout(name: str, files: Mapping[str, bytes]) -> RolloutRecord | None:
    """Read one rollout; None where the placement has none.

    Args:
        name: directory below decisions/.
        files: path → bytes; those of other decisions are left alone.

    Raises:
        Malformed: a file is not what it should be.
    """
    path = rollout_path(name)
    if path not in files:
        return None
    top = Fields.parse(files[path], path)
    top.format(FORMATS)
    places: dict[str, Place] = {}
    entries: dict[str, Rendered] = {}
    for where, data in files.items():
        if where.startswith(f"decisions/{name}/rollout/"):
            one = Fields.parse(data, where)
            one.format(FORMATS)
            places.update(one.one("clusters", lambda item: item.every(_read_place)) or {})
        elif where.startswith(f"decisions/{name}/entries/"):
            kept = decode_kept(data, where)
            entries[kept.entry.digest] = kept
    state = RolloutState(
        number=top.integer("number"),
        phase=cast(Phase, _one_of(top, "phase", get_args(Phase))),
        targets=frozenset(top.texts("targets")),
        began=top.time("began"),
        since=top.time("since"),
        wave=top.integer("wave"),
        places=places,
        held=frozenset(top.texts("held")),
        excused=frozenset(top.texts("excused")),
        why=top.text("why", ""),
    )
    return RolloutRecord(state, entries)


def changed_files(after: Mapping[str, RolloutRecord], before: Mapping[str, RolloutRecord]) -> dict[str, bytes | None]:
    """Return path → bytes of the rollout files that differ; None for those that go."""
    files: dict[str, bytes | None] = {}
    for name in after.keys() | before.keys():
        if after.get(name) is before.get(name):
            continue
        new = encode_rollout(name, after[name]) if name in after else {}
        old = encode_rollout(name, before[name]) if name in before else {}
        files.update((path, None) for path in old.keys() - new.keys())
        files.update((path, data) for path, data in new.items() if old.get(path) != data)
    return files


def _place(one: Place) -> dict[str, Any]:
    return {
        "wave": "late" if one.wave == LATE else str(one.wave),
        "step": one.step,
        "previous": one.previous,
        "target": one.target,
        "at": write_time(one.at),
        "moved": write_time(one.moved),
        "mark": one.mark,
        "why": one.why,
    }


def _read_place(item: Fields) -> Place:
    wave = item.text("wave")
    if wave != "late" and not (wave.isascii() and wave.isdecimal()):
        raise Malformed(f"wave is {wave[:20]!r}", where=item.where)
    return Place(
        wave=LATE if wave == "late" else int(wave),
        step=cast(Step, _one_of(item, "step", get_args(Step))),
        previous=item.digest("previous", ""),
        target=item.digest("target", ""),
        at=item.time("at"),
        moved=item.time("moved"),
        mark=item.text("mark", ""),
        why=item.text("why", ""),
    )


def _one_of(item: Fields, name: str, known: tuple[str, ...]) -> str:
    value = item.text(name)
    if value not in known:
        raise Malformed(f"{name} is {value[:40]!r}, not one of {', '.join(known)}", where=item.where)
    return value
