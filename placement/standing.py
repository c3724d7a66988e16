"""The last decision, in whatever form it comes → who stands where, over the index of today. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from placement.index import FleetIndex
from placement.types import Decision, Incumbent

Previous = Decision | Mapping[str, Incumbent] | Collection[str] | None
"""The last decision, what it gave each cluster, or only the names that it chose; None at first."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Who was chosen before.

    Attributes:
        bits: of everybody, those that are left among them.
        variants: variant → bits of those that have it, of the version asked about.
        contradicted: cluster → when a fact that contradicts its placement was first measured.
        arriving, leaving: bits, as in ``Decision``.
    """

    bits: int = 0
    variants: Mapping[str, int] = field(default_factory=dict)
    contradicted: Mapping[str, datetime] = field(default_factory=dict)
    arriving: int = 0
    leaving: int = 0


def standing(previous: Previous, version: str, index: FleetIndex) -> Standing:
    """Return who stands where; clusters that are gone are left out.

    Args:
        version: that is decided now: variants of another one are no longer binding.
    """
    if not previous:
        return Standing()
    if isinstance(previous, Decision):
        if previous.chosen.index.ordered is not index.ordered:
            return _of_incumbents(previous.incumbents(), version, index)
        return Standing(
            previous.chosen.bits,
            {name: one.bits for name, one in previous.variants.items()} if previous.version == version else {},
            previous.contradicted,
            index.bits(previous.arriving),
            index.bits(previous.leaving),
        )
    if isinstance(previous, Mapping):
        return _of_incumbents(previous, version, index)
    return Standing(index.bits(previous))


def _of_incumbents(incumbents: Mapping[str, Incumbent], version: str, index: FleetIndex) -> Standing:
    variants: dict[str, list[str]] = {}
    for name, one in incumbents.items():
        if one.version == version:
            variants.setdefault(one.variant, []).append(name)
    return Standing(
        index.bits(incumbents),
        {variant: index.bits(names) for variant, names in variants.items()},
        {name: one.contradicted for name, one in incumbents.items() if one.contradicted is not None},
        index.bits(name for name, one in incumbents.items() if one.arriving),
        index.bits(name for name, one in incumbents.items() if one.leaving),
    )
