"""Opening the store that a URL or a path names."""

from __future__ import annotations

from pathlib import Path

from agent.wire.errors import Stop
from gitops.store import Store
from gitops.store.connection import Database
from gitops.store.sql import SqlStore
from gitops.store.sqlite import SqliteDatabase


class BadStoreUrl(Stop):
    """The database is named by something that is neither a path nor a PostgreSQL URL."""

    code = "EF3156"


def is_url(database: str) -> bool:
    """Tell whether a database is on a server."""
    return database.startswith(("postgresql://", "postgres://"))


def open_store(database: str | Path) -> Store:
    """Return the store in a database, brought forward to the newest schema.

    Args:
        database: path of an SQLite file, made where absent, or ``postgresql://…``.

    Raises:
        StoreTooNew, StoreUnreadable, StoreAway: see there.
        BadStoreUrl: neither of both.
    """
    return SqlStore(open_database(database))


def open_database(database: str | Path) -> Database:
    """Return the database itself; arguments and faults as for ``open_store``."""
    text = str(database)
    if is_url(text):
        from gitops.store.postgres import PostgresDatabase  # imported here: most hubs keep a file

        return PostgresDatabase(text)
    if "://" in text:
        scheme = text.partition("://")[0]
        raise BadStoreUrl(f"{scheme[:40]!r} is no database here", do="give postgresql://…, or the path of a file")
    return SqliteDatabase(Path(text))
