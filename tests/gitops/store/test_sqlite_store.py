"""The store: what it keeps, once, across processes and restarts."""

from __future__ import annotations

import sqlite3
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.wire.facts import Fact
from agent.wire.report import EntryReport, Event, Report, encode_report
from gitops.store import JoinToken, event_log
from gitops.store.database import StoreTooNew, StoreUnreadable
from gitops.store.schema import MIGRATIONS
from gitops.store.sqlite import SqliteStore

NOW = datetime(2026, 11, 24, 1, 2, 3, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64


def entry(health: str = "current", **changes: object) -> EntryReport:
    values = {"kind": "model", "name": "digits", "version": "1.0.0", "digest": DIGEST, "wanted": DIGEST, **changes}
    return EntryReport(health=health, **values)  # type: ignore[arg-type]  # a table of fields


def report(number: int = 1, incarnation: str = "i1", **changes: object) -> Report:
    return Report("f1", "milan-01", incarnation, number, NOW, **changes)  # type: ignore[arg-type]  # a table of fields


def event(number: int, kind: str = "switched") -> Event:
    return Event(number, NOW, kind, "model/digits", "1.0.0", "", "was switched", 1)


@pytest.fixture
def store(tmp_path: Path):
    store = SqliteStore(tmp_path / "hub.sqlite")
    yield store
    store.close()


def give(store: SqliteStore, token: bytes, cluster: str = "milan-01", **more: Any) -> bytes:
    store.add_token(JoinToken(token, cluster, NOW + timedelta(hours=1), **more), "ann", NOW)
    return token


def join(store: SqliteStore, cluster: str = "milan-01", facts: tuple[Fact, ...] = ()):
    token = give(store, cluster.encode().ljust(32, b"."), cluster)
    assert store.join(token, cluster, f"ssh-ed25519 {cluster}", facts, NOW) == "joined"


def keys(store: SqliteStore) -> dict[str, str]:
    return {one.name: one.key for one in store.identities()}


def put(store: SqliteStore, one: Report, at: datetime = NOW, cluster: str = "milan-01") -> bool:
    return store.put_report(cluster, one, encode_report(one), at)


def test_a_token_is_good_once(store: SqliteStore) -> None:
    give(store, b"t")
    assert store.join(b"t", "milan-01", "key", (), NOW) == "joined"
    assert store.join(b"t", "milan-01", "other", (), NOW) == "refused"
    assert keys(store) == {"milan-01": "key"}


@pytest.mark.parametrize(
    ("token", "cluster", "at"),
    [
        pytest.param(b"x", "milan-01", NOW, id="unknown"),
        pytest.param(b"t", "turin-01", NOW, id="of another cluster"),
        pytest.param(b"t", "milan-01", NOW + timedelta(hours=1), id="expired"),
    ],
)
def test_a_token_is_refused_when(store: SqliteStore, token: bytes, cluster: str, at: datetime) -> None:
    give(store, b"t")
    assert store.join(token, cluster, "key", (), at) == "refused"
    assert store.registrations() == ()


def test_of_two_joins_at_once_with_one_token_one_wins(tmp_path: Path, store: SqliteStore) -> None:
    give(store, b"t")
    other = SqliteStore(tmp_path / "hub.sqlite")
    won: list[str] = []
    start = threading.Barrier(4)

    def attempt(which: SqliteStore, n: int) -> None:
        start.wait()
        won.append(which.join(b"t", "milan-01", f"key{n}", (), NOW))

    threads = [threading.Thread(target=attempt, args=((store, other)[n % 2], n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert sorted(won) == ["joined", "refused", "refused", "refused"]


def test_another_machine_takes_a_name_only_by_a_token_that_replaces(store: SqliteStore) -> None:
    join(store)
    mark = store.registrations_mark()
    give(store, b"t2")
    assert store.join(b"t2", "milan-01", "ssh-ed25519 new", (), NOW) == "taken"
    assert keys(store) == {"milan-01": "ssh-ed25519 milan-01"} and store.registrations_mark() == mark
    give(store, b"t3", replace=True)
    assert store.join(b"t3", "milan-01", "ssh-ed25519 new", (), NOW) == "joined"
    assert keys(store) == {"milan-01": "ssh-ed25519 new"} and store.registrations_mark() > mark


def test_a_join_whose_answer_was_lost_is_done_again_by_the_same_key(store: SqliteStore) -> None:
    give(store, b"t", labels={"country": "it"})
    for _ in range(2):
        assert store.join(b"t", "milan-01", "key", (), NOW, proven=True) == "joined"
    assert store.join(b"t", "milan-01", "key", (), NOW) == "refused"
    assert [one.labels for one in store.registrations()] == [{"country": "it"}]
    give(store, b"t2", replace=True)
    assert store.join(b"t2", "milan-01", "other", (), NOW) == "joined"
    assert store.join(b"t", "milan-01", "key", (), NOW, proven=True) == "taken"
    store.revoke("milan-01", "ann", NOW)
    assert store.join(b"t2", "milan-01", "other", (), NOW, proven=True) == "refused"


def test_revoking_ends_registration_and_tokens_and_keeps_the_sequence(store: SqliteStore) -> None:
    join(store)
    give(store, b"open")
    put(store, report(sequence=7))
    assert store.revoke("milan-01", "ann", NOW)
    assert keys(store) == {}
    assert store.join(b"open", "milan-01", "key", (), NOW) == "refused"
    assert store.latest_reports() == {}
    assert store.highest_sequences() == {"milan-01": 7}
    assert not store.revoke("milan-01", "ann", NOW)
    newest = store.audits(1)[0]
    assert (newest.who, newest.what) == ("ann", "revoked")


def test_another_process_sees_a_revocation_by_the_mark(tmp_path: Path, store: SqliteStore) -> None:
    join(store)
    mark = store.registrations_mark()
    other = SqliteStore(tmp_path / "hub.sqlite")
    other.revoke("milan-01", "ann", NOW)
    other.close()
    assert store.registrations_mark() != mark
    assert keys(store) == {}


def test_events_arrive_exactly_once_and_in_order(store: SqliteStore) -> None:
    join(store)
    put(store, report(1, events=(event(2), event(1))))
    put(store, report(2, events=(event(1), event(2), event(3))))
    put(store, report(1, "i2", events=(event(1),)))
    kept = store.events("milan-01", 0, 100)
    assert [(one.incarnation, one.event.number) for one in kept] == [("i1", 1), ("i1", 2), ("i1", 3), ("i2", 1)]
    assert kept[0].event == event(1)
    assert store.events(None, kept[2].id, 100) == kept[3:]


def test_old_events_are_dropped_and_do_not_come_back(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "EVENTS_KEPT", 3)
    join(store)
    everything = tuple(event(number) for number in range(1, 6))
    put(store, report(1, events=everything))
    put(store, report(2, events=everything))
    assert [one.event.number for one in store.events("milan-01", 0, 100)] == [3, 4, 5]


@pytest.mark.parametrize(
    ("changes", "matters"),
    [
        ({"sequence": 2}, True),
        ({"entries": (entry("degraded"),)}, True),
        ({"entries": (entry(digest="sha256:" + "b" * 64),)}, True),
        ({"entries": (entry(healthy_since=NOW),)}, True),
        ({"facts": (Fact("arch", "arm64", NOW),)}, True),
        ({"fault_code": "EF2004"}, True),
        ({"entries": (entry(message="still well"),)}, False),
        ({"entries": (entry(staged_bytes=7),)}, False),
        ({"facts": (Fact("arch", "amd64", NOW + timedelta(hours=1)),)}, False),
        ({"events": (event(1),)}, False),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_rollout_looks_at_counts_as_change(
    store: SqliteStore, changes: dict[str, object], matters: bool
) -> None:
    first: dict[str, object] = {"sequence": 1, "entries": (entry(),), "facts": (Fact("arch", "amd64", NOW),)}
    join(store)
    assert put(store, report(1, **first))
    assert put(store, report(2, **(first | changes))) is matters


def test_an_older_report_of_the_same_incarnation_changes_nothing(store: SqliteStore) -> None:
    join(store)
    put(store, report(2, sequence=2))
    assert not put(store, report(1, sequence=1, events=(event(1),)))
    assert store.latest_reports()["milan-01"].report.sequence == 2
    assert len(store.events("milan-01", 0, 10)) == 1


def test_a_new_incarnation_replaces_and_the_highest_sequence_stays(store: SqliteStore) -> None:
    join(store)
    put(store, report(9, sequence=9))
    assert put(store, report(1, "i2", sequence=0))
    assert store.latest_reports()["milan-01"].report.incarnation == "i2"
    assert store.highest_sequence("milan-01") == 9
    assert store.highest_sequence("nowhere") == 0


def test_reports_and_facts_are_read_incrementally_also_from_another_process(tmp_path: Path, store: SqliteStore) -> None:
    join(store, facts=(Fact("arch", "amd64", NOW),))
    assert store.latest_reports() == {}
    assert store.facts() == {"milan-01": (Fact("arch", "amd64", NOW),)}
    other = SqliteStore(tmp_path / "hub.sqlite")
    put(other, report(1, sequence=3, facts=(Fact("arch", "arm64", NOW), Fact("a", "b", NOW))))
    other.close()
    assert store.latest_reports()["milan-01"].report.sequence == 3
    assert [fact.value for fact in store.facts()["milan-01"]] == ["b", "arm64"]


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "hub.sqlite")
    join(store)
    put(store, report(1, sequence=3, entries=(entry(),), events=(event(1),)))
    store.touch("milan-01", NOW + timedelta(seconds=5))
    before = (store.registrations(), store.latest_reports(), store.facts(), store.events(None, 0, 10))
    store.close()
    store = SqliteStore(tmp_path / "hub.sqlite")
    assert (store.registrations(), store.latest_reports(), store.facts(), store.events(None, 0, 10)) == before
    store.close()


def test_polls_write_at_most_once_a_minute_for_a_cluster(tmp_path: Path, store: SqliteStore) -> None:
    join(store)
    rows = sqlite3.connect(tmp_path / "hub.sqlite")

    def written() -> int | None:
        return rows.execute("SELECT seen_at FROM clusters").fetchone()[0]

    seconds = int(NOW.timestamp())
    for second in (0, 1, 59):
        store.touch("milan-01", NOW + timedelta(seconds=second))
        store.flush()
        assert written() == seconds
    assert store.registrations()[0].seen_at == NOW + timedelta(seconds=59)
    store.touch("milan-01", NOW + timedelta(seconds=60))
    store.flush()
    assert written() == seconds + 60
    rows.close()


def test_the_file_is_readable_by_its_owner_alone(tmp_path: Path, store: SqliteStore) -> None:
    join(store)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_database_of_the_first_schema_is_brought_forward(tmp_path: Path) -> None:
    rows = sqlite3.connect(tmp_path / "hub.sqlite")
    for statement in MIGRATIONS[0]:
        rows.execute(statement)
    rows.execute("INSERT INTO clusters VALUES ('milan-01', 'ssh-ed25519 A', x'63', 1700000000, 1700000001)")
    rows.execute("INSERT INTO tokens (sha256, cluster, expires_at) VALUES (x'74', 'turin-01', 4000000000)")
    rows.execute("CREATE TABLE schema_version (version INTEGER NOT NULL)")
    rows.execute("INSERT INTO schema_version VALUES (1)")
    rows.commit()
    rows.close()
    store = SqliteStore(tmp_path / "hub.sqlite")
    assert [(one.name, one.key, one.labels) for one in store.registrations()] == [("milan-01", "ssh-ed25519 A", {})]
    assert store.registrations()[0].seen_at == datetime.fromtimestamp(1700000001, UTC)
    assert store.join(b"t", "turin-01", "key", (), NOW) == "joined"
    store.close()


def test_a_newer_schema_is_refused(tmp_path: Path, store: SqliteStore) -> None:
    rows = sqlite3.connect(tmp_path / "hub.sqlite")
    rows.execute("UPDATE schema_version SET version = 999")
    rows.commit()
    rows.close()
    with pytest.raises(StoreTooNew):
        SqliteStore(tmp_path / "hub.sqlite")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hub.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreUnreadable):
        SqliteStore(tmp_path / "hub.sqlite")
