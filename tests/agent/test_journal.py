from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.clock import Instant
from agent.entries import drop_entries, keep_entry, read_entry
from agent.journal import (
    FAILURES_KEPT,
    PHASES,
    EntryState,
    after_boot,
    forget_entry,
    forget_failures,
    read_journal,
    write_entry,
)
from agent.state import State, StateUnreadable
from tests.agent.simulated_site import model

NOW = Instant(datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC), 60_000, "boot-2")
BEFORE = replace(NOW, boot="boot-1", uptime_ms=900_000)
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    state = State.open(tmp_path)
    one = EntryState("model", "digits", A, B, "", B, saw={"m": A}).enter("probation", NOW, boots=2, tested=True)
    one = one.with_failure(A, "EF4062", "it ended with 1", NOW)
    with state.transaction() as db:
        write_entry(db, one)
    assert read_journal(State.read(tmp_path)) == {("model", "digits"): one}
    with state.transaction() as db:
        forget_entry(db, one.key)
    assert not read_journal(state)


def test_a_damaged_row_is_said(tmp_path: Path) -> None:
    state = State.open(tmp_path)
    with state.transaction() as db:
        db.execute("INSERT INTO journal VALUES ('model', 'digits', '{}')")
    with pytest.raises(StateUnreadable, match="digits"):
        read_journal(state)


def test_failures_are_bounded_and_the_newest_stay() -> None:
    one = EntryState("model", "digits")
    for number in range(40):
        one = one.with_failure(f"sha256:{number:064}", "EF4062", "x" * 9000, replace(NOW, uptime_ms=number))
    assert len(one.failed) == FAILURES_KEPT and f"sha256:{39:064}" in one.failed
    assert all(len(failure.message) <= 500 for failure in one.failed.values())


def test_failures_are_forgotten_when_a_person_says_so(tmp_path: Path) -> None:
    state = State.open(tmp_path)
    with state.transaction() as db:
        write_entry(db, EntryState("model", "digits").with_failure(A, "EF4062", "", NOW))
    assert forget_failures(state) == 1
    assert not read_journal(state)["model", "digits"].failed


@pytest.mark.parametrize("phase", PHASES)
def test_within_one_boot_a_state_comes_back_as_it_is(phase: str) -> None:
    one = EntryState("model", "digits", A, A, "", B).enter(phase, NOW, tested=True)  # type: ignore[arg-type]  # one of PHASES
    assert after_boot(one, NOW) == one


@pytest.mark.parametrize(
    ("phase", "then", "boots"),
    [
        ("idle", "idle", 0),
        ("starting", "starting", 1),
        ("testing", "starting", 1),
        ("switching", "switching", 1),
        ("probation", "probation", 1),
        ("returning", "returning", 0),
        ("removing", "removing", 0),
    ],
)
def test_after_a_boot_what_is_not_committed_is_checked_again(phase: str, then: str, boots: int) -> None:
    one = EntryState("model", "digits", A, A, "", B).enter(phase, BEFORE, tested=True)  # type: ignore[arg-type]  # a phase
    found = after_boot(one, NOW)
    assert (found.phase, found.boots) == (then, boots)
    assert phase == "idle" or (not found.tested and found.elapsed_ms(NOW) == 0)
    assert after_boot(found, NOW) == found, "one boot counts once"


def test_a_phase_of_another_boot_has_no_age() -> None:
    assert EntryState("model", "digits").enter("testing", BEFORE).elapsed_ms(NOW) == 0


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"x", lambda data: data[:-1] + b"#"])
def test_a_kept_entry_is_whole_or_not_there(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    entry, files = model(test=True)
    keep_entry(tmp_path, entry, files)
    assert read_entry(tmp_path, entry.digest) == (entry, files)
    (kept,) = tmp_path.glob("entries/*")
    kept.write_bytes(damage(kept.read_bytes()))
    assert read_entry(tmp_path, entry.digest) is None
    keep_entry(tmp_path, entry, files)
    assert read_entry(tmp_path, entry.digest) == (entry, files)


def test_what_a_killed_writer_left_goes_with_the_entries_that_nobody_needs(tmp_path: Path) -> None:
    entry, files = model(test=True)
    keep_entry(tmp_path, entry, files)
    left = tmp_path / "entries" / f".{entry.digest.removeprefix('sha256:')}.0a1b.new"
    left.write_bytes(b"half")
    assert drop_entries(tmp_path, {entry.digest}) == ()
    assert not left.exists() and read_entry(tmp_path, entry.digest) is not None
    assert drop_entries(tmp_path, ()) == (entry.digest,)
    assert read_entry(tmp_path, entry.digest) is None
