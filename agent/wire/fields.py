"""Reading hostile JSON field by field. Every fault names the field; unknown fields are left alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Self, TypeVar

from agent.wire.canonical import Json, is_digest
from agent.wire.errors import Malformed, UnsupportedFormat

T = TypeVar("T")
_MAX_INTEGER: Final = 2**53 - 1
_TIME: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})Z")


class Fields:
    """One JSON object under reading.

    Args:
        value: what stood there.
        where: for messages: ``release.json entries[2]``.
    """

    __slots__ = ("_value", "where")

    def __init__(self, value: Json, where: str) -> None:
        if not isinstance(value, dict):
            raise Malformed("not an object", where=where)
        self._value: dict[str, Json] = value
        self.where = where

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Read the top object of a JSON document; duplicate keys are refused.

        Raises:
            Malformed: not UTF-8, not JSON, nested too deep, or not an object.
        """
        try:
            value = json.loads(
                data.decode(), object_pairs_hook=_no_duplicates, parse_float=_no_float, parse_constant=_no_float
            )
        except (ValueError, RecursionError) as error:
            raise Malformed(f"unreadable: {error}", where=where) from None
        return cls(value, where)

    def format(self, known: tuple[int, ...]) -> int:
        """Return ``format``, one of ``known``.

        Raises:
            UnsupportedFormat: this version does not read it.
        """
        number = self.integer("format")
        if number not in known:
            do = "upgrade this program" if number > max(known) else "upgrade the program that wrote it"
            raise UnsupportedFormat(f"format {number}, known are {', '.join(map(str, known))}", where=self.where, do=do)
        return number

    def text(self, name: str, default: str | None = None, *, most: int = 4096) -> str:
        """Return the string ``name``, at most ``most`` characters."""
        value = self._get(name, default)
        if not isinstance(value, str) or len(value) > most or "\0" in value:
            raise Malformed(f"{name} is not a string of at most {most} characters", where=self.where)
        return value

    def digest(self, name: str, default: str | None = None) -> str:
        """Return the sha256 digest ``name``; an empty default may stand."""
        value = self.text(name, default)
        if value != default and not is_digest(value):
            raise Malformed(f"{name} is not a sha256 digest: {value[:80]!r}", where=self.where)
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        """Return the whole number ``name``, from 0 to 2**53 - 1."""
        value = self._get(name, default)
        if type(value) is not int or not 0 <= value <= _MAX_INTEGER:
            raise Malformed(f"{name} is not a whole number", where=self.where)
        return value

    def flag(self, name: str, default: bool | None = None) -> bool:
        """Return the boolean ``name``."""
        value = self._get(name, default)
        if type(value) is not bool:
            raise Malformed(f"{name} is not true or false", where=self.where)
        return value

    def time(self, name: str) -> datetime:
        """Return the UTC time ``name``."""
        return parse_time(self.text(name), f"{self.where} {name}")

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the list of strings ``name``; absent is empty."""
        value = self._get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise Malformed(f"{name} is not a list of strings", where=self.where)
        return tuple(value)

    def mapping(self, name: str) -> dict[str, str]:
        """Return the object of strings ``name``; absent is empty."""
        value = self._get(name, {})
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise Malformed(f"{name} is not an object of strings", where=self.where)
        return value

    def each(self, name: str, read: Callable[[Fields], T]) -> tuple[T, ...]:
        """Return the list ``name`` with every object read; absent is empty."""
        value = self._get(name, [])
        if not isinstance(value, list):
            raise Malformed(f"{name} is not a list", where=self.where)
        return tuple(read(Fields(item, f"{self.where} {name}[{n}]")) for n, item in enumerate(value))

    def readable(self, name: str, read: Callable[[Fields], T]) -> tuple[tuple[T, ...], tuple[str, ...]]:
        """Return the list ``name`` with every object that can be read, and why the others cannot."""
        value = self._get(name, [])
        if not isinstance(value, list):
            raise Malformed(f"{name} is not a list", where=self.where)
        found: list[T] = []
        wrong: list[str] = []
        for n, item in enumerate(value):
            try:
                found.append(read(Fields(item, f"{name}[{n}]")))
            except Malformed as fault:
                wrong.append(str(fault))
        return tuple(found), tuple(wrong)

    def names(self) -> list[str]:
        """Return the names in this object itself, as they stand."""
        return list(self._value)

    def every(self, read: Callable[[Fields], T]) -> dict[str, T]:
        """Return this object itself, a map from names to objects, with every object read."""
        return {name: read(Fields(item, f"{self.where} {name}")) for name, item in self._value.items()}

    def one(self, name: str, read: Callable[[Fields], T]) -> T | None:
        """Return the object ``name`` read, or None where it is absent or null."""
        value = self._value.get(name)
        return None if value is None else read(Fields(value, f"{self.where} {name}"))

    def _get(self, name: str, default: Json) -> Json:
        value = self._value.get(name, default)
        if value is None:
            raise Malformed(f"{name} is missing", where=self.where)
        return value


def parse_time(text: str, where: str) -> datetime:
    """Read a time as we write it, ``2026-11-24T01:02:03Z``."""
    found = _TIME.fullmatch(text)  # strptime would load a megabyte of calendars and locales
    try:
        if found is not None:
            year, month, day, hour, minute, second = map(int, found.groups())
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        pass  # a 30th of February
    raise Malformed(f"not a UTC time like 2026-01-02T03:04:05Z: {text[:40]!r}", where=where)


def write_time(time: datetime) -> str:
    """Write a time to the second, in UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _no_float(text: str) -> Json:
    raise ValueError(f"{text} is not a whole number")
