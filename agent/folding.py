"""Facts of several nodes → facts of their cluster, as the facts' definitions say. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final

from placement.fact_names import definition

PER_NODE: Final = ("cpu.capacity", "memory.capacity", "disk.capacity")
"""Of these the node that has most is told as well: what one pod needs must be there on one node."""


def fold(nodes: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the facts of a cluster; one that no node has, or on which they must agree and do not, is left out.

    Args:
        nodes: per node fact name → text, in the unit of the fact's definition.
    """
    found: dict[str, str] = {}
    for name in sorted({name for node in nodes for name in node}):
        known = definition(name)
        values = [node[name] for node in nodes if name in node]
        value = None if known is None else _folded(known.fold, values)
        if value is not None:
            found[name] = value
        if name in PER_NODE:
            found[f"node.{name}"] = _plain(max(map(_number, values)))
    return found


def _folded(how: str, values: Sequence[str]) -> str | None:
    match how:
        case "sum":
            return _plain(sum(map(_number, values), Decimal(0)))
        case "max":
            return _plain(max(map(_number, values)))
        case "min":
            return min(values, key=_version_key)
        case "set":
            return ",".join(sorted({item for value in values for item in value.split(",") if item}))
        case _:
            return values[0] if len(set(values)) == 1 else None


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal(0)


def _plain(value: Decimal) -> str:
    return format(value.normalize(), "f") if value else "0"


def _version_key(text: str) -> tuple[list[int], str]:
    return [int(part) for part in re.findall(r"\d{1,15}", text)], text
