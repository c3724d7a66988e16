"""A cluster that is left keeps what it has until another one has it: make before break. Pure.

As many clusters that are left stay as there are newcomers that do not report their version as current yet, so that
never fewer serve than before.
"""

from __future__ import annotations

from dataclasses import replace

from placement.scene import Scene
from placement.standing import Standing
from placement.types import ClusterSet, Decision, Refusal


def handed_over(decision: Decision, before: Standing, scene: Scene) -> Decision:
    """Return the decision with those that are left and stay for now."""
    index, chosen = decision.chosen.index, decision.chosen.bits
    left = before.bits & ~chosen
    for holder in scene.held:
        left &= ~holder.chosen.bits
    new = chosen & ~before.bits if left else 0
    arriving = ((before.arriving & chosen) | new) & ~(scene.current & before.bits)
    staying = index.first(left, arriving.bit_count())
    if not staying:
        return decision
    refused = [Refusal(one.code, one.text, ClusterSet(index, one.clusters.bits & ~staying)) for one in decision.refused]
    variants = {
        name: ClusterSet(index, (decision.variants[name].bits if name in decision.variants else 0) | kept)
        for name in before.variants.keys() | decision.variants.keys()
        if (kept := before.variants.get(name, 0) & staying) or name in decision.variants
    }
    return replace(
        decision,
        chosen=ClusterSet(index, chosen | staying),
        refused=tuple(one for one in refused if one.clusters.bits),
        variants=variants if decision.variants else {},
        arriving=frozenset(index.names(arriving)),
        leaving=frozenset(index.names(staying)),
    )
