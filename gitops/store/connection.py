"""What the store's statements are given to: one shape for both databases. Parameters are written ``?``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from agent.wire.errors import Stop


class StoreTooNew(Stop):
    """The database was written by a newer version of this program."""

    code = "EF3120"


class StoreUnreadable(Stop):
    """The database cannot be opened, or is not a database of ours."""

    code = "EF3121"


class Rows(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""

    def fetchone(self) -> Any:
        """Return the next row; None at the end."""

    def fetchall(self) -> list[Any]:
        """Return the rest."""

    def __iter__(self) -> Iterator[Any]:
        """Give the rest one by one."""


class Connection(Protocol):
    """Where statements go."""

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Rows:
        """Run one statement."""

    def executemany(self, statement: str, parameters: Sequence[Sequence[Any]], /) -> Any:
        """Run one statement for each row of parameters."""


class Database(Protocol):
    """A database, brought forward to the newest schema. Safe from several threads."""

    def read(self) -> Connection:
        """Return where this thread reads."""

    def write(self, *, durable: bool = False) -> AbstractContextManager[Connection]:
        """Give a connection within one transaction: all of it, or nothing; writers wait for each other.

        Args:
            durable: on disk when this returns; else a power cut may lose the last transactions, never tear one.
        """

    def lead(self) -> bool:
        """Tell whether this process is the one that decides; where nobody is, it becomes that."""

    def close(self) -> None:
        """Close all connections."""
