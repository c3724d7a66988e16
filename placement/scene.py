"""What deciding one policy depends on besides the policy, its subject and the clusters. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from placement.room import Room
from placement.types import Decision


@dataclass(frozen=True, slots=True)
class Scene:
    """What was decided before, as far as it matters.

    Attributes:
        running: workload → bits of the clusters where it is placed.
        room: what is promised to others; nothing of the policy's own is in it.
        held: decisions for the same subject that come first, the highest priority first.
        current: bits of the clusters that report what this policy gave them as current.
    """

    running: Mapping[str, int] = field(default_factory=dict)
    room: Room = field(default_factory=Room)
    held: tuple[Decision, ...] = ()
    current: int = 0
