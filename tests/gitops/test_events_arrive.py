"""From what happens at an edge to the hub's database: each event once and in order, whatever is lost or comes twice.

The agent's state and the hub's store are real; what is between them loses requests, loses answers, delivers twice and
delivers late, and the agent is killed at any action.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.courier import Letter
from agent.outbox import pending
from agent.speak import Voice, speak
from agent.wire.report import decode_report
from gitops.store.sqlite import SqliteStore
from tests.agent.simulated_site import Edge, Killed, model
from tests.gitops.lossy_line import Line, join

fates = st.sampled_from(["arrives", "lost", "answer lost", "twice", "late"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from(["1.0.0", "2.0.0", "3.0.0"])),
        st.tuples(st.just("fate"), fates),
        st.tuples(st.just("kill"), st.integers(1, 12)),
        st.tuples(st.just("reboot"), st.none()),
        st.tuples(st.just("late"), st.none()),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(steps)
def test_every_event_arrives_once_and_in_order(schedule: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore(Path(directory, "hub.sqlite"))
        join(store, "milan-01")
        edge = Edge(Path(directory, "site"), probation_s=0.4)
        line, voice, counted, left = Line(store), Voice(60_000, "test"), dict[int, int](), 0

        def strike(_: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed

        def look(received: object = None) -> None:
            nonlocal voice
            try:
                edge.look(received)  # type: ignore[arg-type]  # an overlay or nothing
                assert edge.site is not None
                for event in pending(edge.site.state):
                    counted[event.number] = event.count
                speak(edge.site, voice, line, edge.instant)  # type: ignore[arg-type]  # stands in for a courier
            except Killed:
                edge.start()
                voice = Voice(60_000, "test")
                line.forget()
            assert edge.site is not None
            for event in pending(edge.site.state):
                counted[event.number] = event.count
            line.carry()

        edge.platform.strike = strike
        edge.start()
        for what, argument in schedule:
            match what:
                case "push":
                    look(edge.release(model(version=str(argument))))
                case "fate":
                    line.fate = str(argument)
                case "kill":
                    left = int(str(argument))
                case "reboot":
                    edge.reboot()
                    voice = Voice(60_000, "test")
                    line.forget()
                case "late":
                    line.arrive_late()
            for _ in range(3):
                look()
        left, line.fate = 0, "arrives"
        for _ in range(40):
            look()
        line.arrive_late()
        arrived = [(one.event.number, one.event.count) for one in store.events("milan-01", 0, 10_000)]
        assert [number for number, _ in arrived] == list(range(1, len(arrived) + 1))
        assert dict(arrived) == counted
        assert edge.site is not None and not pending(edge.site.state)
        told = store.report("milan-01")
        assert told is not None and voice.last is not None
        assert told.report.entries == decode_report(Letter(voice.last).data()).entries
        edge.site.state.close()
        store.close()
