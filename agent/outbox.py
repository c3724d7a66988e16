"""Events until the hub has them: numbered once, durable before what they tell of counts as done, sent in order.

Beyond ``MOST_BYTES`` repeated transitions of one object fold into one event with a count, and at last the oldest make
room. What may have reached the hub already is never folded: a number means the same for ever.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from agent.journal import Key
from agent.state import State
from agent.steps import Happening
from agent.wire.fields import parse_time, write_time
from agent.wire.report import Event

MOST_BYTES: Final = 256 << 10
BATCH: Final = 500
"""So many events go into one report at most."""

_ROW_BYTES: Final = 64
_SIZE: Final = f"COALESCE(SUM({_ROW_BYTES} + LENGTH(object) + LENGTH(version) + LENGTH(message)), 0)"
_MESSAGE: Final = 500


def record(db: sqlite3.Connection, key: Key | None, happenings: Iterable[Happening], at: datetime) -> None:
    """Add events within the caller's transaction.

    Args:
        db: in a transaction.
        key: what they are about; None for the cluster.
        happenings: in order.
        at: when.
    """
    name = "" if key is None else f"{key[0]}/{key[1]}"
    rows = [(write_time(at), one.kind, name, one.version, one.code, one.message[:_MESSAGE], 1) for one in happenings]
    if not rows:
        return
    db.executemany(
        "INSERT INTO events (at, kind, object, version, code, message, count) VALUES (?, ?, ?, ?, ?, ?, ?)", rows
    )
    if _bytes(db) > MOST_BYTES:
        _fold(db)


def pending(state: State, *, newest: bool = False, most: int = BATCH) -> tuple[Event, ...]:
    """Return events that the hub has not acknowledged, in order: ``most`` of the oldest, or of the newest ones."""
    columns = "number, at, kind, object, version, code, message, count"
    order = "DESC" if newest else "ASC"
    rows = state.rows(f"SELECT {columns} FROM events ORDER BY number {order} LIMIT ?", most)  # noqa: S608  # constants
    return tuple(_event(*map(str, row)) for row in sorted(rows, key=lambda row: int(str(row[0]))))


def offered(state: State, number: int) -> None:
    """Remember that events up to ``number`` may be at the hub, before they are sent."""
    if number > int(state.setting("eventsOffered") or 0):
        state.set(eventsOffered=str(number))


def acknowledged(state: State, number: int) -> None:
    """Forget the events up to ``number``: the hub has them durably."""
    if state.rows("SELECT 1 FROM events WHERE number <= ? LIMIT 1", number):
        with state.transaction() as db:
            db.execute("DELETE FROM events WHERE number <= ?", (number,))


def _event(number: str, at: str, kind: str, name: str, version: str, code: str, message: str, count: str) -> Event:
    return Event(int(number), parse_time(at, "events"), kind, name, version, code, message, int(count))


def _bytes(db: sqlite3.Connection) -> int:
    return int(db.execute(f"SELECT {_SIZE} FROM events").fetchone()[0])  # noqa: S608  # a constant


def _fold(db: sqlite3.Connection) -> None:
    """Bring the outbox to half its bound, so that this is done rarely; the newest of equal events stays.

    Events that were offered are not touched; there are at most ``BATCH`` of them beyond the bound.
    """
    found = db.execute("SELECT value FROM settings WHERE name = 'eventsOffered'").fetchone()
    free = int(found[0]) if found else 0
    for equal in ("object, kind, version, code", "object, kind"):
        groups = db.execute(
            f"SELECT MAX(number), SUM(count), {equal} FROM events WHERE number > ? GROUP BY {equal}"  # noqa: S608  # constants
            " HAVING COUNT(*) > 1",
            (free,),
        ).fetchall()
        same = " AND ".join(f"{column} = ?" for column in equal.split(", "))
        for newest, count, *values in groups:
            db.execute("UPDATE events SET count = ? WHERE number = ?", (count, newest))
            where = f"number > ? AND number < ? AND {same}"
            db.execute(f"DELETE FROM events WHERE {where}", (free, newest, *values))  # noqa: S608  # constants
        if _bytes(db) <= MOST_BYTES // 2:
            return
    _drop_oldest(db, free)


def _drop_oldest(db: sqlite3.Connection, free: int) -> None:
    """Let the oldest go, and say how many: one event ``dropped`` under the number of the last of them."""
    rows = db.execute("SELECT number, at, count FROM events WHERE number > ? ORDER BY number", (free,)).fetchall()
    lost = 0
    for number, at, count in rows[:-1]:
        lost += count
        db.execute("DELETE FROM events WHERE number = ?", (number,))
        if _bytes(db) <= MOST_BYTES // 2 or number == rows[-2][0]:
            why = "too many events while cut off"
            db.execute("INSERT INTO events VALUES (?, ?, 'dropped', '', '', '', ?, ?)", (number, at, why, lost))
            return
