"""A live object → what of it is ours. Pure.

The object itself says it: the API server lists, for every field manager, the fields that it set
(``metadata.managedFields``). The digest of those fields and their values changes when somebody changes or takes one of
them, and does not when defaults, status or other managers' fields change.

Source: Server-Side Apply, https://kubernetes.io/docs/reference/using-api/server-side-apply/ ; FieldsV1 paths after
sigs.k8s.io/structured-merge-diff.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agent.platforms.kubernetes_objects import MANAGER, Json, short_digest


def applied_by_us(live: Json) -> bool:
    """Did we apply the object at some time?"""
    return _our_fields(live) is not None


def own_digest(live: Json) -> str:
    """Return the digest of our fields of a live object and their values; empty where it has none of ours."""
    fields = _our_fields(live)
    return "" if fields is None else short_digest(_project(fields, live))


def own_data(live: Json) -> dict[str, str]:
    """Return those entries of a ConfigMap's data that we set."""
    mine = (_our_fields(live) or {}).get("f:data") or {}
    return {name: value for name, value in (live.get("data") or {}).items() if f"f:{name}" in mine}


def changes(body: Json, live: Json) -> list[str]:
    """Return which fields of ours are not ours any more, and who has them: for people, at most a few.

    Args:
        body: the object as applied.
        live: as it is now.
    """
    ours = set(_paths(_our_fields(live) or {}))
    others = {
        path: str(entry.get("manager"))
        for entry in live["metadata"].get("managedFields") or ()
        if entry.get("manager") != MANAGER
        for path in _paths(entry.get("fieldsV1") or {})
    }
    taken = [path for path in others if path not in ours and _is_set(body, path)]
    return [f"{_readable(path)} by {others[path]}" for path in sorted(taken)[:3]]


def _our_fields(live: Json) -> Mapping[str, Any] | None:
    for entry in live["metadata"].get("managedFields") or ():
        if entry.get("manager") == MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource"):
            fields: Mapping[str, Any] = entry.get("fieldsV1") or {}
            return fields
    return None


def _project(fields: Mapping[str, Any], value: Any) -> Any:
    below = [name for name in fields if name != "."]
    if not below:
        return value
    return {name: _project(fields[name], _step(name, value)) for name in below}


def _step(name: str, value: Any) -> Any:
    how, _, what = name.partition(":")
    if how == "f":
        return value.get(what) if isinstance(value, dict) else None
    if not isinstance(value, list):
        return None
    if how == "k":
        keys = json.loads(what)
        matching = (one for one in value if isinstance(one, dict) and keys.items() <= one.items())
        return next(matching, None)
    if how == "v":
        member = json.loads(what)
        return member if member in value else None
    return value[int(what)] if int(what) < len(value) else None


def _paths(fields: Mapping[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    below = [name for name in fields if name != "."]
    if not below and before:
        yield before
    for name in below:
        yield from _paths(fields[name], (*before, name))


def _is_set(value: Any, path: tuple[str, ...]) -> bool:
    for name in path:
        value = _step(name, value)
    return value is not None


def _readable(path: tuple[str, ...]) -> str:
    text = ""
    for name in path:
        how, _, what = name.partition(":")
        text += f".{what}" if how == "f" else f"[{what.strip('{}')}]"
    return text.lstrip(".")
