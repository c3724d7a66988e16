"""The running hub: woken by a push, a report or the clock, it steps, publishes, and tells who waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from agent.wire.errors import EdgeferryError, Retry
from gitops.commands import Command
from gitops.hub import Hub, Step, World
from gitops.intake import Held
from gitops.serve.view import HubState, SourceState
from gitops.store import Store
from gitops.tree import Tree

_FAULTS_LOGGED: Final = 10
_log: Final = logging.getLogger("edgeferry.hub")


class Service:
    """Steps in one thread for as long as the hub runs.

    Args:
        hub: the fleet.
        store: what the clusters said.
        wait: returns the reasons to step, or nothing after so many seconds at the latest; see gitops/watch.py.
        published: told the clusters whose overlay changed; None for any.
    """

    def __init__(
        self,
        hub: Hub,
        store: Store,
        wait: Callable[[float | None], object],
        published: Callable[[tuple[str, ...] | None], None],
    ) -> None:
        self._hub, self._store, self._wait, self._published = hub, store, wait, published
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="step", daemon=True)
        self._orders: list[Command] = []
        self._due: datetime | None = None
        self._ordering = threading.Lock()
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

    def order(self, command: Command) -> None:
        """Have an order recorded, and obeyed, with the next step; wake the hub after it."""
        with self._ordering:
            self._orders.append(command)

    def step(self) -> Step:
        """Take one step and publish it; orders that are given meanwhile wait for the next one.

        Raises:
            EdgeferryError: what is published stands as it is.
        """
        with self._ordering:
            orders = tuple(self._orders)
        known = world(self._store, datetime.now(UTC).replace(microsecond=0))
        step = self._hub.step(replace(known, commands=orders))
        head = self._hub.publish(step)
        with self._ordering:
            del self._orders[: len(orders)]
        self._due = step.next_at
        if head is not None:
            _log.info("published %s: %d overlays, %d moves", head[:12], len(step.changed), len(step.moves))
            self._published(tuple(step.changed))
        elif (self._hub.repository.head or "") != self.state.head:
            self._published(None)  # another hub published: whoever waits here may have news
        self.state = _state(self._hub, step)
        return step

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
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

    def _fault(self, error: EdgeferryError) -> None:
        faults = (str(error), *map(str, getattr(error, "faults", ())))
        if self.state.faults != faults:
            for line in faults[:_FAULTS_LOGGED]:
                _log.warning("%s", line)
        self.state = replace(self.state, faults=faults)


def world(store: Store, now: datetime) -> World:
    """Return what the hub's database knows, as a step takes it."""
    facts = {
        cluster: {fact.name: (fact.value, fact.measured_at) for fact in found}
        for cluster, found in store.facts().items()
    }
    registered = store.registrations()
    return World(
        now=now,
        facts=facts,
        keys={one.name: one.key for one in registered},
        highest=store.highest_sequences(),
        reports={name: (one.report, one.received_at) for name, one in store.latest_reports().items()},
        seen={one.name: one.seen_at for one in registered if one.seen_at is not None},
    )


def _state(hub: Hub, step: Step) -> HubState:
    trees, held = step.taken.trees, step.taken.held
    return HubState(
        head=hub.repository.head or "",
        sources=tuple(_source(name, trees.get(name), held.get(name)) for name in sorted(trees.keys() | held.keys())),
        published=hub.published,
        kept=step.kept,
        named=step.taken.catalog.named(),
    )


def _source(name: str, tree: Tree | None, held: Held | None) -> SourceState:
    used = "" if tree is None else tree.revision
    if held is None:
        return SourceState(name, used, used, note="" if tree is None else tree.note)
    return SourceState(name, held.revision, used, tuple(map(str, held.faults)) or (held.message,), held.note)
