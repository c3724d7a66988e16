"""The running hub: woken by a push, a report or the clock, it steps, publishes, and tells who waits."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from agent.wire.errors import EdgeferryError, Retry
from agent.wire.facts import Fact
from gitops.commands import Command, Verb
from gitops.hub import Hub, Step, World
from gitops.intake import Held
from gitops.policies import FactText
from gitops.rolling import rollout_of, to_rollout
from gitops.rollout_spec import RolloutSpec, seconds
from gitops.rollout_view import Rolling
from gitops.serve.view import HubState, SourceState
from gitops.store import Store
from gitops.tree import Tree

_FAULTS_LOGGED: Final = 10
ORDER_S: Final = 25.0
"""An order is recorded within this, or refused."""

_log: Final = logging.getLogger("edgeferry.hub")


FOLLOW_S: Final = 0.5
"""A hub that follows looks so often whether there is news, or whether it is its turn."""


class OrderNotRecorded(Retry):
    """An order could not be written to the fleet repository in time."""

    code = "EF3202"


class Service:
    """Steps in one thread for as long as the hub runs.

    Args:
        hub: the fleet.
        store: what the clusters said; it tells which of several hubs decides, the others follow.
        wait: returns the reasons to step, or nothing after so many seconds at the latest; see gitops/watch.py.
        published: told the clusters whose overlay changed; None for any.
        connected: returns the clusters that hold a connection now: they are heard of without a word.
    """

    def __init__(
        self,
        hub: Hub,
        store: Store,
        wait: Callable[[float | None], object],
        published: Callable[[tuple[str, ...] | None], None],
        connected: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._hub, self._store, self._wait, self._published = hub, store, wait, published
        self._connected = connected
        self._facts = KnownFacts()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="step", daemon=True)
        self._orders: list[Command] = []
        self._follows = False
        self._due: datetime | None = None
        self._ordering = threading.Condition()
        self.state = HubState(head=hub.repository.head or "")

    def start(self) -> None:
        """Begin to step."""
        self._thread.start()

    def stop(self, wake: Callable[[], None]) -> None:
        """Take no further step; one under way is finished.

        Args:
            wake: ends the wait for something to do.
        """
        self._stopped.set()
        wake()
        self._thread.join(30)

    def order(self, wake: Callable[[], None], verb: Verb, about: str, by: str, why: str, argument: str) -> str:
        """Have an order recorded, and obeyed, with the next step; return the fleet commit.

        Args:
            wake: ends the wait for something to do.
            verb, about, by, why, argument: see ``Command``.

        Raises:
            OrderNotRecorded: no step came through in time; it is not kept.
        """
        now = datetime.now(UTC).replace(microsecond=0)
        if self._follows:
            raise OrderNotRecorded("this hub follows another that decides", do="ask the hub that decides, or ask again")
        command = Command(secrets.token_hex(8), verb, about, by, now, why, argument)
        with self._ordering:
            self._orders.append(command)
            wake()
            if not self._ordering.wait_for(lambda: command not in self._orders, ORDER_S):
                self._orders.remove(command)
                what = "; ".join(self.state.faults) or "the hub is busy"
                raise OrderNotRecorded(what, do="mend what holds up the hub, and order it again")
        return self.state.head

    def step(self) -> Step:
        """Take one step and publish it; orders that are given meanwhile wait for the next one.

        Raises:
            EdgeferryError: what is published stands as it is.
        """
        with self._ordering:
            orders = tuple(self._orders)
        began = time.monotonic()
        known = world(self._store, datetime.now(UTC).replace(microsecond=0), self._facts, self._connected())
        step = self._hub.step(replace(known, commands=orders))
        decided = time.monotonic()
        head = self._hub.publish(step)
        written = time.monotonic()
        self._due = step.next_at
        if head is not None:
            what = (head[:12], len(step.changed), len(step.moves), (decided - began) * 1000, (written - decided) * 1000)
            _log.info("published %s: %d overlays, %d moves; decided in %.0f ms, written in %.0f ms", *what)
            self._published(tuple(step.changed))
            self._store.published()
        elif (self._hub.repository.head or "") != self.state.head:
            self._published(None)  # another hub published: whoever waits here may have news
        self.state = _state(self._hub, step)
        with self._ordering:
            self._orders = [one for one in self._orders if one not in orders]
            self._ordering.notify_all()
        return step

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._follows = not self._store.lead()
                if self._follows:
                    self._follow()
                    continue
                self.step()
            except Retry as error:
                self._fault(error)
                if self._stopped.wait(min(error.delay_s, 5.0)):
                    return
                continue
            except EdgeferryError as error:
                self._fault(error)
            due = self._due
            self._wait(None if due is None else max(0.2, (due - datetime.now(UTC)).total_seconds()))

    def _follow(self) -> None:
        """Serve what another hub publishes, until it ends: then this one decides."""
        _log.info("another hub decides; this one serves")
        mark, self._due = -1, None
        while not self._store.lead():
            newest = self._store.publications_mark()
            if newest != mark:
                self._hub.repository.fetch()
                self._hub.look()
                mark = newest
                self.state = HubState(head=self._hub.repository.head or "", published=self._hub.published)
                self._published(None)
            if self._stopped.wait(FOLLOW_S):
                return
        _log.info("this hub decides now")

    def _fault(self, error: EdgeferryError) -> None:
        faults = (str(error), *map(str, getattr(error, "faults", ())))
        if self.state.faults != faults:
            for line in faults[:_FAULTS_LOGGED]:
                _log.warning("%s", line)
        self.state = replace(self.state, faults=faults)


class KnownFacts:
    """Facts as a step takes them: the same object for as long as a cluster tells nothing new."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[tuple[Fact, ...], Mapping[str, FactText]]] = {}

    def of(self, told: Mapping[str, tuple[Fact, ...]]) -> dict[str, Mapping[str, FactText]]:
        """Return cluster → fact name → (text, time measured)."""
        before, self._made = self._made, {}
        for cluster, facts in told.items():
            known = before.get(cluster)
            if known is None or known[0] is not facts:
                known = facts, {fact.name: (fact.value, fact.measured_at) for fact in facts}
            self._made[cluster] = known
        return {cluster: known for cluster, (_, known) in self._made.items()}


def world(store: Store, now: datetime, facts: KnownFacts, connected: Collection[str] = ()) -> World:
    """Return what the hub's database knows, as a step takes it, and who is connected now."""
    registered = store.registrations()
    return World(
        now=now,
        facts=facts.of(store.facts()),
        keys={one.name: one.key for one in registered},
        highest=store.highest_sequences(),
        reports={name: (one.report, one.received_at) for name, one in store.latest_reports().items()},
        seen={one.name: one.seen_at for one in registered if one.seen_at is not None} | dict.fromkeys(connected, now),
    )


def _state(hub: Hub, step: Step) -> HubState:
    trees, held = step.taken.trees, step.taken.held
    return HubState(
        head=hub.repository.head or "",
        sources=tuple(_source(name, trees.get(name), held.get(name)) for name in sorted(trees.keys() | held.keys())),
        published=hub.published,
        kept=step.kept,
        named=step.taken.catalog.named(),
        offline_after_s=seconds(step.taken.catalog.fleet.offline_after),
        rollouts=_rollouts(step),
        frozen=step.ordered.frozen,
        pending=step.guarded.sentence(),
    )


def _rollouts(step: Step) -> tuple[Rolling, ...]:
    catalog = step.taken.catalog
    return tuple(
        Rolling(
            step.records[name],
            state,
            to_rollout(rollout_of(catalog, name) or RolloutSpec()),
            step.ordered.of(name, state.number),
        )
        for name, state in sorted(step.rolled.progress.items())
        if name in step.records
    )


def _source(name: str, tree: Tree | None, held: Held | None) -> SourceState:
    used = "" if tree is None else tree.revision
    if held is None:
        return SourceState(name, used, used, note="" if tree is None else tree.note)
    return SourceState(name, held.revision, used, tuple(map(str, held.faults)) or (held.message,), held.note)
