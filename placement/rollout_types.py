"""The values that a rollout is made of: its policy, its state, and what clusters said. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

LATE: Final = -1
"""Wave number of the standing wave: clusters that come back, or join, when the waves are done."""

Phase = Literal["rolling", "paused", "reverted", "complete"]
Step = Literal["waiting", "moving", "done", "failed", "carried"]


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of clusters, or a share of some."""

    value: int
    percent: bool = False

    def of(self, whole: int, *, up: bool) -> int:
        """Return how many of ``whole`` clusters; shares are rounded up or down."""
        if not self.percent:
            return self.value
        return -(-whole * self.value // 100) if up else whole * self.value // 100


@dataclass(frozen=True, slots=True)
class Wave:
    """Clusters that are updated together.

    Attributes:
        percent: of the decision, cumulative, without deferred clusters; None where labels say who belongs to it.
        approve: it begins only when a person says so.
    """

    name: str
    percent: int | None = None
    max_concurrent: Amount | None = None
    max_failures: Amount | None = None
    min_success: Amount | None = None
    approve: bool = False


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """How a new entry digest goes over the clusters of a decision. The last wave takes all that are left.

    Attributes:
        soak_s: a cluster must have been ``current`` for so long.
        progress_deadline_s: a started cluster on which nothing moved for so long has failed.
    """

    waves: tuple[Wave, ...] = (Wave("all", 100),)
    max_concurrent: Amount | None = None
    soak_s: float = 0.0
    progress_deadline_s: float = 7200.0
    max_failures: Amount | None = None
    min_success: Amount | None = None
    on_failure: Literal["revert", "pause"] = "revert"
    approve: bool = False

    @property
    def staged(self) -> bool:
        """Whether it ever holds anybody back."""
        return len(self.waves) > 1 or self.max_concurrent is not None or self.waves[0].max_concurrent is not None

    def concurrent(self, wave: int, size: int) -> int:
        """Return how many clusters of a wave may be in flight."""
        own = None if wave == LATE else self.waves[wave].max_concurrent
        amount = own or self.max_concurrent
        return size if amount is None else max(1, amount.of(size, up=True))

    def failures(self, wave: int, size: int) -> int:
        """Return how many clusters of a wave may fail."""
        own = None if wave == LATE else self.waves[wave].max_failures
        amount = own or self.max_failures or (Amount(0) if wave == 0 else Amount(5, percent=True))
        return amount.of(size, up=False)

    def successes(self, wave: int, size: int) -> int:
        """Return how many clusters of a wave must succeed."""
        amount = self.waves[wave].min_success or self.min_success
        if amount is None:
            return max(1, size - self.failures(wave, size)) if wave == 0 else min(1, size)
        return amount.of(size, up=True)

    def asks(self, wave: int) -> bool:
        """Tell whether a wave waits for a person: its own word, or the rollout's for all but the first."""
        return self.waves[wave].approve or (self.approve and wave > 0)


@dataclass(frozen=True, slots=True)
class Place:
    """One cluster's part in a rollout.

    Attributes:
        wave: that it was started in; ``LATE`` for the standing wave.
        step: ``waiting`` only where ``previous`` is known from a rollout that was replaced; ``carried``: it got its
            target, and nobody waits for its word.
        previous: entry digest to return to; empty for none.
        target: entry digest that it was given; empty while it waits.
        at: when the target was published to it.
        moved: when it last came further.
        mark: what it said then.
        why: why it failed.
    """

    wave: int
    step: Step
    previous: str
    target: str
    at: datetime
    moved: datetime
    mark: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class RolloutState:
    """Where a rollout stands: what must survive a restart of the hub.

    Attributes:
        number: grows by one with every new target of the placement.
        targets: entry digests that it brings; more than one where overrides make a difference.
        wave: index of the present wave.
        since: when it came into this phase or wave.
        places: of the clusters that were started, and of those whose way back is older than this rollout.
        held: entry digests that are not given to anybody until the placement resolves to others, or a retry.
        excused: clusters whose failure a person has passed over by resuming.
        why: why it is paused or was reverted.
    """

    number: int
    phase: Phase
    targets: frozenset[str]
    began: datetime
    since: datetime
    wave: int = 0
    places: Mapping[str, Place] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    excused: frozenset[str] = frozenset()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What a cluster last said of one model or workload.

    Attributes:
        wanted: entry digest that the release in force there asks for.
        running: entry digest that runs; empty for none.
        health: of what runs.
        failed: the wanted digest failed there and is not tried again.
        why: one sentence for people, where it failed or is degraded.
        steady_s: for how long it had been in this health when it said so, by its own clock.
        staged_bytes: of the wanted version, that are there.
        received_at: by the hub's clock.
    """

    wanted: str
    running: str
    health: str
    received_at: datetime
    failed: bool = False
    why: str = ""
    steady_s: float = 0.0
    staged_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Hours:
    """Whether a cluster's window is open.

    Attributes:
        open: now.
        since: begin of the present state.
        until: when it opens or closes next; None for never.
    """

    open: bool
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Orders:
    """What people ordered for one placement.

    Attributes:
        halted: nothing is started: freeze, or the placement or its rollout is paused.
        resumed: rollout number → when a person let it go on last.
        aborted: numbers of rollouts that are to be undone.
        retried: numbers of rollouts whose targets are to be tried again.
        approved: (rollout number, wave index).
    """

    halted: bool = False
    resumed: Mapping[int, datetime] = field(default_factory=dict)
    aborted: frozenset[int] = frozenset()
    retried: frozenset[int] = frozenset()
    approved: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Field:
    """Everything that one step of a rollout depends on, beside its state.

    Attributes:
        want: chosen cluster → entry digest that it is to have in the end.
        has: cluster → entry digest that is published to it; clusters without one are left out.
        told: cluster → what it last said of this model or workload.
        seen: cluster → when it was heard of last.
        members: for each wave of the policy the clusters its labels select; None for a wave by percent.
        hours: of the clusters that have windows.
        carried: clusters that are reached by hand.
        halted: clusters whose release stays as it is.
        offline_after_s: a cluster not heard of for so long is silent.
    """

    policy: RolloutPolicy
    want: Mapping[str, str]
    has: Mapping[str, str]
    now: datetime
    told: Mapping[str, Told] = field(default_factory=dict)
    seen: Mapping[str, datetime] = field(default_factory=dict)
    members: tuple[frozenset[str] | None, ...] = (None,)
    hours: Mapping[str, Hours] = field(default_factory=dict)
    carried: frozenset[str] = frozenset()
    halted: frozenset[str] = frozenset()
    orders: Orders = Orders()
    offline_after_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Advanced:
    """What a step of a rollout comes to.

    Attributes:
        state: as it is now.
        give: chosen cluster → entry digest that it is to have now; empty for none.
        next_at: look again then, even when nobody says anything; None for not.
        essential: whether ``state`` differs from the one before in what must be kept; progress alone does not.
    """

    state: RolloutState
    give: Mapping[str, str]
    next_at: datetime | None
    essential: bool
