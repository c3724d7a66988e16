"""Tables of the store and the way from every older version to the newest one.

The statements keep to what SQLite and PostgreSQL both know; ``INTEGER``, ``BLOB`` and ids that count up are written as
SQLite has them, and translated for PostgreSQL.
Times are whole seconds since 1970, UTC.
"""

from __future__ import annotations

from typing import Final

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE clusters (
            name TEXT PRIMARY KEY,
            key TEXT NOT NULL,
            credential BLOB NOT NULL UNIQUE,
            joined_at INTEGER NOT NULL,
            seen_at INTEGER
        )""",
        """CREATE TABLE tokens (
            sha256 BLOB PRIMARY KEY,
            cluster TEXT NOT NULL,
            expires_at INTEGER NOT NULL,
            used_at INTEGER
        )""",
        """CREATE TABLE reports (
            cluster TEXT PRIMARY KEY,
            incarnation TEXT NOT NULL,
            number INTEGER NOT NULL,
            matters BLOB NOT NULL,
            raw BLOB NOT NULL,
            received_at INTEGER NOT NULL,
            change INTEGER NOT NULL
        )""",
        "CREATE UNIQUE INDEX reports_change ON reports (change)",
        """CREATE TABLE facts (
            cluster TEXT PRIMARY KEY,
            document TEXT NOT NULL,
            change INTEGER NOT NULL
        )""",
        "CREATE UNIQUE INDEX facts_change ON facts (change)",
        """CREATE TABLE sequences (
            cluster TEXT PRIMARY KEY,
            highest INTEGER NOT NULL
        )""",
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            cluster TEXT NOT NULL,
            incarnation TEXT NOT NULL,
            number INTEGER NOT NULL,
            at INTEGER NOT NULL,
            kind TEXT NOT NULL,
            object TEXT NOT NULL,
            version TEXT NOT NULL,
            code TEXT NOT NULL,
            message TEXT NOT NULL,
            count INTEGER NOT NULL,
            received_at INTEGER NOT NULL,
            UNIQUE (cluster, incarnation, number)
        )""",
        "CREATE INDEX events_cluster ON events (cluster, id)",
        """CREATE TABLE event_floors (
            cluster TEXT PRIMARY KEY,
            incarnation TEXT NOT NULL,
            number INTEGER NOT NULL
        )""",
        """CREATE TABLE audits (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at INTEGER NOT NULL,
            who TEXT NOT NULL,
            what TEXT NOT NULL,
            about TEXT NOT NULL
        )""",
        "CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
        "INSERT INTO marks (name, value) VALUES ('registrations', 0), ('changes', 0)",
    ),
    (
        """CREATE TABLE registrations (
            name TEXT PRIMARY KEY,
            key TEXT NOT NULL,
            joined_at INTEGER NOT NULL,
            seen_at INTEGER,
            labels TEXT NOT NULL
        )""",
        "INSERT INTO registrations SELECT name, key, joined_at, seen_at, '{}' FROM clusters",
        "DROP TABLE clusters",
        "ALTER TABLE registrations RENAME TO clusters",
        "ALTER TABLE tokens ADD COLUMN used_by TEXT",
        "ALTER TABLE tokens ADD COLUMN labels TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE tokens ADD COLUMN replaces INTEGER NOT NULL DEFAULT 0",
    ),
    (
        """CREATE TABLE people (
            sha256 BLOB PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            person TEXT NOT NULL,
            role TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL
        )""",
        "ALTER TABLE audits ADD COLUMN source TEXT NOT NULL DEFAULT ''",
        "INSERT INTO marks (name, value) VALUES ('publications', 0), ('people', 0)",
    ),
)
"""Version n of the database is what the first n steps make. Steps are only ever added."""
