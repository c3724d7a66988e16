"""Windows: when a site may switch, by its own time zone.

A window is named by the day on which it opens; one whose end is before its beginning closes on the next day. Where the
clocks go forward, a time that does not exist is the one an hour later; where they go back, a window opens at the first
of two equal times and closes at the second, so that it is never shorter than written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from agent.wire.errors import Malformed
from agent.wire.fields import Fields

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time that comes back on some days of the week.

    Attributes:
        days: of the opening, of ``DAYS``; empty for every day.
        start: local time, ``HH:MM``.
        end: local time, ``HH:MM``; not after ``start``: on the next day.
        timezone: name of the IANA database.
    """

    days: tuple[str, ...]
    start: str
    end: str
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Opening:
    """Whether some windows are open.

    Attributes:
        open: now.
        since: begin of the present state.
        until: its end; None where it has none.
    """

    open: bool
    since: datetime
    until: datetime | None


def opening(windows: Sequence[Window], now: datetime) -> Opening:
    """Return whether a site with these windows may switch now; without windows it always may.

    Args:
        windows: in any order; they may overlap.
        now: timezone-aware.

    Raises:
        ValueError: a time zone is not known on this machine.
    """
    if not windows:
        return Opening(True, datetime(1970, 1, 1, tzinfo=UTC), None)
    return _opening(tuple(windows), now.astimezone(UTC))


@lru_cache(4096)
def _opening(windows: tuple[Window, ...], now: datetime) -> Opening:
    closed_since = now - timedelta(days=9)
    for begin, end in _merged(sorted(span for one in windows for span in _spans(one, now))):
        if end <= now:
            closed_since = end
        elif begin <= now:
            return Opening(True, begin, end if end - now < timedelta(days=8) else None)  # some cover the whole week
        else:
            return Opening(False, closed_since, begin)
    raise AssertionError("a window comes back within a week")


def encode_window(window: Window) -> dict[str, Any]:
    """Return the window as JSON."""
    return {"days": list(window.days), "from": window.start, "to": window.end, "timezone": window.timezone}


def read_window(item: Fields) -> Window:
    """Read one window.

    Raises:
        Malformed: no such day or time.
    """
    window = Window(item.texts("days"), item.text("from"), item.text("to"), item.text("timezone", "UTC", most=64))
    try:
        parse_clock(window.start), parse_clock(window.end)
    except ValueError as error:
        raise Malformed(str(error), where=item.where) from None
    if not set(window.days) <= set(DAYS):
        raise Malformed(f"days are {', '.join(window.days)[:80]}, not of {', '.join(DAYS)}", where=item.where)
    return window


@lru_cache(1024)
def zone(name: str) -> ZoneInfo:
    """Return a time zone.

    Raises:
        ValueError: it is not known here.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"time zone {name[:64]!r} is not known") from error


def parse_clock(text: str) -> time:
    """Read ``HH:MM``.

    Raises:
        ValueError: it is not a time of day.
    """
    hour, colon, minute = text.partition(":")
    if not (colon and len(hour) == len(minute) == 2 and (hour + minute).isdecimal() and (hour + minute).isascii()):
        raise ValueError(f"{text[:20]!r} is not a time like 02:30")
    if int(hour) > 23 or int(minute) > 59:
        raise ValueError(f"{text[:20]!r} is not a time of day")
    return time(int(hour), int(minute))


def _spans(window: Window, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield openings and closings from some days ago until a week after now, UTC."""
    place = zone(window.timezone)
    start, end = parse_clock(window.start), parse_clock(window.end)
    today = now.astimezone(place).date()
    for days in range(-9, 10):
        date = today + timedelta(days=days)
        if window.days and DAYS[date.weekday()] not in window.days:
            continue
        closing = date if end > start else date + timedelta(days=1)
        begin = datetime.combine(date, start, place).astimezone(UTC)
        # Of two equal times the second; of a time that does not exist the one an hour later: the later in both cases.
        yield begin, max(datetime.combine(closing, end.replace(fold=f), place).astimezone(UTC) for f in (0, 1))


def _merged(spans: Sequence[tuple[datetime, datetime]]) -> Iterator[tuple[datetime, datetime]]:
    last: tuple[datetime, datetime] | None = None
    for begin, end in spans:
        if last is not None and begin <= last[1]:
            last = (last[0], max(last[1], end))
            continue
        if last is not None:
            yield last
        last = (begin, end)
    if last is not None:
        yield last
