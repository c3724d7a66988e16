"""What a plan is made of, and what it is made from. Frozen values only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.actions import Action, Observed, Seen, Staged
from agent.clock import Instant
from agent.journal import EntryState, Key
from agent.orders import Orders
from agent.wire.errors import EdgeferryError, Stop, Wait
from agent.wire.release import Entry, Retire
from agent.wire.report import Health
from agent.wire.windows import Window


class KeptDamaged(Stop):
    """What was kept of a release or an entry is missing, or is not what was written."""

    code = "EF4054"


class RequiresUnknown(Wait):
    """The entry needs what this agent cannot do; what runs of it stays as it is."""

    code = "EF4060"


class PlatformRefuses(Stop):
    """This kind of site cannot run the entry."""

    code = "EF4061"


class CandidateFailed(Stop):
    """A version came up broken, or broke within its probation."""

    code = "EF4062"


class NotReadyInTime(Stop):
    """A version was started and did not become ready within ``start_deadline_s``."""

    code = "EF4063"


class BootsExhausted(Stop):
    """The site booted three times before the version was committed."""

    code = "EF4064"


class NotSteady(Stop):
    """A version in probation went up and down instead of staying healthy."""

    code = "EF4065"


class WaitsForModel(Wait):
    """A workload version waits for a model that it uses."""

    code = "EF4066"


class WaitsForWorkload(Wait):
    """A model version waits, as a workload that runs does not accept it."""

    code = "EF4067"


class WaitsForWindow(Wait):
    """A version is here and waits until the site's window opens."""

    code = "EF3250"


class FailedBefore(Stop):
    """The entry digest failed at this site and is not tried again."""

    code = "EF4068"


class ModelWentBack(Wait):
    """A workload went back together with a model that returned."""

    code = "EF4069"


@dataclass(frozen=True, slots=True)
class Happening:
    """A transition that becomes an event; its object is the step's entry."""

    kind: str
    version: str = ""
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One entry's next step: record the intent, do the actions in order, record the result.

    Attributes:
        key: of the entry; ``("announce", NAMESPACE)`` for what is told to consumers.
        subject: the entry digest that it is about; a step that failed is paced for this subject only.
        intent: recorded before the actions; None where that changes nothing.
        actions: idempotent; none at all where only the record moves on.
        done: recorded after the actions; None where nothing is to be recorded, or ``forget``.
        forget: nothing is left of the entry: its record goes.
        ahead: happenings recorded with the intent.
        news: happenings recorded with the result.
        candidate: the digest that has failed when an action raises ``Stop``; empty: a person must help.
        again_later: the step is not done again at once even though it succeeded.
    """

    key: Key
    subject: str
    actions: tuple[Action, ...] = ()
    intent: EntryState | None = None
    done: EntryState | None = None
    forget: bool = False
    ahead: tuple[Happening, ...] = ()
    news: tuple[Happening, ...] = ()
    candidate: str = ""
    again_later: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why an entry does not move.

    Attributes:
        soon: it is on its way by itself: look again quickly.
        fault: what people should know; None for none.
    """

    key: Key
    soon: bool = False
    fault: EdgeferryError | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. Executing it and looking again gives the next plan, until there are no steps.

    Attributes:
        steps: in order; at most one for each key.
        waits: for entries without a step, or with one that does not bring them further.
    """

    steps: tuple[Step, ...] = ()
    waits: tuple[Waiting, ...] = ()

    @property
    def actions(self) -> tuple[Action, ...]:
        """All actions in order."""
        return tuple(action for step in self.steps for action in step.actions)

    @property
    def soon(self) -> bool:
        """Something is on its way by itself."""
        return any(wait.soon for wait in self.waits)


@dataclass(frozen=True, slots=True)
class Desired:
    """What the release in force asks for."""

    entries: tuple[Entry, ...] = ()
    retire: Retire = ""
    windows: tuple[Window, ...] = ()
    keep: bool = False
    returns: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Stretch:
    """How long an instance has been in its present health, as this agent saw it."""

    health: Health
    ms: int


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a plan depends on.

    Attributes:
        desired: None while no release was ever accepted: then nothing changes.
        states: the journal, after ``after_boot``.
        observed: what the platform sees.
        staged: entry digest → staged, of all that is known and complete at the site.
        staging: entry digests that are being staged, or whose staging waits to be tried again.
        entries: entry digest → entry, of all that is known.
        refused: keys that the platform refuses → why.
        untrusted: entry digest → why its signature does not let it be switched to.
        requires: what an entry may name in ``requires``.
        stretches: (key, entry digest) → how long it has been as it is.
        orders: of people at the site.
        start_deadline_ms, probation_ms: the settings.
        watched_ms: how long this agent has been watching: what happened before is not held against a version.
    """

    desired: Desired | None
    states: Mapping[Key, EntryState]
    observed: Observed
    staged: Mapping[str, Staged]
    instant: Instant
    staging: frozenset[str] = frozenset()
    entries: Mapping[str, Entry] = field(default_factory=dict)
    refused: Mapping[Key, str] = field(default_factory=dict)
    untrusted: Mapping[str, EdgeferryError] = field(default_factory=dict)
    requires: frozenset[str] = frozenset()
    stretches: Mapping[tuple[Key, str], Stretch] = field(default_factory=dict)
    orders: Orders = field(default_factory=Orders)
    start_deadline_ms: int = 120_000
    probation_ms: int = 30_000
    watched_ms: float = math.inf
    _seen: Mapping[Key, tuple[Seen, ...]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        seen: dict[Key, tuple[Seen, ...]] = {}
        for one in self.observed.seen:
            key = (one.kind, one.name)
            seen[key] = (*seen.get(key, ()), one)
        object.__setattr__(self, "_seen", seen)

    def instances(self, key: Key) -> tuple[Seen, ...]:
        """Return what is seen of an entry."""
        return self._seen.get(key, ())

    def instance(self, key: Key, entry_digest: str) -> Seen | None:
        """Return the instance of one digest, the serving one first."""
        found = [one for one in self.instances(key) if one.digest == entry_digest]
        return next((one for one in found if one.serving), found[0] if found else None)

    def serving(self, key: Key, entry_digest: str) -> Seen | None:
        """Return the instance of one digest that consumers reach."""
        return next((one for one in self.instances(key) if one.digest == entry_digest and one.serving), None)

    def wanted(self) -> dict[Key, Entry]:
        """Return the entries that are asked for, after what people ordered here; none where the cluster retires."""
        if self.desired is None or self.desired.retire:
            return {}
        return {(one.kind, one.name): self._ordered(one) for one in self.desired.entries}

    def _ordered(self, entry: Entry) -> Entry:
        order = self.orders.rollback((entry.kind, entry.name), entry.digest)
        return entry if order is None else self.entries.get(order.to, entry)
