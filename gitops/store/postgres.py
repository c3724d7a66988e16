"""The store on PostgreSQL: several hubs on one database."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from queue import Empty, LifoQueue
from typing import Any, Final, cast

import psycopg

from agent.wire.errors import Retry
from gitops.store.connection import Rows, StoreTooNew, StoreUnreadable
from gitops.store.schema import MIGRATIONS

_IDLE_KEPT: Final = 8
_KEY: Final = 0x6564_6765
"""Advisory locks: (this, 1) for writers, (this, 2) for the hub that decides."""

_OPTIONS: Final[dict[str, Any]] = {
    "application_name": "edgeferry",
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


class StoreAway(Retry):
    """The database server does not answer, or ended the connection."""

    code = "EF3155"


class PostgresDatabase:
    """One PostgreSQL database.

    Writers take turns by an advisory lock, as SQLite's do, so that counters grow in the order of commits. Readers share
    a few connections. Who decides holds a lock on a connection of its own: a killed hub loses it with the connection.

    Args:
        url: ``postgresql://…``, as libpq takes it; a password may stand in ``PGPASSWORD`` or ``PGPASSFILE``.

    Raises:
        StoreTooNew: it has a newer schema than this program knows.
        StoreUnreadable: refused, or not a database of ours.
        StoreAway: the server does not answer.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: LifoQueue[psycopg.Connection[Any]] = LifoQueue(_IDLE_KEPT)
        self._leading: psycopg.Connection[Any] | None = None
        self._lock = threading.Lock()
        self._migrate()

    def read(self) -> _Reader:
        """See ``Database``."""
        return _Reader(self)

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[_Writer]:
        """See ``Database``."""
        with self.connection() as connection, connection.transaction():
            connection.execute(f"SET LOCAL synchronous_commit = {'on' if durable else 'off'}")
            connection.execute("SELECT pg_advisory_xact_lock(%s, 1)", (_KEY,))
            yield _Writer(connection)

    def lead(self) -> bool:
        """See ``Database``."""
        with self._lock:
            try:
                if self._leading is None:
                    self._leading = self._connect()
                    row = self._leading.execute("SELECT pg_try_advisory_lock(%s, 2)", (_KEY,)).fetchone()
                    if row is None or not row[0]:
                        self._drop_lead()
                else:
                    self._leading.execute("SELECT 1")
            except (psycopg.Error, StoreAway):
                self._drop_lead()
            return self._leading is not None

    def close(self) -> None:
        """See ``Database``."""
        with self._lock:
            self._drop_lead()
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend a connection; one that broke is closed, and the fault says so.

        Raises:
            StoreAway: no server, or it ended the connection.
        """
        try:
            connection = self._idle.get_nowait()
        except Empty:
            connection = self._connect()
        try:
            yield connection
        except psycopg.OperationalError as error:
            connection.close()
            raise StoreAway(_words(error), where="database", do=_DO) from None
        except BaseException:
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.close()
            raise
        finally:
            try:
                if not connection.closed:
                    self._idle.put_nowait(connection)
            except Exception:
                connection.close()

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            return psycopg.connect(self._url, autocommit=True, **_OPTIONS)
        except psycopg.OperationalError as error:
            raise StoreAway(_words(error), where="database", do=_DO) from None
        except psycopg.Error as error:
            raise StoreUnreadable(_words(error), where="database", do="check the URL") from None

    def _drop_lead(self) -> None:
        if self._leading is not None:
            with suppress(psycopg.Error):
                self._leading.close()
            self._leading = None

    def _migrate(self) -> None:
        try:
            with self.write(durable=True) as db:
                db.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
                row = db.execute("SELECT version FROM schema_version").fetchone()
                version = row[0] if row else 0
                if version > len(MIGRATIONS):
                    raise StoreTooNew(
                        f"schema {version}, known up to {len(MIGRATIONS)}",
                        where="database",
                        do="start the newer version again, or restore the backup made before the upgrade",
                    )
                for statement in (one for step in MIGRATIONS[version:] for one in step):
                    db.execute(_dialect(statement))
                db.execute("DELETE FROM schema_version")
                db.execute("INSERT INTO schema_version (version) VALUES (?)", (len(MIGRATIONS),))
        except psycopg.Error as error:
            raise StoreUnreadable(_words(error), where="database", do="give the hub a database of its own") from None


_DO: Final = "start the database server, and check its URL; the hub tries again by itself"


class _Writer:
    """One transaction."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Rows:
        return cast(Rows, self._connection.execute(_translated(statement), parameters))

    def executemany(self, statement: str, parameters: Sequence[Sequence[Any]], /) -> None:
        self._connection.cursor().executemany(_translated(statement), parameters)


class _Reader:
    """Single statements, each on a connection that is lent for it; rows are in memory when it is given back."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Rows:
        with self._database.connection() as connection:
            return _Writer(connection).execute(statement, parameters)

    def executemany(self, statement: str, parameters: Sequence[Sequence[Any]], /) -> None:
        raise TypeError("a reader writes nothing")


@lru_cache(256)
def _translated(statement: str) -> bytes:
    return statement.replace("%", "%%").replace("?", "%s").encode()


def _dialect(statement: str) -> str:
    """Return a statement of the schema as PostgreSQL has it."""
    identity = "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"
    statement = statement.replace("INTEGER PRIMARY KEY AUTOINCREMENT", identity)
    return statement.replace("INTEGER", "BIGINT").replace("BLOB", "BYTEA")


def _words(error: psycopg.Error) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
