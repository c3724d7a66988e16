"""Semantic versions, and the wishes that policies have for them. Pure.

Source: semver.org 2.0.0 for the order; npm's rule for pre-releases in ranges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, total_ordering
from typing import Final, Literal

from placement.types import Subject

_NUMBER: Final = r"(0|[1-9][0-9]{0,15})"
_PART: Final = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION: Final = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_PART}(?:\.{_PART})*))?\Z")
_PARTIAL: Final = re.compile(rf"{_NUMBER}(?:\.{_NUMBER})?(?:\.{_NUMBER}(?:-({_PART}(?:\.{_PART})*))?)?\Z")
_BOUND: Final = re.compile(r"(>=|<=|!=|>|<|=|~|\^)?\s*(\S+)\Z")
_CHANNEL: Final = re.compile(r"channel:\s*([a-z0-9](?:[-a-z0-9]{0,51}[a-z0-9])?)\Z")
_MAX_LENGTH: Final = 128


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A semantic version without build metadata, ordered by precedence."""

    major: int
    minor: int
    patch: int
    pre: tuple[str, ...] = ()

    def __lt__(self, other: Version) -> bool:
        return self._key() < other._key()

    def _key(self) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
        parts = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in self.pre)
        return self.major, self.minor, self.patch, not self.pre, parts


Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Bound:
    """One comparison of a range."""

    operator: Operator
    version: Version

    def holds(self, version: Version) -> bool:
        """Tell whether ``version`` is on the right side."""
        match self.operator:
            case "=":
                return version == self.version
            case "!=":
                return version != self.version
            case "<":
                return version < self.version
            case "<=":
                return version <= self.version
            case ">":
                return version > self.version
            case ">=":
                return version >= self.version


@dataclass(frozen=True, slots=True)
class Wish:
    """What a policy wants: an exact version, a range, or what a channel points to.

    Attributes:
        text: as it was written.
        channel: name of the channel; empty for none.
        ranges: OR-ed; the bounds of one are AND-ed. Empty for a channel.
    """

    text: str
    channel: str = ""
    ranges: tuple[tuple[Bound, ...], ...] = ()

    def accepts(self, version: str) -> bool:
        """Tell whether a version is in the range; a channel accepts none by itself.

        A pre-release is in a range only where that range itself names a pre-release of the same release.

        Raises:
            ValueError: not a version.
        """
        found = parse_version(version)
        return any(_in_range(found, bounds) for bounds in self.ranges)


@lru_cache(maxsize=65536)
def parse_version(text: str) -> Version:
    """Read ``1.2.3`` or ``1.2.3-rc.1``.

    Raises:
        ValueError: it is neither; the message says what is wrong.
    """
    match = _VERSION.match(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        hint = "build metadata (`+…`) is not allowed" if "+" in text else "write it like 1.2.3 or 1.2.3-rc.1"
        raise ValueError(f"{text[:40]!r} is not a semantic version: {hint}")
    return _made(match)


@lru_cache(maxsize=4096)
def parse_wish(text: str) -> Wish:
    """Read an exact version, a range (``>=2.0 <3``, ``~1.4``, ``^2 || 3.0.0-rc.1``, ``*``), or ``channel: stable``.

    Raises:
        ValueError: it is none of them; the message says what is wrong.
    """
    stripped = text.strip()
    if not stripped or len(stripped) > _MAX_LENGTH:
        raise ValueError("a version wish must not be empty, nor longer than 128 characters")
    if stripped.startswith("channel:"):
        channel = _CHANNEL.match(stripped)
        if channel is None:
            raise ValueError(f"{stripped!r} does not name a channel: write it like `channel: stable`")
        return Wish(stripped, channel=channel.group(1))
    return Wish(stripped, ranges=tuple(_range(part) for part in stripped.split("||")))


def resolve(wish: Wish, subject: Subject) -> tuple[str, str]:
    """Return the newest version that fits and is not withdrawn, and an empty reason; or empty, and the reason why none.

    Args:
        wish: what the policy wants.
        subject: the versions and channels there are.
    """
    if wish.channel:
        version = subject.channels.get(wish.channel, "")
        if not version:
            return "", f"{subject.name} has no channel {wish.channel}"
        reason = subject.versions.get(version, "it does not exist")
        return ("", f"channel {wish.channel} points to {version}: {reason}") if reason else (version, "")
    fitting = [version for version in subject.versions if wish.accepts(version)]
    usable = [version for version in fitting if not subject.versions[version]]
    if usable:
        return newest(usable), ""
    if fitting:
        return "", f"every version of {subject.name} in {wish.text} is withdrawn"
    return "", f"no version of {subject.name} is in {wish.text}"


def newest(versions: Iterable[str]) -> str:
    """Return the version with the highest precedence; ties cannot be."""
    return max(versions, key=parse_version)


def _in_range(version: Version, bounds: tuple[Bound, ...]) -> bool:
    if not all(bound.holds(version) for bound in bounds):
        return False
    core = (version.major, version.minor, version.patch)
    return not version.pre or any(
        bound.operator != "!="
        and bound.version.pre
        and (bound.version.major, bound.version.minor, bound.version.patch) == core
        for bound in bounds
    )


def _range(text: str) -> tuple[Bound, ...]:
    words = re.sub(r"(>=|<=|!=|>|<|=|~|\^)\s+", r"\1", text.strip()).split()
    if not words:
        raise ValueError("an empty range: write `*` for every version")
    return tuple(bound for word in words for bound in _bounds(word))


def _bounds(word: str) -> list[Bound]:
    if word in ("*", "x"):
        return []
    matched = _BOUND.match(word)
    assert matched is not None  # a word has no spaces and is not empty
    operator, number = matched.group(1) or "", matched.group(2)
    found = _PARTIAL.match(number)
    if found is None:
        hint = "build metadata (`+…`) is not allowed" if "+" in number else "write it like >=1.2 <3 or 1.2.3"
        raise ValueError(f"{word[:40]!r} is not a version or a range: {hint}")
    low = _made(found)
    places = 3 if found.group(3) is not None else 2 if found.group(2) is not None else 1
    if operator in ("~", "^"):
        return [Bound(">=", low), Bound("<", _after(low, places, operator))]
    if places == 3:
        return [Bound(operator or "=", low)]  # type: ignore[arg-type]  # one of the operators that _BOUND matches
    high = _next(low, places)
    match operator:
        case "" | "=":
            return [Bound(">=", low), Bound("<", high)]
        case ">=" | "<":
            return [Bound(">=" if operator == ">=" else "<", low)]
        case ">":
            return [Bound(">=", high)]
        case "<=":
            return [Bound("<", high)]
        case _:
            raise ValueError(f"{word!r}: `!=` needs a whole version like 1.2.3")


def _after(low: Version, places: int, operator: str) -> Version:
    if operator == "~":
        return _next(low, min(places, 2))
    if low.major or places == 1:
        return Version(low.major + 1, 0, 0)
    if low.minor or places == 2:
        return Version(0, low.minor + 1, 0)
    return Version(0, 0, low.patch + 1)


def _next(low: Version, places: int) -> Version:
    return Version(low.major + 1, 0, 0) if places == 1 else Version(low.major, low.minor + 1, 0)


def _made(match: re.Match[str]) -> Version:
    major, minor, patch, pre = match.groups()
    return Version(int(major), int(minor or 0), int(patch or 0), tuple(pre.split(".")) if pre else ())
