"""What is simulated, and how it went: the values of a simulation. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from agent.wire.windows import Window
from placement.rollout_types import Advanced, Field, RolloutPolicy, RolloutState

Behaviour = Literal["good", "crashes", "answers wrongly", "leaks", "never ready", "cuts off", "dies later"]
BEHAVIOURS: Final[tuple[Behaviour, ...]] = (
    "crashes",
    "answers wrongly",
    "leaks",
    "never ready",
    "cuts off",
    "dies later",
)

BEGIN: Final = datetime(2026, 1, 5, 8, tzinfo=UTC)
OLD: Final = "sha256:" + "0" * 64
NEW: Final = "sha256:" + "1" * 64
SATURDAY: Final = Window(("sat",), "02:00", "05:00")

Watch = Callable[[Field, RolloutState | None, Advanced], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated.

    Attributes:
        offline: share of the clusters that are cut off at the beginning and come back within ``outage_s``.
        blinks: how often a cluster is cut off for some minutes, on average, a day.
        fail: share of the clusters on which any version fails.
        lost: share of the reports that are lost; they are said again with the next heartbeat.
        canary: how many clusters are the first wave's, where the policy's first wave goes by labels.
        windowed: share of the clusters that have ``window``.
        carried: share of the clusters that are reached by hand.
        stage_s: shortest and longest time to stage the version.
        power_cuts: (seconds from the beginning, share of the clusters).
        restarts: chance that the hub is killed after a step.
        tick_s: the hub looks so often at most.
        most_s: the simulation ends then at the latest.
    """

    policy: RolloutPolicy
    clusters: int = 100
    seed: int = 0
    version: Behaviour = "good"
    offline: float = 0.0
    outage_s: float = 86_400.0
    blinks: float = 0.0
    fail: float = 0.0
    lost: float = 0.0
    canary: int = 10
    windowed: float = 0.0
    window: Window = SATURDAY
    carried: float = 0.0
    stage_s: tuple[float, float] = (20.0, 600.0)
    power_cuts: tuple[tuple[float, float], ...] = ()
    restarts: float = 0.0
    offline_after_s: float = 600.0
    tick_s: float = 10.0
    most_s: float = 14 * 86_400.0


@dataclass(frozen=True, slots=True)
class Row:
    """The rollout at one moment, seconds from the beginning."""

    at_s: float
    phase: str
    wave: int
    moving: int
    done: int
    failed: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Course:
    """How it went.

    Attributes:
        rows: one for every time that the fleet was published.
        started: clusters on which the new version ever ran, beside the old one or in its place.
        served: clusters whose consumers it ever served.
        most_in_flight: at any time.
        ended_s: when the rollout was complete, reverted, or paused; None for not within the time.
        back_s: when the last reachable cluster had its previous version again; None where nothing was reverted.
        state: at the end.
        has: cluster → what is published to it.
        running: cluster → what it runs.
        commits: fleet commits.
    """

    rows: tuple[Row, ...]
    started: frozenset[str]
    served: frozenset[str]
    most_in_flight: int
    ended_s: float | None
    back_s: float | None
    state: RolloutState
    has: Mapping[str, str]
    running: Mapping[str, str]
    commits: int
