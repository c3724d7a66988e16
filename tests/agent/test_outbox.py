from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import outbox
from agent.state import State
from agent.steps import Happening
from tests.agent.simulated_site import EPOCH

KEY = ("model", "digits")


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State.open(tmp_path)


def record(
    state: State, kind: str = "repaired", version: str = "1.0.0", name: str = "digits", message: str = ""
) -> None:
    with state.transaction() as db:
        outbox.record(db, ("model", name), (Happening(kind, version, message=message),), EPOCH)


def test_events_are_numbered_from_one_on_and_a_number_is_never_used_again(state: State, tmp_path: Path) -> None:
    record(state), record(state)
    outbox.acknowledged(state, 2)
    state.close()
    again = State.open(tmp_path)
    record(again)
    assert [one.number for one in outbox.pending(again)] == [3]


def test_an_event_and_the_journal_are_durable_together_or_not_at_all(state: State) -> None:
    with pytest.raises(RuntimeError), state.transaction() as db:
        outbox.record(db, KEY, (Happening("switched"),), EPOCH)
        raise RuntimeError
    assert not outbox.pending(state)


def test_what_the_hub_acknowledged_goes_and_the_rest_stays_in_order(state: State) -> None:
    for _ in range(5):
        record(state)
    outbox.acknowledged(state, 3)
    assert [one.number for one in outbox.pending(state)] == [4, 5]


def test_a_long_time_cut_off_folds_repetitions_and_keeps_what_happened_once(state: State) -> None:
    record(state, "switched", "2.0.0")
    for _ in range(3000):
        record(state, message="its process is gone " * 5)
    events = outbox.pending(state)
    assert sum(one.count for one in events if one.kind == "repaired") == 3000
    assert [one for one in events if one.kind == "switched"] and len(events) < 3000
    assert [one.number for one in events] == sorted(one.number for one in events)


def test_what_may_be_at_the_hub_already_is_never_folded(state: State) -> None:
    for _ in range(10):
        record(state)
    outbox.offered(state, 10)
    for _ in range(3000):
        record(state, message="x" * 200)
    assert [one.count for one in outbox.pending(state) if one.number <= 10] == [1] * 10


def test_what_cannot_be_folded_makes_room_and_says_how_much(state: State) -> None:
    for number in range(2500):
        record(state, name=f"m{number}", message="y" * 300)
    size = state.rows("SELECT SUM(64 + LENGTH(object) + LENGTH(version) + LENGTH(message)) FROM events")[0][0]
    assert isinstance(size, int) and size <= outbox.MOST_BYTES
    oldest = outbox.pending(state)[0]
    assert oldest.kind == "dropped"
    assert sum(int(str(one[0])) for one in state.rows("SELECT count FROM events")) == 2500


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["1", "2"]), st.integers(0, 400)), max_size=60))
def test_no_event_is_ever_counted_twice_or_lost(
    tmp_path_factory: pytest.TempPathFactory, happenings: list[tuple[str, str, int]]
) -> None:
    state = State.open(tmp_path_factory.mktemp("outbox"))
    written, received = 0, dict[int, int]()
    for number, (name, version, repeat) in enumerate(happenings):
        with state.transaction() as db:
            many = [Happening("repaired", version, message="z" * 200)] * repeat
            outbox.record(db, ("model", name), many, EPOCH + timedelta(seconds=number))
        written += repeat
        events = outbox.pending(state)
        if number % 3 == 0 and events:
            outbox.offered(state, events[-1].number)
            for one in events:
                received.setdefault(one.number, one.count)  # the hub keeps the first of a number
            if number % 2:
                outbox.acknowledged(state, events[-1].number)
    while events := outbox.pending(state):
        outbox.offered(state, events[-1].number)
        for one in events:
            received.setdefault(one.number, one.count)
        outbox.acknowledged(state, events[-1].number)
    assert sum(received.values()) == written
    state.close()
