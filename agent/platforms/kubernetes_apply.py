"""Bring an entry's objects onto a cluster, and take away what is no longer of it.

Recorded before it is done, done so that it may be done again, and recorded as done: an agent that dies at any line goes
on from there.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from agent.platforms.kubernetes_client import AT_ONCE, Api
from agent.platforms.kubernetes_errors import (
    ChangedMeanwhile,
    FieldImmutable,
    ForeignObject,
    KindMissing,
    NotFound,
    ObjectShared,
    OutOfScope,
)
from agent.platforms.kubernetes_fields import applied_by_us, own_digest
from agent.platforms.kubernetes_inventory import Inventory, Placed, Record, finished, make_namespace
from agent.platforms.kubernetes_mirror import Mirror
from agent.platforms.kubernetes_objects import (
    ADOPT,
    RECREATE,
    Json,
    Key,
    Resource,
    Wanted,
    annotated,
    in_order,
    kept,
    key_of,
    labelled_ours,
    rank,
    wanted,
)

_CRD: Final = "CustomResourceDefinition"
_PATIENCE_S: Final = 10.0
_FEW: Final = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster and what we know of it.

    Attributes:
        api: to ask and to order.
        mirror: what is there.
        inventory: what we put there.
        whole_cluster: cluster-scoped kinds and other namespaces are allowed.
    """

    api: Api
    mirror: Mirror
    inventory: Inventory
    whole_cluster: bool


def resolve(target: Target, raw: Sequence[Json], namespace: str, models: str) -> list[Wanted]:
    """Return the objects as they are to be applied, in order; nothing is changed.

    Raises:
        KindMissing: the cluster does not serve a kind, and no definition among the objects would have it do so.
        OutOfScope: cluster-scoped, or in another namespace, where the agent may not.
        ObjectShared: an object stands there twice.
    """
    coming = _defined(raw)
    found: dict[Key, Wanted] = {}
    for one in raw:
        resource = _resource(target, one, coming)
        made = wanted(one, resource, namespace, models)
        if not target.whole_cluster and made.key.namespace != namespace:
            place = f"in namespace {made.key.namespace}" if resource.namespaced else "cluster-scoped"
            raise OutOfScope(
                f"it is {place}; this agent only works in {namespace}",
                where=str(made.key),
                do='leave it to the cluster\'s administrator, or run the agent with "scope": "cluster"',
            )
        if made.key in found:
            raise ObjectShared("it stands twice in the entry", where=str(made.key), do="remove one")
        found[made.key] = made
    return in_order(list(found.values()))


@dataclass(frozen=True, slots=True)
class Maker:
    """Somebody else who makes an entry's objects, before we apply them as ours: Helm.

    Attributes:
        make: makes them; None where they are made already.
        made: did it make this object for this entry?
    """

    make: Callable[[], None] | None
    made: Callable[[Json], bool]


def put(target: Target, record: Record, objects: Sequence[Wanted], *, claim: bool, maker: Maker | None = None) -> None:
    """Have exactly these objects on the cluster for an entry; what is so already is not asked for.

    Before anything is changed the API server judges every change, so that an entry which it refuses in part is not
    applied in part.

    Args:
        target: the cluster.
        record: the entry's record as it shall be, ``applying`` set; its objects are not looked at.
        objects: of :func:`resolve`.
        claim: take objects over that another entry has: a renamed workload keeps what it runs.
        maker: who makes the objects first, if not we.

    Raises:
        EdgeferryError: see kubernetes_errors.py; what was done is recorded.
    """
    inventory = target.inventory
    before = inventory.records.get(record.id)
    had = {} if before is None else before.objects
    keys = {one.key for one in objects}
    for key in keys - had.keys():
        _claim(target, key, record, allowed=claim)
    changed = [one for one in objects if not _as_applied(target, one, had.get(one.key))]
    gone = sorted(had.keys() - keys, key=rank, reverse=True)
    if before is not None:
        record = replace(record, digest=before.digest, before=before.before)
    make = None if maker is None else maker.make
    if make is None and before is not None and not changed and not gone and before == finished(record, before.objects):
        return
    there = _look_up(target, changed, had)
    _judge(target, changed, had, there, maker)
    # Grows entry by entry in the record that the inventory has in memory: a copy for each object would be quadratic.
    placed = {**had, **{one.key: Placed(one.api_version) for one in objects if one.key not in had}}
    now = replace(record, objects=placed)
    fresh = now.applying != now.digest and (before is None or before.applying != now.applying)
    if before is None or fresh or had.keys() != placed.keys():
        inventory.save(now)
    else:
        inventory.remember(now)
    if make is not None:
        make()
        changed, there = list(objects), {}

    def apply(one: Wanted) -> None:
        placed[one.key] = _apply(target, one, placed[one.key], there)

    _each(changed, apply, lambda one: rank(one.key)[0])
    _each(gone, lambda key: _delete(target, key, placed[key]), lambda key: rank(key)[0])
    inventory.save(finished(now, {key: placed[key] for key in keys}))


def remove(target: Target, record: Record) -> None:
    """Take away everything of an entry that is still ours, last made first, and forget it."""
    keys = sorted(record.objects, key=rank, reverse=True)
    _each(keys, lambda key: _delete(target, key, record.objects[key]), lambda key: rank(key)[0])
    target.inventory.drop(record)


def _defined(raw: Sequence[Json]) -> dict[tuple[str, str], Resource]:
    found: dict[tuple[str, str], Resource] = {}
    for one in raw:
        if one["kind"] != _CRD:
            continue
        spec: Mapping[str, Any] = one.get("spec") or {}
        names = spec.get("names") or {}
        for version in spec.get("versions") or ():
            api_version, kind = f"{spec.get('group')}/{version.get('name')}", str(names.get("kind"))
            found[api_version, kind] = Resource(
                api_version, kind, str(names.get("plural")), spec.get("scope") == "Namespaced"
            )
    return found


def _resource(target: Target, one: Json, coming: Mapping[tuple[str, str], Resource]) -> Resource:
    try:
        return target.api.resource(one["apiVersion"], one["kind"])
    except KindMissing:
        if (one["apiVersion"], one["kind"]) in coming:
            return coming[one["apiVersion"], one["kind"]]
        raise


def _claim(target: Target, key: Key, record: Record, *, allowed: bool) -> None:
    owner = target.inventory.owner(key)
    if owner is None or owner.id == record.id:
        return
    if not allowed:
        raise ObjectShared(
            f"{owner.kind}/{owner.name} has it too", where=str(key), do="give one of the two another name"
        )
    rest = {other: placed for other, placed in owner.objects.items() if other != key}
    target.inventory.save(replace(owner, objects=rest))


def _as_applied(target: Target, one: Wanted, placed: Placed | None) -> bool:
    live = target.mirror.get(one.key)
    return (
        placed is not None
        and live is not None
        and (placed.uid, placed.own, placed.wanted) == (live.uid, live.own, one.digest)
        and placed.own != ""
    )


def _look_up(target: Target, changed: Sequence[Wanted], had: Mapping[Key, Placed]) -> Mapping[Key, Json | None]:
    """Return what is there by the names of objects that the mirror does not show as ours; None for nothing.

    Many of one kind are asked for at once, by their metadata: that is all that ownership needs.
    """
    groups: dict[tuple[str, str, str], list[Wanted]] = {}
    for one in changed:
        seen, placed = target.mirror.get(one.key), had.get(one.key)
        if seen is None or placed is None or seen.uid != placed.uid:
            groups.setdefault((one.api_version, one.key.kind, one.key.namespace), []).append(one)
    found: dict[Key, Json | None] = {}
    for (api_version, kind, namespace), wanted_ones in groups.items():
        found |= dict.fromkeys((one.key for one in wanted_ones), None)
        resource = _served_now(target, wanted_ones[0])
        if resource is None:
            continue
        if len(wanted_ones) < _FEW:
            found |= {one.key: target.api.get(resource, namespace, one.key.name) for one in wanted_ones}
            continue
        for page in target.api.pages(resource, namespace, "", whole=False):
            for item in page["items"]:
                key = key_of({**item, "apiVersion": api_version, "kind": kind})
                if key in found:
                    found[key] = item
    return found


def _judge(
    target: Target,
    changed: Sequence[Wanted],
    had: Mapping[Key, Placed],
    there: Mapping[Key, Json | None],
    maker: Maker | None,
) -> None:
    """Let the API server judge every change; one alone is judged when it is made, and Helm's when Helm makes it."""
    for one in changed:
        live = there.get(one.key)
        if live is not None and (maker is None or not maker.made(live)):
            _check_ours(one, live, had.get(one.key))
    if maker is not None and maker.make is not None:
        return  # applied over what Helm still holds, list items of both would stand side by side

    def judge(one: Wanted) -> None:
        resource = _served_now(target, one)
        if resource is None:
            return
        try:
            target.api.apply(resource, one.body, force=there.get(one.key, True) is not None, dry_run=True)
        except NotFound:
            # Its namespace or its kind comes with this very entry.
            return
        except FieldImmutable:
            if not annotated(one.body, RECREATE):
                raise

    if len(changed) > 1:
        _each(changed, judge, lambda _: 0)


def _apply(target: Target, one: Wanted, placed: Placed, there: Mapping[Key, Json | None]) -> Placed:
    """Apply one object, which is ours, or new, or given to us."""
    resource = _until(lambda: _served_now(target, one), one)
    exists = there.get(one.key, True) is not None
    try:
        live = target.api.apply(resource, one.body, force=exists)
    except NotFound as absent:
        live = _applied_after(target, resource, one, absent)
    except FieldImmutable:
        if not annotated(one.body, RECREATE):
            raise
        live = _recreated(target, resource, one)
    target.mirror.put(live)
    return Placed(one.api_version, live["metadata"]["uid"], one.digest, own_digest(live))


def _each(todo: Sequence[T], do: Callable[[T], None], step: Callable[[T], int]) -> None:
    """Do all of one step, some at once, before the next step; the first fault is raised when its step is over."""
    for _, group in itertools.groupby(todo, step):
        members = list(group)
        if len(members) == 1:
            do(members[0])
            continue
        with ThreadPoolExecutor(AT_ONCE, "apply") as pool:
            for result in [pool.submit(do, one) for one in members]:
                fault = result.exception()
                if fault is not None:
                    pool.shutdown(cancel_futures=True)
                    raise fault


def _served_now(target: Target, one: Wanted) -> Resource | None:
    try:
        return target.api.resource(one.api_version, one.key.kind)
    except KindMissing:
        return None


def _check_ours(one: Wanted, live: Json, placed: Placed | None) -> None:
    metadata = live["metadata"]
    known = placed is not None and placed.uid == metadata["uid"]
    if known or (labelled_ours(live) and applied_by_us(live)) or annotated(one.body, ADOPT) or annotated(live, ADOPT):
        return
    managers = sorted({str(entry.get("manager")) for entry in metadata.get("managedFields") or ()})
    raise ForeignObject(
        f"it is there already, made by {', '.join(managers) or 'somebody else'}",
        where=str(one.key),
        do=f'rename ours, remove theirs, or hand it over by the annotation {ADOPT}: "true"',
    )


def _applied_after(target: Target, resource: Resource, one: Wanted, absent: NotFound) -> Json:
    """Apply again once what was missing is there: the namespace, or a kind that is just being established."""
    if absent.missing == "namespaces":
        make_namespace(target.api, one.key.namespace)
        return target.api.apply(resource, one.body, force=False)
    return _until(lambda: _tried(target.api, resource, one.body), one)


def _tried(api: Api, resource: Resource, body: Json) -> Json | None:
    try:
        return api.apply(resource, body, force=False)
    except NotFound:
        api.forget(resource)
        return None


def _recreated(target: Target, resource: Resource, one: Wanted) -> Json:
    live = target.api.get(resource, one.key.namespace, one.key.name)
    if live is not None:
        target.api.delete(resource, one.key.namespace, one.key.name, live["metadata"]["uid"])
    _until(lambda: target.api.get(resource, one.key.namespace, one.key.name) is None or None, one)
    return target.api.apply(resource, one.body, force=False)


def _delete(target: Target, key: Key, placed: Placed) -> None:
    """Delete an object if it is still the one that we made; what a person took from us stays."""
    api = target.api
    try:
        resource = api.resource(placed.api_version, key.kind)
    except KindMissing:
        return
    seen = target.mirror.get(key)
    if seen is not None and seen.uid == placed.uid and seen.own and not seen.keep:
        try:
            api.delete(resource, key.namespace, key.name, seen.uid, str(seen.version))
            target.mirror.remove(key, seen.version)
            return
        except ChangedMeanwhile:
            # Something happened to it since the mirror saw it: look again.
            pass
    live = api.get(resource, key.namespace, key.name)
    if live is None or not labelled_ours(live) or kept(live) or not applied_by_us(live):
        return
    uid = live["metadata"]["uid"]
    if placed.uid and placed.uid != uid:
        return
    with suppress(ChangedMeanwhile):
        # Another object bears the name since a moment ago: it is not ours.
        api.delete(resource, key.namespace, key.name, uid)
        target.mirror.remove(key, int(live["metadata"]["resourceVersion"]))


def _until(attempt: Callable[[], T | None], one: Wanted) -> T:
    deadline = time.monotonic() + _PATIENCE_S
    while (found := attempt()) is None:
        if time.monotonic() > deadline:
            raise KindMissing(f"{one.key.kind} is still not served, or not gone", where=str(one.key))
        time.sleep(0.1)
    return found
