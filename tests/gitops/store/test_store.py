"""The store: what it keeps, once, across processes and restarts."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from agent.wire.facts import Fact
from agent.wire.report import EntryReport, Event, Report, encode_report
from gitops.store import Audit, JoinToken, PersonToken, Store, event_log
from gitops.store.connection import StoreTooNew
from gitops.store.opening import is_url
from gitops.store.postgres import _dialect
from gitops.store.schema import MIGRATIONS

Again = Callable[[], Store]
NOW = datetime(2026, 11, 24, 1, 2, 3, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64


def entry(health: str = "current", **changes: object) -> EntryReport:
    values = {"kind": "model", "name": "digits", "version": "1.0.0", "digest": DIGEST, "wanted": DIGEST, **changes}
    return EntryReport(health=health, **values)  # type: ignore[arg-type]  # a table of fields


def report(number: int = 1, incarnation: str = "i1", **changes: object) -> Report:
    return Report("f1", "milan-01", incarnation, number, NOW, **changes)  # type: ignore[arg-type]  # a table of fields


def event(number: int, kind: str = "switched") -> Event:
    return Event(number, NOW, kind, "model/digits", "1.0.0", "", "was switched", 1)


def give(store: Store, token: bytes, cluster: str = "milan-01", **more: Any) -> bytes:
    store.add_token(JoinToken(token, cluster, NOW + timedelta(hours=1), **more), "ann", NOW)
    return token


def join(store: Store, cluster: str = "milan-01", facts: tuple[Fact, ...] = ()):
    token = give(store, cluster.encode().ljust(32, b"."), cluster)
    assert store.join(token, cluster, f"ssh-ed25519 {cluster}", facts, NOW) == "joined"


def keys(store: Store) -> dict[str, str]:
    return {one.name: one.key for one in store.identities()}


def put(store: Store, one: Report, at: datetime = NOW, cluster: str = "milan-01") -> bool:
    return store.put_report(cluster, one, encode_report(one), at)


def test_a_token_is_good_once(store: Store) -> None:
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
def test_a_token_is_refused_when(store: Store, token: bytes, cluster: str, at: datetime) -> None:
    give(store, b"t")
    assert store.join(token, cluster, "key", (), at) == "refused"
    assert store.registrations() == ()


def test_of_two_joins_at_once_with_one_token_one_wins(open_again: Again, store: Store) -> None:
    give(store, b"t")
    other = open_again()
    won: list[str] = []
    start = threading.Barrier(4)

    def attempt(which: Store, n: int) -> None:
        start.wait()
        won.append(which.join(b"t", "milan-01", f"key{n}", (), NOW))

    threads = [threading.Thread(target=attempt, args=((store, other)[n % 2], n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert sorted(won) == ["joined", "refused", "refused", "refused"]


def test_another_machine_takes_a_name_only_by_a_token_that_replaces(store: Store) -> None:
    join(store)
    mark = store.registrations_mark()
    give(store, b"t2")
    assert store.join(b"t2", "milan-01", "ssh-ed25519 new", (), NOW) == "taken"
    assert keys(store) == {"milan-01": "ssh-ed25519 milan-01"} and store.registrations_mark() == mark
    give(store, b"t3", replace=True)
    assert store.join(b"t3", "milan-01", "ssh-ed25519 new", (), NOW) == "joined"
    assert keys(store) == {"milan-01": "ssh-ed25519 new"} and store.registrations_mark() > mark


def test_a_join_whose_answer_was_lost_is_done_again_by_the_same_key(store: Store) -> None:
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


def test_revoking_ends_registration_and_tokens_and_keeps_the_sequence(store: Store) -> None:
    join(store)
    give(store, b"open")
    put(store, report(sequence=7))
    assert store.revoke("milan-01", "ann", NOW)
    assert keys(store) == {}
    assert store.join(b"open", "milan-01", "key", (), NOW) == "refused"
    assert store.latest_reports() == {}
    assert store.highest_sequences() == {"milan-01": 7}
    assert not store.revoke("milan-01", "ann", NOW)
    newest = store.audits(1)[0][1]
    assert (newest.who, newest.what) == ("ann", "revoked")


def test_another_process_sees_a_revocation_by_the_mark(open_again: Again, store: Store) -> None:
    join(store)
    mark = store.registrations_mark()
    other = open_again()
    other.revoke("milan-01", "ann", NOW)
    other.close()
    assert store.registrations_mark() != mark
    assert keys(store) == {}


def test_events_arrive_exactly_once_and_in_order(store: Store) -> None:
    join(store)
    put(store, report(1, events=(event(2), event(1))))
    put(store, report(2, events=(event(1), event(2), event(3))))
    put(store, report(1, "i2", events=(event(1),)))
    kept = store.events("milan-01", 0, 100)
    assert [(one.incarnation, one.event.number) for one in kept] == [("i1", 1), ("i1", 2), ("i1", 3), ("i2", 1)]
    assert kept[0].event == event(1)
    assert store.events(None, kept[2].id, 100) == kept[3:]


def test_old_events_are_dropped_and_do_not_come_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_what_a_rollout_looks_at_counts_as_change(store: Store, changes: dict[str, object], matters: bool) -> None:
    first: dict[str, object] = {"sequence": 1, "entries": (entry(),), "facts": (Fact("arch", "amd64", NOW),)}
    join(store)
    assert put(store, report(1, **first))
    assert put(store, report(2, **(first | changes))) is matters


def test_an_older_report_of_the_same_incarnation_changes_nothing(store: Store) -> None:
    join(store)
    put(store, report(2, sequence=2))
    assert not put(store, report(1, sequence=1, events=(event(1),)))
    assert store.latest_reports()["milan-01"].report.sequence == 2
    assert len(store.events("milan-01", 0, 10)) == 1


def test_a_new_incarnation_replaces_and_the_highest_sequence_stays(store: Store) -> None:
    join(store)
    put(store, report(9, sequence=9))
    assert put(store, report(1, "i2", sequence=0))
    assert store.latest_reports()["milan-01"].report.incarnation == "i2"
    assert store.highest_sequence("milan-01") == 9
    assert store.highest_sequence("nowhere") == 0


def test_reports_and_facts_are_read_incrementally_also_from_another_process(open_again: Again, store: Store) -> None:
    join(store, facts=(Fact("arch", "amd64", NOW),))
    assert store.latest_reports() == {}
    assert store.facts() == {"milan-01": (Fact("arch", "amd64", NOW),)}
    other = open_again()
    put(other, report(1, sequence=3, facts=(Fact("arch", "arm64", NOW), Fact("a", "b", NOW))))
    other.close()
    assert store.latest_reports()["milan-01"].report.sequence == 3
    assert [fact.value for fact in store.facts()["milan-01"]] == ["b", "arm64"]


def test_everything_survives_a_restart(open_again: Again) -> None:
    store = open_again()
    join(store)
    put(store, report(1, sequence=3, entries=(entry(),), events=(event(1),)))
    store.touch("milan-01", NOW + timedelta(seconds=5))
    before = (store.registrations(), store.latest_reports(), store.facts(), store.events(None, 0, 10))
    store.close()
    store = open_again()
    assert (store.registrations(), store.latest_reports(), store.facts(), store.events(None, 0, 10)) == before
    store.close()


def test_polls_write_at_most_once_a_minute_for_a_cluster(open_again: Again, store: Store) -> None:
    join(store)
    other = open_again()

    def written() -> datetime | None:
        return other.registrations()[0].seen_at

    for second in (0, 1, 59):
        store.touch("milan-01", NOW + timedelta(seconds=second))
        store.flush()
        assert written() == NOW
    assert store.registrations()[0].seen_at == NOW + timedelta(seconds=59)
    store.touch("milan-01", NOW + timedelta(seconds=60))
    store.flush()
    assert written() == NOW + timedelta(seconds=60)


def test_people_come_and_go_and_expired_ones_are_forgotten(open_again: Again, store: Store) -> None:
    def token(n: int, hours: int = 1, made: datetime = NOW) -> PersonToken:
        return PersonToken(b"p%d" % n, f"id{n}", "ann", "viewer", made, made + timedelta(hours=hours))

    record = Audit(NOW, "ann", "login", "person/ann", "192.0.2.1")
    mark = store.people_mark()
    store.add_person(token(1), record)
    assert open_again().people() == (token(1),) and open_again().people_mark() > mark
    later = NOW + timedelta(hours=2)
    store.add_person(token(2, made=later), record)
    assert store.people() == (token(2, made=later),)
    assert store.drop_person("id2", record) and not store.drop_person("id2", record)
    assert store.people() == ()
    assert [one for _, one in store.audits(1)] == [record]


def test_audit_records_come_in_pages_and_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gitops.store.sql.AUDITS_KEPT", 5)
    for n in range(8):
        store.note(Audit(NOW, "ann", f"deed {n}", "x"))
    first = store.audits(3)
    rest = store.audits(10, before=first[-1][0])
    assert [one.what for _, one in (*first, *rest)] == [f"deed {n}" for n in (7, 6, 5, 4, 3)]


def test_one_hub_decides_and_the_next_takes_over_when_it_ends(open_again: Again, store: Store) -> None:
    other = open_again()
    assert store.lead() and store.lead()
    assert not other.lead()
    store.close()
    assert other.lead()


def test_publications_are_told_to_the_other_hubs(open_again: Again, store: Store) -> None:
    mark = store.publications_mark()
    open_again().published()
    assert store.publications_mark() > mark


def test_writers_of_several_processes_lose_nothing(open_again: Again, store: Store) -> None:
    stores = [store, open_again(), open_again()]

    def write(n: int) -> None:
        for number in range(1, 11):
            put(stores[n], report(number, events=(event(number),)), cluster=f"c{n}")

    for n in range(3):
        join(store, f"c{n}")
    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: one.report.number for name, one in store.latest_reports().items()} == {"c0": 10, "c1": 10, "c2": 10}
    assert len(store.events(None, 0, 100)) == 30


def test_a_newer_schema_is_refused(database: str, open_again: Again, store: Store) -> None:
    execute(database, "UPDATE schema_version SET version = 999")
    with pytest.raises(StoreTooNew):
        open_again()


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_every_older_schema_is_brought_forward(database: str, open_again: Again, version: int) -> None:
    credential = ", credential" if version == 1 else ", labels"
    value = f", {blob(database, b'c')}" if version == 1 else ", '{}'"
    execute(
        database,
        *(schema(database, one) for step in MIGRATIONS[:version] for one in step),
        f"INSERT INTO clusters (name, key, joined_at, seen_at{credential})"
        f" VALUES ('milan-01', 'ssh-ed25519 A', 1700000000, 1700000001{value})",
        f"INSERT INTO tokens (sha256, cluster, expires_at) VALUES ({blob(database, b't')}, 'turin-01', 4000000000)",
        "INSERT INTO sequences VALUES ('milan-01', 7)",
        schema(database, "CREATE TABLE schema_version (version INTEGER NOT NULL)"),
        f"INSERT INTO schema_version VALUES ({version})",
    )
    store = open_again()
    assert [(one.name, one.key, one.labels) for one in store.registrations()] == [("milan-01", "ssh-ed25519 A", {})]
    assert store.registrations()[0].seen_at == datetime.fromtimestamp(1700000001, UTC)
    assert store.highest_sequence("milan-01") == 7
    assert store.join(b"t", "turin-01", "key", (), NOW) == "joined"


def schema(database: str, statement: str) -> str:
    return _dialect(statement) if is_url(database) else statement


def blob(database: str, data: bytes) -> str:
    return f"'\\x{data.hex()}'::bytea" if is_url(database) else f"x'{data.hex()}'"


def execute(database: str, *statements: str) -> None:
    with psycopg.connect(database) if is_url(database) else sqlite3.connect(database) as rows:
        for statement in statements:
            rows.execute(statement)
    rows.close()
