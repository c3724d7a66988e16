"""The store on SQLite: no server, one file, thousands of clusters."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gitops.store.connection import StoreTooNew, StoreUnreadable
from gitops.store.schema import MIGRATIONS
from gitops.store.sql import SqlStore


class SqliteStore(SqlStore):
    """``Store`` in one SQLite file: see ``SqliteDatabase``."""

    def __init__(self, path: Path) -> None:
        super().__init__(SqliteDatabase(path))


class SqliteDatabase:
    """One SQLite file: a connection for each thread that reads, one for writing behind a lock.

    The file and its companions are readable by their owner alone. Write-ahead log, synchronous NORMAL: a power cut
    may lose the last transactions, never tears one; what is lost is reported again or joined again. Events, which
    agents forget once they are acknowledged, are written through.

    Args:
        path: of the file; made where absent, brought forward where older.

    Raises:
        StoreTooNew: it has a newer schema than this program knows.
        StoreUnreadable: not a database, or no right to open it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._lock = threading.Lock()
        self._readers: list[sqlite3.Connection] = []
        self._leading = -1
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._writer = self._connect()
            self._writer.execute("PRAGMA journal_mode = WAL")
            self._migrate()
        except (OSError, sqlite3.Error) as error:
            raise StoreUnreadable(
                f"cannot be opened: {error}", where=str(path), do="check its owner, or restore a backup"
            ) from None

    def read(self) -> sqlite3.Connection:
        """Return this thread's connection for reading."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
            with self._lock:
                self._readers.append(connection)
        return connection

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Give the connection for writing within one transaction: all of it, or nothing.

        Args:
            durable: it survives a power cut once this has returned: for what nobody says twice.
        """
        with self._lock:
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    def lead(self) -> bool:
        """Tell whether this is the hub that decides: the first that asks for this file, until it ends."""
        with self._lock:
            if self._leading < 0:
                lock = os.open(f"{self._path}.lead", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(lock)
                    return False
                self._leading = lock
            return True

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for connection in (*self._readers, self._writer):
                connection.close()
            self._readers.clear()
            if self._leading >= 0:
                os.close(self._leading)
                self._leading = -1

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _migrate(self) -> None:
        with self.write() as db:
            db.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
            row = db.execute("SELECT version FROM schema_version").fetchone()
            version = row[0] if row else 0
            if version > len(MIGRATIONS):
                raise StoreTooNew(
                    f"schema {version}, known up to {len(MIGRATIONS)}",
                    where=str(self._path),
                    do="start the newer version again, or restore the backup made before the upgrade",
                )
            for statement in (one for step in MIGRATIONS[version:] for one in step):
                db.execute(statement)
            db.execute("DELETE FROM schema_version")
            db.execute("INSERT INTO schema_version (version) VALUES (?)", (len(MIGRATIONS),))
