"""The whole content of a store as lines of JSON, the same from either database, and back into either.

The first line tells the schema; each further one is a row: table, then its values. Bytes are ``{"b": base64}``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from agent.wire.errors import Stop
from gitops.store.connection import Database
from gitops.store.schema import MIGRATIONS

FORMAT: Final = 1
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "clusters": ("name", "key", "joined_at", "seen_at", "labels"),
    "tokens": ("sha256", "cluster", "expires_at", "used_at", "used_by", "labels", "replaces"),
    "reports": ("cluster", "incarnation", "number", "matters", "raw", "received_at", "change"),
    "facts": ("cluster", "document", "change"),
    "sequences": ("cluster", "highest"),
    "events": (
        *("cluster", "incarnation", "number", "at", "kind", "object", "version", "code", "message", "count"),
        "received_at",
    ),
    "event_floors": ("cluster", "incarnation", "number"),
    "audits": ("at", "who", "what", "about", "source"),
    "marks": ("name", "value"),
    "people": ("sha256", "id", "person", "role", "created_at", "expires_at"),
}
"""Tables of the newest schema. Ids that count up are given anew, in the old order."""

_ORDERED: Final = {"events", "audits"}


class BadDump(Stop):
    """The file is no backup of a hub, is damaged, or was made by a newer version."""

    code = "EF3157"


def dump(database: Database) -> Iterator[bytes]:
    """Give the lines of a store as it is now."""
    yield _line({"format": FORMAT, "schema": len(MIGRATIONS)})
    for table, columns in COLUMNS.items():
        order = "id" if table in _ORDERED else columns[0]
        statement = f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}"  # noqa: S608  # constants
        for row in database.read().execute(statement):
            yield _line([table, *map(_written, row)])


def load(database: Database, lines: Iterable[bytes]) -> int:
    """Put the lines of a dump in place of what a store holds, all or nothing; return the number of rows.

    Raises:
        BadDump: see there; the store is as it was.
    """
    rows = iter(lines)
    try:
        head = json.loads(next(rows, b"null"))
        if not isinstance(head, dict) or head.get("format") != FORMAT or head.get("schema") != len(MIGRATIONS):
            raise BadDump(
                f"made for schema {head.get('schema') if isinstance(head, dict) else None}, this is {len(MIGRATIONS)}",
                do="restore it by the version that made it, and upgrade then",
            )
        count = 0
        with database.write(durable=True) as db:
            for table in COLUMNS:
                db.execute(f"DELETE FROM {table}")  # noqa: S608  # constants
            for line in rows:
                table, *values = json.loads(line)
                columns = COLUMNS[table]
                if len(values) != len(columns):
                    raise ValueError(f"{len(values)} values for {table}")
                marks = ", ".join("?" * len(columns))
                statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608  # constants
                db.execute(statement, [_read(value) for value in values])
                count += 1
        return count
    except (ValueError, LookupError, TypeError) as error:
        raise BadDump(f"unreadable: {error}", do="use another backup") from None


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _written(value: Any) -> Any:
    return {"b": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _read(value: Any) -> Any:
    return base64.b64decode(value["b"], validate=True) if isinstance(value, dict) else value
