"""Why not? → the smallest change after which a policy chooses a cluster. Pure.

Found by deciding: change what the decision gives as its reason, in every way that there is, and decide again, until
nothing refuses the cluster. Of all ways the one with the fewest changes is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from placement.decide import decide
from placement.index import FleetIndex
from placement.scene import Scene
from placement.types import Decision, Subject
from placement.ways import ways
from placement.world import Change, World, changed

_MOST_TRIES: Final = 300
_MOST_CHANGES: Final = 10


@dataclass(slots=True)
class _Search:
    """What the search has at hand.

    Attributes:
        before: the decision as it is; everybody that it chooses keeps its place.
        index: of the fleet as it is.
    """

    before: Decision
    index: FleetIndex
    now: datetime
    tries: int = 0

    def decided(self, world: World) -> Decision:
        self.tries += 1
        index = self.index.with_changes([world.target])
        return decide(world.policy, world.subject, index, self.before, self.now, world.scene)

    def found(self, path: tuple[World, ...], done: tuple[Change, ...], most: int) -> tuple[Change, ...] | None:
        """Return the fewest changes that lead from a world to one where the cluster is chosen; None for none.

        Args:
            path: the worlds on the way here, this one last.
            done: the changes that led here.
            most: fewer changes than this in all, or none.
        """
        world = path[-1]
        current = self.decided(world)
        refusal = next((one for one in current.refused if world.target.name in one.clusters), None)
        if refusal is None:
            return ()
        best: tuple[Change, ...] | None = None
        for way in ways(world, current, refusal, self.before, self.now, self.decided):
            if self.tries > _MOST_TRIES and (best is not None or len(path) > 1):
                break
            after = world
            for one in way:
                after = changed(after, one, self.now)
            if len(merged((*done, *way))) >= most or after in path or len(path) > _MOST_CHANGES:
                continue
            rest = self.found((*path, after), (*done, *way), most)
            if rest is not None:
                best = (*way, *rest)
                most = len(merged((*done, *best)))
        return best


def smallest(
    decision: Decision, subject: Subject, cluster: str, scene: Scene, now: datetime
) -> tuple[Change, ...]:  # fmt: skip
    """Return the smallest change that would choose a cluster.

    Args:
        decision: all clusters that it chooses keep their places.
        subject: what it places.
        cluster: name of a cluster of its index.
        scene: what was decided before it.
        now: for the ages of facts, timezone-aware.

    Returns:
        Changes that suffice together, and of which none can be left out. Empty where the cluster is chosen, and where
        no change helps: the subject has no version that is not withdrawn.
    """
    index = decision.chosen.index
    world = World(decision.policy, subject, index.targets[cluster], scene, index.numbers[cluster])
    search = _Search(decision, index, now)
    found = search.found((world,), (), _MOST_CHANGES)
    return () if found is None else _pruned(world, merged(found), search)


def merged(changes: Sequence[Change]) -> tuple[Change, ...]:
    """Return the changes with only the last of those that change the same thing."""
    return tuple({(one.what, one.key): one for one in changes}.values())


def _pruned(world: World, changes: tuple[Change, ...], search: _Search) -> tuple[Change, ...]:
    """Leave out what turned out not to be needed."""
    for one in changes:
        rest = tuple(other for other in changes if other is not one)
        after = world
        for other in rest:
            after = changed(after, other, search.now)
        if len(changes) > 1 and world.target.name in search.decided(after).chosen:
            return _pruned(world, rest, search)
    return changes
