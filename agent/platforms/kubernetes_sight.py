"""Looking at a cluster: the inventory beside the mirror, and what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.actions import ModelPoint, Observed, Seen, Staged
from agent.platforms.kubernetes_apply import Target, resolve
from agent.platforms.kubernetes_candidate import CANDIDATE, PODS
from agent.platforms.kubernetes_errors import KindMissing, NotFound, RightMissing
from agent.platforms.kubernetes_fields import changes
from agent.platforms.kubernetes_files import shows, stable_path
from agent.platforms.kubernetes_health import Judgement, judge_pods, worst
from agent.platforms.kubernetes_inventory import CONFIG_MAPS, Id, Record
from agent.platforms.kubernetes_mirror import MODELS_FILE, Live
from agent.platforms.kubernetes_models import ANNOUNCED, read_models_file
from agent.platforms.kubernetes_objects import Key, Resource, Wanted, read
from agent.wire.errors import EdgeferryError
from agent.wire.release import Entry

_SETTLE_S: Final = 30.0
_PODS_AT_MOST: Final = 50
_PODS_OF_AT_MOST: Final = 3
_CALM_S: Final = 600.0
_FIGHT: Final = 3
_LONGEST_TRUCE_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class _Fight:
    """Somebody undoes what we put right: how often, when last, and until when we let it be."""

    repairs: int
    last: float
    until: float


class Sight:
    """Looks, and remembers what costs calls to find out.

    Args:
        target: the cluster.
        state: of the agent: where files are.
        clock: seconds that only grow.
    """

    def __init__(self, target: Target, state: Path, clock: Callable[[], float]) -> None:
        self._target = target
        self._state = state
        self._clock = clock
        self._fights: dict[Key, _Fight] = {}
        self._drifted: dict[Id, dict[Key, str]] = {}
        self._said: dict[Key, tuple[int, str]] = {}
        self._last: tuple[object, Observed] | None = None
        self._followed: object = None

    def look(self, known: Sequence[Staged]) -> Observed:
        """Return what is there of ours."""
        target = self._target
        records, mirror = target.inventory.records, target.mirror
        staged = {one.digest: one for one in known}
        asked = (target.inventory.changes, frozenset(staged))
        if asked != self._followed:
            mirror.follow(self._places(known))
            self._followed = asked
        mirror.settle(_SETTLE_S)
        moment = (asked, mirror.changes)
        if self._last is not None and self._last[0] == moment:
            return self._last[1]
        seen = tuple(
            self._entry(record, staged.get(record.digest or record.applying))
            for key, record in sorted(records.items())
            if record.kind != ANNOUNCED and not _in_service(record, records)
        )
        observed = Observed(seen, self._announced())
        quiet = all(one.health == "current" and not one.message and not one.drift and not one.path for one in seen)
        self._last = (moment, observed) if quiet else None
        return observed

    def note_repair(self, staged: Staged) -> None:
        """Remember that what was found changed is being put right: who does it again and again has a fight."""
        now = self._clock()
        for key in self._drifted.pop((staged.entry.kind, staged.entry.name), {}):
            before = self._fights.get(key)
            repairs = (
                1 if before is None or now - before.last > _CALM_S + before.until - before.last else before.repairs + 1
            )
            truce_s = min(15.0 * 2 ** (repairs - _FIGHT), _LONGEST_TRUCE_S) if repairs >= _FIGHT else 0.0
            self._fights[key] = _Fight(repairs, now, now + truce_s)

    def _places(self, known: Sequence[Staged]) -> set[tuple[Resource, str]]:
        target = self._target
        namespaces = {one.entry.namespace for one in known}
        found: set[tuple[Resource, str]] = set()
        for record in target.inventory.records.values():
            namespaces.add(record.namespace)
            for key, placed in record.objects.items():
                try:
                    resource = target.api.resource(placed.api_version, key.kind)
                except KindMissing:
                    continue
                found.add((resource, "" if target.whole_cluster else key.namespace))
        return found | {(CONFIG_MAPS, "" if target.whole_cluster else one) for one in namespaces}

    def _entry(self, record: Record, staged: Staged | None) -> Seen:
        judgements: list[Judgement] = []
        drifted: dict[Key, str] = {}
        asked = 0
        truces: list[str] = []
        for key, placed in record.objects.items():
            live = self._target.mirror.get(key)
            found, judgement = _compare(key, placed.uid, placed.own, live)
            if found == "is changed" and live is not None:
                found = self._who(key, live, staged)
            if found:
                fight = self._fights.get(key)
                if fight is not None and fight.until > self._clock():
                    truces.append(f"{key} {found}, again after {fight.repairs} corrections; the next one waits")
                else:
                    drifted[key] = f"{key} {found}"
            if live is not None and live.selector and asked < _PODS_OF_AT_MOST:
                asked += 1
                judgement = self._with_pods(key, live, judgement)
            judgements.append(judgement)
        path = stable_path(self._state, record.name) if staged and staged.entry.delivery == "file" else None
        lines = list(drifted.values())
        if path is not None and staged is not None and not shows(self._state, staged):
            lines.append(f"{path} does not lead to {record.version}")
            judgements.append(("progressing", lines[-1]))
        if record.applying:
            lines.append(f"bringing {record.applying[:19]} up was cut short")
            judgements.append(("progressing", lines[-1]))
        self._drifted[record.id] = drifted
        health, message = worst(judgements)
        return Seen(
            kind="model" if record.kind == CANDIDATE else record.kind,
            name=record.name,
            digest=record.digest or record.applying,
            serving=record.digest != "" and record.kind != CANDIDATE,
            health=health,
            drift="; ".join(lines[:3]) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else ""),
            url="" if record.kind == CANDIDATE else record.url,
            path="" if path is None else str(path),
            message=message or "; ".join(truces[:2]),
        )

    def _with_pods(self, key: Key, live: Live, judgement: Judgement) -> Judgement:
        try:
            pods = self._target.api.list(PODS, key.namespace, live.selector, _PODS_AT_MOST)["items"]
        except (RightMissing, NotFound):
            return judgement
        found = judge_pods(pods)
        return judgement if found is None or judgement[0] == "degraded" else (found[0], f"{key}: {found[1]}")

    def _who(self, key: Key, live: Live, staged: Staged | None) -> str:
        """Return what was changed and by whom, asked once for each change."""
        version, text = self._said.get(key, (0, ""))
        if version == live.version:
            return text
        text = "is changed"
        wanted = self._wanted(key, staged)
        if wanted is not None:
            resource = self._target.api.resource(wanted.api_version, key.kind)
            now = self._target.api.get(resource, key.namespace, key.name)
            found = [] if now is None else changes(wanted.body, now)
            text = "is changed: " + ", ".join(found) if found else text
        self._said[key] = (live.version, text)
        return text

    def _wanted(self, key: Key, staged: Staged | None) -> Wanted | None:
        if staged is None:
            return None
        try:
            objects = resolve(self._target, read(staged), staged.entry.namespace, "")
        except EdgeferryError:
            return None
        return next((one for one in objects if one.key == key), None)

    def _announced(self) -> dict[str, tuple[ModelPoint, ...]]:
        found = {}
        for record in self._target.inventory.records.values():
            if record.kind == ANNOUNCED:
                live = self._target.mirror.get(Key("", "ConfigMap", record.name, MODELS_FILE))
                if live is not None and live.data:
                    found[record.name] = read_models_file(live.data)
        return found


def service_url(entry: Entry, objects: Sequence[Wanted]) -> str:
    """Return where consumers within the cluster reach the entry: its Service of the same name, or its only one."""
    services = [one for one in objects if (one.key.group, one.key.kind) == ("", "Service")]
    named = [one for one in services if one.key.name == entry.name] or (services if len(services) == 1 else [])
    if not named:
        return ""
    ports = [port for port in named[0].body.get("spec", {}).get("ports") or () if isinstance(port, dict)]
    chosen = next((port for port in ports if port.get("name") == "http"), ports[0] if ports else None)
    if chosen is None:
        return ""
    scheme = "https" if "https" in (chosen.get("name"), chosen.get("appProtocol")) else "http"
    return f"{scheme}://{named[0].key.name}.{named[0].key.namespace}.svc:{chosen.get('port')}"


def _in_service(record: Record, records: Mapping[Id, Record]) -> bool:
    """Is it a candidate whose version serves by now?"""
    model = records.get(("model", record.name))
    return record.kind == CANDIDATE and model is not None and model.digest in {record.digest, record.applying} - {""}


def _compare(key: Key, uid: str, own: str, live: Live | None) -> tuple[str, Judgement]:
    """Return how a live object differs from what we applied, and its health."""
    if live is None:
        return ("is missing", ("progressing", f"{key} is missing"))
    judgement = (live.health[0], f"{key}: {live.health[1]}" if live.health[1] else "")
    if uid and live.uid != uid:
        return "was made anew by somebody else", judgement
    return ("is changed" if own and live.own != own else ""), judgement
