"""Models and the workloads that use them: who waits for whom, and who is told what. Pure.

Model first, workload after. A model switch that would break a workload that runs waits until the workload version
that accepts it is at the site and ready to follow.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.actions import Announce, ModelPoint, Refresh
from agent.journal import Key
from agent.steps import Happening, Situation, Step, WaitsForModel, WaitsForWorkload
from agent.wire.release import Entry
from placement.versions import parse_wish


def accepts(wish: str, version: str) -> bool:
    """Tell whether a range takes a version; what cannot be read takes none."""
    try:
        return parse_wish(wish).accepts(version)
    except ValueError:
        return False


def served(s: Situation, name: str) -> Entry | None:
    """Return the model that serves under a name, by the journal."""
    state = s.states.get(("model", name))
    return s.entries.get(state.serving) if state is not None and state.serving else None


def runs(s: Situation, key: Key) -> Entry | None:
    """Return the workload version that serves, by the journal."""
    state = s.states.get(key)
    return s.entries.get(state.serving) if state is not None and state.serving else None


def settled_goal(s: Situation, key: Key) -> Entry | None:
    """Return what is asked for of an entry where the site can and will go there."""
    entry = s.wanted().get(key)
    if entry is None or key in s.refused or not set(entry.requires) <= s.requires:
        return None
    state = s.states.get(key)
    return None if state is not None and entry.digest in state.failed else entry


def model_waits(s: Situation, goal: Entry) -> WaitsForWorkload | None:
    """Return why a model may not be switched to ``goal`` yet."""
    before = served(s, goal.name)
    for key in sorted(s.states):
        user = runs(s, key) if key[0] == "workload" else None
        for use in user.models if user is not None else ():
            breaks = before is not None and accepts(use.version, before.version)
            if use.name != goal.name or not breaks or accepts(use.version, goal.version):
                continue
            after = settled_goal(s, key)
            follows = after is not None and any(
                one.name == goal.name and accepts(one.version, goal.version) for one in after.models
            )
            ready = follows and after is not None and after.digest in s.staged
            if key in s.wanted() and not ready:
                what = "its new version is not at the site yet" if follows else "and no version that does is released"
                return WaitsForWorkload(
                    f"{goal.version} waits: workload {key[1]} takes {use.version!r}, {what}",
                    where=f"model/{goal.name}",
                    do="" if follows else f"release a version of {key[1]} that takes it",
                )
            if key not in s.wanted():
                return WaitsForWorkload(f"waits until workload {key[1]} is gone", where=f"model/{goal.name}")
    return None


def workload_waits(s: Situation, goal: Entry) -> WaitsForModel | None:
    """Return why a workload may not be started at ``goal`` yet."""
    for use in goal.models:
        key = ("model", use.name)
        where = f"workload/{goal.name}"
        current, coming = served(s, use.name), settled_goal(s, key)
        state = s.states.get(key)
        if current is None or state is None:
            what = "is not up yet" if coming is not None else "is not at this site"
            return WaitsForModel(f"{goal.version} waits: model {use.name} {what}", where=where)
        if not accepts(use.version, current.version):
            return WaitsForModel(
                f"{goal.version} waits: it takes model {use.name} {use.version!r}, {current.version} runs", where=where
            )
        seen = s.serving(key, current.digest)
        if seen is None or seen.health != "current":
            return WaitsForModel(f"{goal.version} waits: model {use.name} is not healthy", where=where)
        switches = coming is not None and coming.digest != current.digest
        if switches and coming is not None and accepts(use.version, coming.version) and model_waits(s, coming) is None:
            return WaitsForModel(f"{goal.version} waits: model {use.name} goes to {coming.version} first", where=where)
        back = s.entries.get(state.running) if state.phase == "probation" and state.running else None
        if back is not None and not accepts(use.version, back.version) and _content(s, goal, use.name, back):
            return WaitsForModel(
                f"{goal.version} waits: model {use.name} {current.version} is in probation", where=where
            )
    return None


def _content(s: Situation, goal: Entry, model: str, back: Entry) -> bool:
    """Tell whether the workload version that runs now would rather have the model's old version."""
    user = runs(s, ("workload", goal.name))
    uses = [one for one in user.models if one.name == model] if user is not None else []
    current = served(s, model)
    return user is None or current is None or not uses or any(accepts(one.version, current.version) for one in uses)


def lost_model(s: Situation, entry: Entry) -> str:
    """Return the model of which the version that serves is out of this workload's range; empty for none."""
    for use in entry.models:
        current = served(s, use.name)
        if current is not None and not accepts(use.version, current.version):
            return use.name
    return ""


def still_used(s: Situation, name: str) -> str:
    """Return a workload that still uses a model and is on its way to something else; empty for none."""
    for key in sorted(s.states):
        user = runs(s, key) if key[0] == "workload" else None
        if user is None or all(use.name != name for use in user.models):
            continue
        after = settled_goal(s, key)
        leaves = key not in s.wanted() or (after is not None and all(use.name != name for use in after.models))
        if leaves:
            return key[1]
    return ""


def points(s: Situation) -> dict[str, ModelPoint]:
    """Return where each model that serves is; what is out of sight for a moment stays where it was."""
    told = {one.name: one for announced in s.observed.announced.values() for one in announced}
    found: dict[str, ModelPoint] = {}
    for key in sorted(s.states):
        current = served(s, key[1]) if key[0] == "model" else None
        if current is None:
            continue
        seen = s.serving(key, current.digest)
        if seen is not None:
            found[key[1]] = ModelPoint(current.name, current.version, seen.url, seen.path)
        elif key[1] in told:
            found[key[1]] = told[key[1]]
    return found


def points_for(s: Situation, entry: Entry) -> tuple[ModelPoint, ...]:
    """Return the models of one workload; nothing for a model."""
    everywhere = points(s)
    return tuple(everywhere[name] for name in sorted({use.name for use in entry.models}) if name in everywhere)


def saw(s: Situation, entry: Entry) -> dict[str, str]:
    """Return what a workload is told of now: model → entry digest."""
    told = {use.name: served(s, use.name) for use in entry.models}
    return {name: current.digest for name, current in told.items() if current is not None}


def announcements(s: Situation) -> list[Step]:
    """Return the steps that tell consumers where the models are, one for each namespace where that changed."""
    everywhere = points(s)
    wanted: dict[str, dict[str, ModelPoint]] = {namespace: {} for namespace in s.observed.announced}
    for key in s.states:
        current = served(s, key[1]) if key[0] == "model" else runs(s, key)
        names = [] if current is None else [key[1]] if key[0] == "model" else [use.name for use in current.models]
        for name in names:
            if current is not None and name in everywhere:
                wanted.setdefault(current.namespace, {})[name] = everywhere[name]
    for (kind, _), entry in s.wanted().items():
        for use in entry.models if kind == "workload" else ():
            if use.name in everywhere:
                wanted.setdefault(entry.namespace, {})[use.name] = everywhere[use.name]
    steps = []
    for namespace in sorted(wanted):
        tell = tuple(wanted[namespace][name] for name in sorted(wanted[namespace]))
        if tell != tuple(sorted(s.observed.announced.get(namespace, ()), key=lambda one: one.name)):
            steps.append(Step(("announce", namespace), repr(tell), (Announce(namespace, tell),), again_later=True))
    return steps


def refresh(s: Situation, entry: Entry, saw_before: Mapping[str, str]) -> tuple[Refresh | None, tuple[Happening, ...]]:
    """Return what a workload that runs has to do about models that were switched; None where nothing."""
    now = saw(s, entry)
    changed = {use.on_change for use in entry.models if use.name in now and now[use.name] != saw_before.get(use.name)}
    staged = s.staged.get(entry.digest)
    how = "restart" if "restart" in changed else "reload" if "reload" in changed else ""
    if not how or staged is None:
        return None, ()
    names = ", ".join(sorted(name for name in now if now[name] != saw_before.get(name)))
    action = Refresh(staged, "restart" if how == "restart" else "reload", points_for(s, entry))
    return action, (Happening("refreshed", entry.version, message=f"{how} for {names}"),)
