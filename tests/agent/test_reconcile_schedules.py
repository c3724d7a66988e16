"""Random schedules of releases, bad versions, crashes, reboots, faults and kills between any two actions.

Whatever happens, in whatever order: nothing but released versions ever serves, the way back is never lost, nothing is
left over, and at the end the site is at what is asked for, or at its last good version where that one failed.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent import outbox
from agent.fetch import Received
from tests.agent.simulated_site import Busy, Edge, Killed, model, workload

BEHAVIOUR = {
    "3.0.0": "dead",
    "4.0.0": "dies",
    "5.0.0": "wrong",
    "6.0.0": "never",
    "7.0.0": "refused",
    "8.0.0": "slow",
}
VERSIONS = ["1.0.0", "2.0.0", *BEHAVIOUR]

operations = st.one_of(
    st.tuples(st.just("release"), st.sampled_from(["", *VERSIONS]), st.sampled_from(["", "1.0.0", "2.0.0"])),
    st.tuples(st.just("kill"), st.integers(1, 6), st.booleans()),
    st.tuples(st.just("look"), st.integers(1, 14), st.booleans()),
    st.tuples(st.just("reboot"), st.just(0), st.booleans()),
    st.tuples(st.just("restart"), st.just(0), st.booleans()),
    st.tuples(st.just("crash"), st.just(0), st.booleans()),
    st.tuples(st.just("link"), st.just(0), st.booleans()),
    st.tuples(st.just("platform"), st.just(0), st.booleans()),
)


@dataclass
class Play:
    edge: Edge
    pending: Received | None = None
    strikes: int = 0
    power: bool = False
    numbers: list[int] = field(default_factory=list)
    wanted: tuple[str, str] | None = None

    def strike(self, where: str) -> None:
        if self.strikes:
            self.strikes -= 1
            if not self.strikes:
                raise Killed(where)

    def look(self) -> None:
        try:
            self.edge.look(self.pending)
            self.pending = None
        except Killed:
            self.edge.reboot() if self.power else self.edge.start()
        self.check()

    def check(self) -> None:
        edge, site = self.edge, self.edge.site
        assert site is not None
        for key, state in site.book.states.items():
            if state.running:
                assert state.running in edge.world.content, f"the way back of {key} is lost: {state}"
            if state.phase == "idle":
                assert state.serving == state.running and not state.target
        numbers = [one.number for one in outbox.pending(site.state)]
        assert numbers == sorted(set(numbers)) and numbers[: len(self.numbers)] == self.numbers[: len(numbers)]
        self.numbers = numbers

    def do(self, what: str, amount: int | str, other: bool | str) -> None:
        edge = self.edge
        match what:
            case "release":
                entries = [model(version=str(amount), test=True)] if amount else []
                entries += [workload(version=str(other), uses=[("digits", "*", "restart")])] if other else []
                self.wanted = (str(amount), str(other))
                self.pending = edge.release(*entries)
            case "kill":
                self.strikes, self.power = int(amount), bool(other)
            case "look":
                for _ in range(int(amount)):
                    self.look()
            case "reboot":
                edge.reboot()
            case "restart":
                edge.start()
            case "crash":
                for instances in edge.world.instances.values():
                    for one in instances.values():
                        one["alive"] = False
            case "link":
                edge.bytes.fault = Busy("no link") if other else None
            case "platform":
                edge.platform.fault = Busy("away") if other else None

    def heal(self) -> None:
        self.strikes = 0
        self.edge.bytes.fault = self.edge.platform.fault = None
        self.edge.start()
        self.edge.tick_ms = 1000
        self.edge.settle(self.pending, most=400)
        self.check()

    def at_the_end(self) -> None:
        edge, site = self.edge, self.edge.site
        assert site is not None
        if self.wanted is None:
            assert not edge.world.instances and not edge.world.log
            return
        for key, version in zip((("model", "digits"), ("workload", "reader")), self.wanted, strict=True):
            state = site.book.states.get(key)
            name = "/".join(key)
            serves = edge.serves(*key)
            leftovers = set(edge.world.instances.get(name, {})) - {edge.world.serving.get(name, "")}
            assert not leftovers, f"left over of {name}: {leftovers}"
            if not version:
                assert serves == "" and state is None, f"{name} should be gone: {state}"
                continue
            if key[0] == "workload" and not edge.serves("model", "digits"):
                continue  # it waits for its model
            assert state is not None
            assert state.phase == "idle"
            wanted = next(one for one in site.force.release.entries if (one.kind, one.name) == key)  # type: ignore[union-attr]  # wanted
            if serves == version:
                continue
            assert wanted.digest in state.failed, f"{name} is at {serves!r}, not {version}: {state} {site.faults}"
            good = site.entries[state.running].version if state.running else ""
            assert serves == good, f"{name}: {serves!r} serves, {good!r} is good"


def play(schedule: list[tuple[str, int | str, bool | str]], *, beside: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        edge = Edge(Path(directory) / "site", beside=beside, probation_s=1.0, start_deadline_s=3.0)
        edge.world.behaviour = dict(BEHAVIOUR)
        one = Play(edge)
        edge.platform.strike = one.strike
        edge.start()
        for what, amount, other in schedule:
            one.do(what, amount, other)
            one.look()
        one.heal()
        one.at_the_end()
        assert edge.site is not None
        edge.site.state.close()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(operations, max_size=14), st.booleans())
@example([("release", "1.0.0", ""), ("look", 14, True), ("release", "4.0.0", ""), ("kill", 3, True)], True)
@example([("release", "1.0.0", "1.0.0"), ("kill", 4, False), ("look", 9, True), ("release", "", "")], False)
def test_every_schedule_ends_at_what_is_asked_for_or_at_the_last_good_version(
    schedule: list[tuple[str, int | str, bool | str]], beside: bool
) -> None:
    play(schedule, beside=beside)
