"""The store in SQL: the same statements for SQLite and PostgreSQL."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from agent.wire.canonical import canonical
from agent.wire.facts import Fact, decode_fact, encode_fact
from agent.wire.fields import Fields
from agent.wire.report import Report, decode_report
from gitops.store import Audit, Identity, Joined, JoinToken, PersonToken, Registration, StoredEvent, StoredReport
from gitops.store.connection import Connection, Database
from gitops.store.event_log import put_events, read_events, read_newest_events
from gitops.store.matters import what_matters

_MOST: Final = 2**63 - 1

AUDITS_KEPT: Final = 100_000
"""The newest."""

SEEN_EVERY_S: Final = 60
"""A cluster's ``seen_at`` is written at most so often."""


class SqlStore:
    """``Store`` in a database.

    Args:
        database: opened and brought forward; closed with this.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._lock = threading.Lock()
        self._closed = False
        self._seen: dict[str, int] = {}
        self._seen_written: dict[str, int] = {}
        self._reports: dict[str, StoredReport] = {}
        self._reports_change = 0
        self._facts: dict[str, tuple[Fact, ...]] = {}
        self._facts_change = 0

    def registrations(self) -> tuple[Registration, ...]:
        """See ``Store``."""
        rows = self._db.read().execute("SELECT name, key, joined_at, seen_at, labels FROM clusters ORDER BY name")
        return tuple(self._registration(*row) for row in rows)

    def registration(self, cluster: str) -> Registration | None:
        """See ``Store``."""
        row = (
            self._db.read()
            .execute("SELECT name, key, joined_at, seen_at, labels FROM clusters WHERE name = ?", (cluster,))
            .fetchone()
        )
        return None if row is None else self._registration(*row)

    def registrations_mark(self) -> int:
        """See ``Store``."""
        return self._value("registrations")

    def identities(self) -> tuple[Identity, ...]:
        """See ``Store``."""
        return tuple(Identity(*row) for row in self._db.read().execute("SELECT name, key FROM clusters"))

    def add_token(self, token: JoinToken, by: str, now: datetime) -> None:
        """See ``Store``."""
        with self._db.write() as db:
            db.execute("DELETE FROM tokens WHERE expires_at <= ?", (_seconds(now),))
            db.execute(
                "INSERT INTO tokens (sha256, cluster, expires_at, labels, replaces) VALUES (?, ?, ?, ?, ?)",
                (
                    token.sha256,
                    token.cluster,
                    _seconds(token.expires_at),
                    json.dumps(dict(token.labels), sort_keys=True),
                    int(token.replace),
                ),
            )
            _audit(db, Audit(now, by, "token", f"cluster/{token.cluster}"))

    def join(
        self,
        token_sha256: bytes,
        cluster: str,
        key: str,
        facts: tuple[Fact, ...],
        now: datetime,
        *,
        proven: bool = False,
    ) -> Joined:
        """See ``Store``."""
        with self._db.write() as db:
            found = db.execute(
                "SELECT labels, replaces, used_by FROM tokens WHERE sha256 = ? AND cluster = ? AND expires_at > ?",
                (token_sha256, cluster, _seconds(now)),
            ).fetchone()
            if found is None or (found[2] is not None and not (proven and found[2] == key)):
                return "refused"
            known = db.execute("SELECT key FROM clusters WHERE name = ?", (cluster,)).fetchone()
            if known is not None and known[0] != key and not found[1]:
                return "taken"
            if found[2] is not None and (known is None or known[0] != key):
                return "refused"  # revoked or replaced since: the same token does not bring it back
            db.execute(
                "UPDATE tokens SET used_at = ?, used_by = ? WHERE sha256 = ?", (_seconds(now), key, token_sha256)
            )
            db.execute(
                "INSERT INTO clusters (name, key, joined_at, labels) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO"
                " UPDATE SET key = excluded.key, joined_at = excluded.joined_at, labels = excluded.labels",
                (cluster, key, _seconds(now), found[0]),
            )
            if facts:
                _put_facts(db, cluster, facts)
            _mark(db, "registrations")
            _audit(db, Audit(now, f"cluster/{cluster}", "joined", f"cluster/{cluster}"))
        return "joined"

    def revoke(self, cluster: str, by: str, now: datetime) -> bool:
        """See ``Store``."""
        with self._db.write() as db:
            found = db.execute("DELETE FROM clusters WHERE name = ?", (cluster,)).rowcount == 1
            tokens = db.execute("DELETE FROM tokens WHERE cluster = ?", (cluster,)).rowcount
            if found or tokens:
                _mark(db, "registrations")
                _audit(db, Audit(now, by, "revoked", f"cluster/{cluster}"))
        return found

    def touch(self, cluster: str, now: datetime) -> None:
        """See ``Store``."""
        self._seen[cluster] = int(now.timestamp())

    def flush(self) -> None:
        """See ``Store``."""
        with self._lock:
            due = [
                (at, cluster)
                for cluster, at in tuple(self._seen.items())
                if at - self._seen_written.get(cluster, 0) >= SEEN_EVERY_S
            ]
            self._write_seen(due)

    def put_report(self, cluster: str, report: Report, raw: bytes, received_at: datetime) -> bool:
        """See ``Store``."""
        matters, at = what_matters(report), _seconds(received_at)
        with self._db.write(durable=bool(report.events)) as db:
            put_events(db, cluster, report, at)
            row = db.execute(
                "SELECT incarnation, number, matters FROM reports WHERE cluster = ?", (cluster,)
            ).fetchone()
            if row is not None and row[0] == report.incarnation and report.number <= row[1]:
                return False
            db.execute(
                "INSERT INTO reports (cluster, incarnation, number, matters, raw, received_at, change)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (cluster) DO UPDATE SET incarnation = excluded.incarnation,"
                " number = excluded.number, matters = excluded.matters, raw = excluded.raw,"
                " received_at = excluded.received_at, change = excluded.change",
                (cluster, report.incarnation, report.number, matters, raw, at, _next_change(db)),
            )
            db.execute(
                "INSERT INTO sequences (cluster, highest) VALUES (?, ?) ON CONFLICT (cluster) DO UPDATE"
                " SET highest = excluded.highest WHERE excluded.highest > sequences.highest",
                (cluster, report.sequence),
            )
            if report.facts:
                _put_facts(db, cluster, report.facts)
            return row is None or row[2] != matters

    def latest_reports(self) -> Mapping[str, StoredReport]:
        """See ``Store``."""
        with self._lock:
            db = self._db.read()
            rows = db.execute(
                "SELECT cluster, raw, received_at, change FROM reports WHERE change > ? ORDER BY change",
                (self._reports_change,),
            )
            for cluster, raw, received_at, change in rows:
                self._reports[cluster] = StoredReport(decode_report(raw, f"report of {cluster}"), _time(received_at))
                self._reports_change = change
            return _of_registered(db, self._reports)

    def report(self, cluster: str) -> StoredReport | None:
        """See ``Store``."""
        row = self._db.read().execute("SELECT raw, received_at FROM reports WHERE cluster = ?", (cluster,)).fetchone()
        return None if row is None else StoredReport(decode_report(row[0], f"report of {cluster}"), _time(row[1]))

    def facts(self) -> Mapping[str, tuple[Fact, ...]]:
        """See ``Store``."""
        with self._lock:
            db = self._db.read()
            rows = db.execute(
                "SELECT cluster, document, change FROM facts WHERE change > ? ORDER BY change", (self._facts_change,)
            )
            for cluster, document, change in rows:
                self._facts[cluster] = Fields.parse(document.encode(), f"facts of {cluster}").each("facts", decode_fact)
                self._facts_change = change
            return _of_registered(db, self._facts)

    def highest_sequences(self) -> Mapping[str, int]:
        """See ``Store``."""
        return dict(self._db.read().execute("SELECT cluster, highest FROM sequences ORDER BY cluster").fetchall())

    def highest_sequence(self, cluster: str) -> int:
        """See ``Store``."""
        row = self._db.read().execute("SELECT highest FROM sequences WHERE cluster = ?", (cluster,)).fetchone()
        return 0 if row is None else int(row[0])

    def events(self, cluster: str | None, after: int, limit: int) -> tuple[StoredEvent, ...]:
        """See ``Store``."""
        return read_events(self._db.read(), cluster, after, limit)

    def newest_events(self, cluster: str | None, limit: int) -> tuple[StoredEvent, ...]:
        """See ``Store``."""
        return read_newest_events(self._db.read(), cluster, limit)

    def add_person(self, token: PersonToken, audit: Audit) -> None:
        """See ``Store``."""
        with self._db.write(durable=True) as db:
            db.execute("DELETE FROM people WHERE expires_at <= ?", (_seconds(token.created_at),))
            times = _seconds(token.created_at), _seconds(token.expires_at)
            db.execute(
                "INSERT INTO people (sha256, id, person, role, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
                (token.sha256, token.id, token.person, token.role, *times),
            )
            _mark(db, "people")
            _audit(db, audit)

    def drop_person(self, id_: str, audit: Audit) -> bool:
        """See ``Store``."""
        with self._db.write(durable=True) as db:
            found = db.execute("DELETE FROM people WHERE id = ?", (id_,)).rowcount == 1
            if found:
                _mark(db, "people")
                _audit(db, audit)
        return found

    def people(self) -> tuple[PersonToken, ...]:
        """See ``Store``."""
        rows = self._db.read().execute(
            "SELECT sha256, id, person, role, created_at, expires_at FROM people ORDER BY person, created_at, id"
        )
        return tuple(
            PersonToken(sha256, id_, person, role, _time(made), _time(ends))
            for sha256, id_, person, role, made, ends in rows
        )

    def people_mark(self) -> int:
        """See ``Store``."""
        return self._value("people")

    def lead(self) -> bool:
        """See ``Store``."""
        return self._db.lead()

    def published(self) -> None:
        """See ``Store``."""
        with self._db.write() as db:
            _mark(db, "publications")

    def publications_mark(self) -> int:
        """See ``Store``."""
        return self._value("publications")

    def note(self, audit: Audit) -> None:
        """See ``Store``."""
        with self._db.write(durable=True) as db:
            _audit(db, audit)

    def audits(self, limit: int, before: int | None = None) -> tuple[tuple[int, Audit], ...]:
        """See ``Store``."""
        rows = self._db.read().execute(
            "SELECT id, at, who, what, about, source FROM audits WHERE id < ? ORDER BY id DESC LIMIT ?",
            (_MOST if before is None else before, limit),
        )
        return tuple((id_, Audit(_time(at), *texts)) for id_, at, *texts in rows)

    def close(self) -> None:
        """See ``Store``."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._write_seen([(at, cluster) for cluster, at in self._seen.items()])
            finally:
                self._db.close()

    def _value(self, mark: str) -> int:
        row = self._db.read().execute("SELECT value FROM marks WHERE name = ?", (mark,)).fetchone()
        return int(row[0])

    def _write_seen(self, due: list[tuple[int, str]]) -> None:
        if due:
            with self._db.write() as db:
                db.executemany(
                    "UPDATE clusters SET seen_at = ? WHERE name = ? AND coalesce(seen_at, 0) < ?",
                    [(at, cluster, at) for at, cluster in due],
                )
            self._seen_written.update((cluster, at) for at, cluster in due)

    def _registration(self, name: str, key: str, joined_at: int, seen_at: int | None, labels: str) -> Registration:
        seen = max(self._seen.get(name, 0), seen_at or 0)
        return Registration(name, key, _time(joined_at), _time(seen) if seen else None, json.loads(labels))


def _put_facts(db: Connection, cluster: str, facts: tuple[Fact, ...]) -> None:
    # One row a cluster: the facts of 10,000 clusters are read only where they changed.
    document = canonical({"facts": [encode_fact(fact) for fact in sorted(facts, key=lambda one: one.name)]}).decode()
    row = db.execute("SELECT document FROM facts WHERE cluster = ?", (cluster,)).fetchone()
    if row is None or row[0] != document:
        db.execute(
            "INSERT INTO facts (cluster, document, change) VALUES (?, ?, ?) ON CONFLICT (cluster) DO UPDATE"
            " SET document = excluded.document, change = excluded.change",
            (cluster, document, _next_change(db)),
        )


def _next_change(db: Connection) -> int:
    db.execute("UPDATE marks SET value = value + 1 WHERE name = 'changes'")
    return int(db.execute("SELECT value FROM marks WHERE name = 'changes'").fetchone()[0])


def _mark(db: Connection, name: str) -> None:
    db.execute("UPDATE marks SET value = value + 1 WHERE name = ?", (name,))


def _audit(db: Connection, audit: Audit) -> None:
    db.execute(
        "INSERT INTO audits (at, who, what, about, source) VALUES (?, ?, ?, ?, ?)",
        (_seconds(audit.at), audit.who, audit.what, audit.about, audit.source),
    )
    newest = db.execute("SELECT max(id) FROM audits").fetchone()[0]
    db.execute("DELETE FROM audits WHERE id <= ?", (newest - AUDITS_KEPT,))


def _of_registered(db: Connection, values: Mapping[str, Any]) -> dict[str, Any]:
    names = [name for (name,) in db.execute("SELECT name FROM clusters ORDER BY name")]
    return {name: values[name] for name in names if name in values}


def _seconds(time: datetime) -> int:
    return int(time.timestamp())


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
