"""``STATE/state.sqlite``: what the agent must not forget, in one small database that survives power cuts.

Write-ahead log with ``synchronous=FULL``: a transaction costs one flush of appended pages, which spares flash, and it
is durable when it returns. Nothing is written when nothing changes.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

from agent.wire.errors import Retry, Stop, Wait

DATABASE: Final = "state.sqlite"
LOCK: Final = "lock"

_MIGRATIONS: Final = (
    """
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE journal (
        kind TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (kind, name)
    ) WITHOUT ROWID;
    CREATE TABLE events (
        number INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, kind TEXT NOT NULL, object TEXT NOT NULL,
        version TEXT NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL, count INTEGER NOT NULL
    );
    """,
)


class StateInUse(Wait):
    """Another agent works on this state directory."""

    code = "EF4050"


class StateTooNew(Stop):
    """The state was written by a newer agent."""

    code = "EF4051"


class StateUnreadable(Stop):
    """The state database is damaged, or not ours."""

    code = "EF4052"


class StateNotWritten(Retry):
    """The state could not be made durable: the disk is full, read-only, or failing."""

    code = "EF4053"
    delay_s = 10.0


class State:
    """The open database. One thread uses it; other processes may read.

    Attributes:
        root: the state directory.
        incarnation: made with the database; a number of an event counts within it.
    """

    __slots__ = ("_db", "_depth", "incarnation", "root")

    def __init__(self, root: Path, db: sqlite3.Connection) -> None:
        self.root = root
        self._db = db
        self._depth = 0
        self.incarnation = self.setting("incarnation")

    @classmethod
    def open(cls, root: Path) -> Self:
        """Open for reading and writing; make it, or bring it forward, where needed.

        Raises:
            StateTooNew, StateUnreadable, StateNotWritten: see there.
        """
        path = root / DATABASE
        with _told(path):
            if not path.exists():
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            db = sqlite3.connect(path, isolation_level=None, timeout=10.0, check_same_thread=False)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA cache_size=-256")
            _migrate(db, path)
            return cls(root, db)

    @classmethod
    def read(cls, root: Path) -> Self:
        """Open for reading only, also while an agent runs; where none has run yet, all is empty.

        Raises:
            StateUnreadable: it is damaged.
            StateTooNew: see there.
        """
        path = root / DATABASE
        with _told(path):
            if path.exists():
                # Not mode=ro: a reader of a write-ahead log needs its index file, which it may have to make.
                db = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, timeout=10.0)
                db.execute("PRAGMA query_only=ON")
                if _version(db, path):
                    return cls(root, db)
                db.close()  # the first agent is just making it
            blank = sqlite3.connect(":memory:", isolation_level=None)
            _migrate(blank, path)
            blank.execute("PRAGMA query_only=ON")
            return cls(root, blank)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the database within a transaction: all of it is durable at the end, or none.

        One within another is part of the outer one.

        Raises:
            StateNotWritten, StateUnreadable: see there.
        """
        with _told(self.root / DATABASE):
            if self._depth == 0:
                self._db.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield self._db
            except BaseException:
                self._depth -= 1
                if self._depth == 0 and self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._depth -= 1
            if self._depth == 0:
                try:
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """Return what a query finds."""
        with _told(self.root / DATABASE):
            return self._db.execute(query, values).fetchall()

    def setting(self, name: str) -> str:
        """Return a named value; empty where there is none."""
        found = self.rows("SELECT value FROM settings WHERE name = ?", name)
        return str(found[0][0]) if found else ""

    def set(self, **values: str) -> None:
        """Make named values durable; what is so already is not written."""
        changed = {name: value for name, value in values.items() if self.setting(name) != value}
        if changed:
            with self.transaction() as db:
                db.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", sorted(changed.items()))


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the state directory for this process alone; the lock ends with the process, however it ends.

    Raises:
        StateInUse: another process holds it.
    """
    descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateInUse(
                "another edgeferry-agent works here", where=str(root), do="stop it first, or look with `status`"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring the schema forward, each step in one transaction."""
    for number in range(_version(db, path), len(_MIGRATIONS)):
        db.executescript(f"BEGIN IMMEDIATE; {_MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;")
    if not db.execute("SELECT 1 FROM settings WHERE name = 'incarnation'").fetchall():
        db.execute("INSERT INTO settings VALUES ('incarnation', ?)", (secrets.token_hex(16),))


def _version(db: sqlite3.Connection, path: Path) -> int:
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > len(_MIGRATIONS):
        raise StateTooNew(
            f"version {version}, this agent knows {len(_MIGRATIONS)}", where=str(path), do="install the newer agent"
        )
    return version


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise StateNotWritten(
            str(error), where=str(path), do="free space on the disk, or see whether it may be written"
        ) from error
    except sqlite3.DatabaseError as error:
        raise StateUnreadable(
            str(error), where=str(path), do="move the file away: the agent finds again what runs, and what it is to run"
        ) from error
