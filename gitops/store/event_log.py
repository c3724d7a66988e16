"""Events in the store: each transition exactly once, and no more of them than are worth keeping."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from agent.wire.report import Event, Report
from gitops.store import StoredEvent
from gitops.store.connection import Connection, Rows

EVENTS_KEPT: Final = 10_000
"""Of each cluster, the newest."""

_COLUMNS: Final = "id, cluster, incarnation, received_at, number, at, kind, object, version, code, message, count"
_OF_ALL: Final = f"SELECT {_COLUMNS} FROM events WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608  # constants
_OF_ONE: Final = f"SELECT {_COLUMNS} FROM events WHERE cluster = ? AND id > ? ORDER BY id LIMIT ?"  # noqa: S608  # same
_NEWEST: Final = f"SELECT {_COLUMNS} FROM events WHERE cluster = ? ORDER BY id DESC LIMIT ?"  # noqa: S608  # same

_NEWEST_OF_ALL: Final = f"SELECT {_COLUMNS} FROM events ORDER BY id DESC LIMIT ?"  # noqa: S608  # same


def put_events(db: Connection, cluster: str, report: Report, received_at: int) -> None:
    """Add the events of a report that are not there yet, and drop the oldest beyond ``EVENTS_KEPT``."""
    if not report.events:
        return
    floor = db.execute("SELECT incarnation, number FROM event_floors WHERE cluster = ?", (cluster,)).fetchone()
    least = floor[1] if floor is not None and floor[0] == report.incarnation else -1
    db.executemany(
        "INSERT INTO events"
        " (cluster, incarnation, received_at, number, at, kind, object, version, code, message, count)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (cluster, incarnation, number) DO NOTHING",
        [
            (cluster, report.incarnation, received_at, one.number, int(one.at.timestamp()), *_texts(one), one.count)
            for one in sorted(report.events, key=lambda one: one.number)
            if one.number > least
        ],
    )
    oldest_kept = db.execute(
        "SELECT id FROM events WHERE cluster = ? ORDER BY id DESC LIMIT 1 OFFSET ?", (cluster, EVENTS_KEPT - 1)
    ).fetchone()
    if oldest_kept is None:
        return
    dropped = db.execute(
        "SELECT max(number) FROM events WHERE cluster = ? AND id < ? AND incarnation = ?",
        (cluster, oldest_kept[0], report.incarnation),
    ).fetchone()
    db.execute("DELETE FROM events WHERE cluster = ? AND id < ?", (cluster, oldest_kept[0]))
    if dropped[0] is not None:
        # What was dropped must not come in a second time when the agent sends it again.
        db.execute(
            "INSERT INTO event_floors (cluster, incarnation, number) VALUES (?, ?, ?) ON CONFLICT (cluster) DO UPDATE"
            " SET incarnation = excluded.incarnation, number = excluded.number",
            (cluster, report.incarnation, dropped[0]),
        )


def read_events(db: Connection, cluster: str | None, after: int, limit: int) -> tuple[StoredEvent, ...]:
    """Return events with an id above ``after``, oldest first; of all clusters for None."""
    return _events(
        db.execute(_OF_ALL, (after, limit)) if cluster is None else db.execute(_OF_ONE, (cluster, after, limit))
    )


def read_newest_events(db: Connection, cluster: str | None, limit: int) -> tuple[StoredEvent, ...]:
    """Return the newest events of a cluster, or of all for None, oldest first."""
    if cluster is None:
        return _events(db.execute(_NEWEST_OF_ALL, (limit,)))[::-1]
    return _events(db.execute(_NEWEST, (cluster, limit)))[::-1]


def _events(rows: Rows) -> tuple[StoredEvent, ...]:
    return tuple(
        StoredEvent(id_, name, incarnation, Event(number, _time(at), *rest), _time(received_at))
        for id_, name, incarnation, received_at, number, at, *rest in rows
    )


def _texts(event: Event) -> tuple[str, str, str, str, str]:
    return event.kind, event.object, event.version, event.code, event.message


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
