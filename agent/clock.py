"""Time at a site whose clock may be wrong: a floor on disk, and durations that no clock change touches."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from agent.state import State
from agent.wire.errors import Malformed
from agent.wire.fields import parse_time, write_time

WRITE_EVERY: Final = timedelta(minutes=10)
"""The time seen is written at most so often."""

STEADY_MS: Final = 3_600_000
"""A clock counts as seen once it has gone on steadily for so long: a wild jump leaves no floor behind."""

_STEP: Final = timedelta(seconds=30)
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment, read once and handed on.

    Attributes:
        now: UTC, never below the floor.
        uptime_ms: since boot, asleep or awake; for durations.
        boot: id of this boot.
        trusted: the clock stands at or above the floor; while it does not, windows stay closed.
    """

    now: datetime
    uptime_ms: int
    boot: str
    trusted: bool = True


def read_wall() -> tuple[datetime, int, str]:
    """Return the wall clock, milliseconds since boot, and the id of this boot."""
    uptime_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    return datetime.now(UTC), uptime_ms, _BOOT_ID.read_text().strip()


class Clock:
    """Keeps the floor: the later of the last trusted ``publishedAt`` and the last time seen.

    Args:
        state: where the floor stands.
    """

    __slots__ = ("_anchor", "_published", "_seen", "_state")

    def __init__(self, state: State) -> None:
        self._state = state
        self._published = _read(state.setting("clockPublished"))
        self._seen = _read(state.setting("clockSeen"))
        self._anchor: tuple[datetime, int] | None = None

    @property
    def floor(self) -> datetime:
        """No moment is before this."""
        return max(self._published, self._seen)

    def instant(self, wall: datetime, uptime_ms: int, boot: str) -> Instant:
        """Return the moment as it counts, and remember it once in a while."""
        steady_ms = self._steady_ms(wall, uptime_ms)
        # Downwards too: a floor above a clock that has been steady for so long was left by a wild jump.
        if steady_ms >= STEADY_MS and wall >= self._published and abs(wall - self._seen) >= WRITE_EVERY:
            self._seen = wall
            self._state.set(clockSeen=write_time(wall))
        return Instant(max(wall, self.floor), uptime_ms, boot, wall >= self.floor - _STEP)

    def published(self, at: datetime) -> None:
        """Raise the floor to the time of a release that was verified."""
        if at > self._published:
            self._published = at
            self._state.set(clockPublished=write_time(at))

    def _steady_ms(self, wall: datetime, uptime_ms: int) -> int:
        if self._anchor is not None:
            began, began_ms = self._anchor
            if abs(wall - began - timedelta(milliseconds=uptime_ms - began_ms)) < _STEP:
                return uptime_ms - began_ms
        self._anchor = (wall, uptime_ms)
        return 0


def _read(text: str) -> datetime:
    try:
        return parse_time(text, "clock") if text else _NEVER
    except Malformed:
        return _NEVER
