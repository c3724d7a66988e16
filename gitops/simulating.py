"""A rollout on a fleet that is only thought of: the engine of the hub, on a virtual clock, reproducible by its seed.

Every cluster is a small model of an agent: it takes its release when it is online, stages at the rate of its link,
waits for its window, switches, and reports; it may be cut off, lose power, or run into what the version does there.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from agent.wire.windows import Window, opening
from gitops.simulated import BEGIN, BEHAVIOURS, NEW, OLD, Behaviour, Course, Row, Setting, Watch
from placement.rollout import advance
from placement.rollout_types import Field, Hours, Orders, RolloutState, Told

HEARTBEAT_S: Final = 60.0
_READY_S: Final = 15.0
_START_DEADLINE_S: Final = 120.0
_LEAK_S: Final = 600.0
_DIES_S: Final = 3600.0


@dataclass(slots=True)
class _Edge:
    """One cluster: ``epoch`` makes what was planned for an earlier release void."""

    stage_s: float
    behaviour: Behaviour
    online: bool = True
    seen_s: float = 0.0
    published: str = OLD
    wanted: str = OLD
    running: str = OLD
    health: str = "current"
    since_s: float = -1e6
    failed: set[str] = field(default_factory=set)
    staged: set[str] = field(default_factory=set)
    epoch: int = 0
    windows: tuple[Window, ...] = ()


class Simulation:
    """One fleet under simulation; ``run`` plays it to its end.

    Args:
        setting: what is simulated.
        watch: told every step of the engine; None for nobody.
        orders: what people order, by the time in seconds; None for nothing.
    """

    def __init__(
        self, setting: Setting, watch: Watch | None = None, orders: Callable[[float], Orders] | None = None
    ) -> None:
        self._set, self._watch, self._orders = setting, watch, orders
        self._dice = random.Random(setting.seed)
        self._now = 0.0
        self._queue: list[tuple[float, int, str, str, int]] = []
        self._count = 0
        self.names = tuple(f"cluster-{n:05d}" for n in range(setting.clusters))
        self.edges = {name: self._edge() for name in self.names}
        self._told: dict[str, Told] = {}
        self._seen = _Seen(self)
        self._carried = frozenset(n for n in self.names if self._dice.random() < setting.carried)
        self._back = 0.0
        self._started: set[str] = set()
        self._served: set[str] = set()
        self._schedule()

    def run(self) -> Course:
        """Play until the rollout has ended and every reachable cluster has what it was given."""
        s = self._set
        state: RolloutState | None = None
        kept: RolloutState | None = None
        rows: list[Row] = []
        most, commits, ended, due = 0, 0, None, 0.0
        while self._now <= s.most_s:
            scene = self._scene()
            found = advance(scene, state)
            if self._watch is not None:
                self._watch(scene, state, found)
            state = found.state
            changed = {c: d for c, d in found.give.items() if self.edges[c].published != d}
            if found.essential or changed:
                kept, commits = state, commits + 1
                self._publish(changed)
                rows.append(self._row(state))
            most = max(most, sum(one.step == "moving" for one in state.places.values()))
            if state.phase != "rolling" and ended is None:
                ended = self._now
            due = s.most_s + 1 if found.next_at is None else (found.next_at - BEGIN).total_seconds()
            if state.phase != "rolling" and self._is_quiet(state.phase):
                break
            if kept is not None and self._dice.random() < s.restarts:
                state = kept
            self._go_on(due)
        assert state is not None
        back = max(self._back, ended or 0.0) if state.phase == "reverted" else None
        return Course(
            tuple(rows),
            frozenset(self._started),
            frozenset(self._served),
            most,
            ended,
            back,
            state,
            {name: one.published for name, one in self.edges.items()},
            {name: one.running for name, one in self.edges.items()},
            commits,
        )

    def seen_s(self, name: str) -> float:
        """Return when a cluster was heard of last."""
        edge = self.edges[name]
        return self._now - self._now % HEARTBEAT_S if edge.online else edge.seen_s

    def _edge(self) -> _Edge:
        s, dice = self._set, self._dice
        low, high = s.stage_s
        behaviour: Behaviour = "crashes" if dice.random() < s.fail else s.version
        windows = (s.window,) if dice.random() < s.windowed else ()
        return _Edge(low + (high - low) * dice.random() ** 3, behaviour, windows=windows)

    def _schedule(self) -> None:
        s, dice = self._set, self._dice
        for name in self.names:
            if dice.random() < s.offline or name in self._carried:
                self.edges[name].online, self.edges[name].seen_s = False, -86_400.0
                self._at(dice.random() * s.outage_s, name, "on")
            at = dice.expovariate(s.blinks / 86_400) if s.blinks else s.most_s
            while at < min(s.most_s, 30 * 86_400.0) and name not in self._carried:
                self._at(at, name, "off")
                at += 60 + dice.random() * 3600
                self._at(at, name, "on")
                at += dice.expovariate(s.blinks / 86_400)
        for at, share in s.power_cuts:
            for name in self.names:
                if dice.random() < share:
                    self._at(at, name, "cut")
                    self._at(at + 90, name, "boot")

    def _scene(self) -> Field:
        s, now = self._set, BEGIN + timedelta(seconds=self._now)
        first = frozenset(self.names[: s.canary])
        hours = {}
        for name, edge in self.edges.items():
            if edge.windows:
                found = opening(edge.windows, now)
                hours[name] = Hours(found.open, found.since, found.until)
        return Field(
            policy=s.policy,
            want=dict.fromkeys(self.names, NEW),
            has={name: edge.published for name, edge in self.edges.items()},
            now=now,
            told=self._told,
            seen=self._seen,
            members=tuple(None if one.percent is not None else first for one in s.policy.waves),
            hours=hours,
            carried=self._carried,
            orders=Orders() if self._orders is None else self._orders(self._now),
            offline_after_s=s.offline_after_s,
        )

    def _publish(self, changed: Mapping[str, str]) -> None:
        for name, digest in changed.items():
            edge = self.edges[name]
            edge.published = digest
            if edge.online:
                self._at(self._now + 1 + 3 * self._dice.random(), name, "take")

    def _row(self, state: RolloutState) -> Row:
        steps = [one.step for one in state.places.values()]
        waiting = sum(self.edges[c].published != NEW for c in self.names)
        return Row(
            self._now,
            state.phase,
            state.wave,
            steps.count("moving"),
            steps.count("done"),
            steps.count("failed"),
            waiting,
        )

    def _is_quiet(self, phase: str) -> bool:
        if phase == "complete" and any(one.online and one.published != NEW for one in self.edges.values()):
            return False
        if any(one.online and one.wanted != one.published for one in self.edges.values()):
            return False
        return not self._queue or self._queue[0][0] > self._now + 2 * 86_400

    def _go_on(self, due: float) -> None:
        """Move the clock to the next thing that happens, and do everything until then."""
        tick = self._set.tick_s
        nearest = min(due, self._queue[0][0] if self._queue else due)
        self._now = max(self._now + tick, -(-nearest // tick) * tick)
        while self._queue and self._queue[0][0] <= self._now:
            at, _, name, what, epoch = heapq.heappop(self._queue)
            if epoch < 0 or epoch == self.edges[name].epoch:
                self._happen(at, name, what)

    def _at(self, at: float, name: str, what: str, epoch: int = -1) -> None:
        self._count += 1
        heapq.heappush(self._queue, (at, self._count, name, what, epoch))

    def _happen(self, at: float, name: str, what: str) -> None:
        edge = self.edges[name]
        match what:
            case "on":
                if edge.behaviour == "cuts off" and edge.running == NEW:
                    return
                edge.online = True
                self._take(at, name, edge)
            case "off":
                edge.online, edge.seen_s = False, at
            case "cut":
                edge.online, edge.seen_s = False, at
                edge.health, edge.since_s = "degraded", at
            case "boot":
                edge.online, edge.health, edge.since_s = True, "progressing", at
                self._at(at + _READY_S, name, "ready")
                self._take(at, name, edge)
            case "take":
                if edge.online:
                    self._take(at, name, edge)
            case "staged":
                edge.staged.add(edge.wanted)
                self._switch(at, name, edge)
            case "switch":
                self._switch(at, name, edge)
            case "ready":
                if edge.health == "progressing":
                    edge.health, edge.since_s = "current", at
            case "worse":
                edge.health, edge.since_s = "degraded", at
            case "fails":
                edge.failed.add(NEW)
                edge.running, edge.health, edge.since_s = OLD, "current", at
                self._back = at
        self._report(at, name, edge)

    def _take(self, at: float, name: str, edge: _Edge) -> None:
        if edge.wanted == edge.published:
            return
        edge.wanted = edge.published
        edge.epoch += 1
        if edge.wanted in edge.failed or edge.wanted == edge.running:
            return
        if edge.wanted == OLD:  # it was there before: nothing is staged, and a return waits for no window
            edge.running, edge.health, edge.since_s = OLD, "progressing", at
            self._back = at
            self._at(at + _READY_S, name, "ready", edge.epoch)
        elif edge.wanted in edge.staged:
            self._switch(at, name, edge)
        else:
            self._at(at + edge.stage_s, name, "staged", edge.epoch)

    def _switch(self, at: float, name: str, edge: _Edge) -> None:
        state = opening(edge.windows, BEGIN + timedelta(seconds=at)) if edge.windows else None
        if state is not None and not state.open:
            assert state.until is not None
            self._at((state.until - BEGIN).total_seconds(), name, "switch", edge.epoch)
            return
        self._started.add(name)
        if edge.behaviour in ("crashes", "answers wrongly", "never ready"):
            wait = _START_DEADLINE_S if edge.behaviour == "never ready" else _READY_S
            self._at(at + wait, name, "fails", edge.epoch)
            return
        self._served.add(name)
        edge.running, edge.health, edge.since_s = NEW, "progressing", at
        self._at(at + _READY_S, name, "ready", edge.epoch)
        if edge.behaviour == "cuts off":
            edge.online, edge.seen_s = False, at
        if edge.behaviour in ("leaks", "dies later"):
            self._at(at + (_LEAK_S if edge.behaviour == "leaks" else _DIES_S), name, "worse", edge.epoch)

    def _report(self, at: float, name: str, edge: _Edge) -> None:
        if not edge.online:
            return
        if self._dice.random() < self._set.lost:
            self._at(at + HEARTBEAT_S, name, "say")
            return
        self._told[name] = Told(
            edge.wanted,
            edge.running,
            edge.health,
            BEGIN + timedelta(seconds=at),
            edge.wanted in edge.failed,
            "it came up broken" if edge.wanted in edge.failed else "",
            at - edge.since_s,
        )


class _Seen(Mapping[str, datetime]):
    """When every cluster was heard of last, worked out when somebody asks."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def __getitem__(self, name: str) -> datetime:
        return BEGIN + timedelta(seconds=self._simulation.seen_s(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._simulation.names)

    def __len__(self) -> int:
        return len(self._simulation.names)


def bad_versions(setting: Setting) -> dict[Behaviour, Course]:
    """Return how every sort of bad version fares on the same fleet."""
    return {one: Simulation(replace(setting, version=one)).run() for one in BEHAVIOURS}
