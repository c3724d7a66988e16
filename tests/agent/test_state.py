from __future__ import annotations

import multiprocessing
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from agent.clock import STEADY_MS, Clock
from agent.state import State, StateInUse, StateNotWritten, StateTooNew, StateUnreadable, locked
from tests.agent.simulated_site import EPOCH


def test_the_incarnation_lasts_as_long_as_the_database(tmp_path: Path) -> None:
    first = State.open(tmp_path)
    first.close()
    again = State.open(tmp_path)
    assert again.incarnation == first.incarnation != ""
    again.close()
    for path in tmp_path.glob("state.sqlite*"):
        path.unlink()
    assert State.open(tmp_path).incarnation != first.incarnation


def test_the_database_is_for_its_owner_only(tmp_path: Path) -> None:
    State.open(tmp_path)
    assert (tmp_path / "state.sqlite").stat().st_mode & 0o077 == 0


def test_a_value_that_is_so_already_is_not_written(tmp_path: Path) -> None:
    state = State.open(tmp_path)
    state.set(one="1")
    before = state.rows("PRAGMA data_version"), (tmp_path / "state.sqlite-wal").stat().st_size
    state.set(one="1")
    assert (state.rows("PRAGMA data_version"), (tmp_path / "state.sqlite-wal").stat().st_size) == before


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    state = State.open(tmp_path)
    with pytest.raises(RuntimeError), state.transaction():
        state.set(one="1")
        raise RuntimeError
    assert state.setting("one") == ""
    with state.transaction():
        state.set(one="1")
    assert state.setting("one") == "1"


def test_a_reader_sees_what_is_durable_while_the_agent_runs_and_cannot_write(tmp_path: Path) -> None:
    state = State.open(tmp_path)
    state.set(one="1")
    reader = State.read(tmp_path)
    assert reader.setting("one") == "1"
    with pytest.raises(StateNotWritten):
        reader.set(one="2")


def test_a_reader_where_no_agent_ran_finds_nothing_and_makes_nothing(tmp_path: Path) -> None:
    assert State.read(tmp_path).setting("release") == ""
    assert not list(tmp_path.iterdir())


def test_a_reader_finds_nothing_while_the_first_agent_is_just_making_the_database(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "state.sqlite").close()
    (tmp_path / "state.sqlite").touch()
    assert State.read(tmp_path).setting("release") == ""


def test_a_state_of_a_newer_agent_is_left_alone(tmp_path: Path) -> None:
    State.open(tmp_path).close()
    with sqlite3.connect(tmp_path / "state.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StateTooNew, match="99"):
        State.open(tmp_path)


def test_a_damaged_database_is_said_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").write_bytes(b"this is no database, and it is long enough to be told from one" * 9)
    before = (tmp_path / "state.sqlite").read_bytes()
    with pytest.raises(StateUnreadable):
        State.open(tmp_path)
    assert (tmp_path / "state.sqlite").read_bytes() == before


def _hold(root: Path, ready: object, done: object) -> None:
    with locked(root):
        ready.set()  # type: ignore[attr-defined]  # an event of multiprocessing
        done.wait(30)  # type: ignore[attr-defined]  # same


def test_two_agents_never_share_a_state_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, done), daemon=True)
    other.start()
    assert ready.wait(30)
    with pytest.raises(StateInUse), locked(tmp_path):
        pass
    other.kill()
    other.join()
    with locked(tmp_path):
        pass


def test_a_clock_below_the_floor_counts_as_the_floor_and_is_not_trusted(tmp_path: Path) -> None:
    clock = Clock(State.open(tmp_path))
    clock.published(EPOCH)
    early = clock.instant(EPOCH - timedelta(days=400), 1000, "b")
    assert early.now == EPOCH and not early.trusted
    later = clock.instant(EPOCH + timedelta(days=1), 2000, "b")
    assert later.now == EPOCH + timedelta(days=1) and later.trusted


def test_the_floor_outlives_the_agent(tmp_path: Path) -> None:
    state = State.open(tmp_path)
    clock = Clock(state)
    for step in range(3):
        clock.instant(EPOCH + timedelta(milliseconds=step * STEADY_MS), step * STEADY_MS, "b")
    state.close()
    assert Clock(State.open(tmp_path)).floor == EPOCH + timedelta(milliseconds=2 * STEADY_MS)


def test_a_clock_that_jumps_ahead_and_back_leaves_no_floor_behind(tmp_path: Path) -> None:
    clock = Clock(State.open(tmp_path))
    clock.instant(EPOCH, 0, "b")
    assert clock.instant(EPOCH + timedelta(days=30_000), 1000, "b").trusted
    back = clock.instant(EPOCH + timedelta(seconds=2), 2000, "b")
    assert back.trusted and back.now == EPOCH + timedelta(seconds=2)


def test_a_floor_left_by_a_clock_that_was_wrong_for_long_gives_way_to_a_steady_one(tmp_path: Path) -> None:
    clock = Clock(State.open(tmp_path))
    clock.published(EPOCH)
    wrong = EPOCH + timedelta(days=9000)
    clock.instant(wrong, 0, "b")
    clock.instant(wrong + timedelta(milliseconds=STEADY_MS), STEADY_MS, "b")
    right = EPOCH + timedelta(days=1)
    assert not clock.instant(right, STEADY_MS + 1000, "b").trusted
    assert clock.instant(right + timedelta(milliseconds=STEADY_MS), 2 * STEADY_MS + 1000, "b").trusted
