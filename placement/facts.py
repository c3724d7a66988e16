"""What a fact's text means: numbers, versions, lists, text; and whether a test of it holds. Pure.

Facts travel as text in the unit of their definition. A test says how its fact is read, so that a fact that cannot be
read so is simply not known to that test.

Source: Kubernetes quantities (apimachinery resource.Quantity) for numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from typing import Final

from placement.types import FactTest
from placement.versions import Version, Wish, parse_wish

_QUANTITY: Final = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,18})?)(?:[eE]([+-]?[0-9]{1,2})|([KMGTPE]i|[munkMGTPE]))?\Z")
_SUFFIXES: Final = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal(10**3), "M": Decimal(10**6),
    "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    **{f"{letter}i": Decimal(1 << 10 * (n + 1)) for n, letter in enumerate("KMGTPE")},
}  # fmt: skip
_RELEASE: Final = re.compile(
    r"v?([0-9]{1,15})(?:\.([0-9]{1,15}))?(?:\.([0-9]{1,15}))?(?:-((?:alpha|beta|rc)[.0-9]*))?(?![0-9.])"
)
_INVERSE: Final = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<", "in": "not in"}
_BINARY: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


@lru_cache(maxsize=4096)
def quantity(text: str) -> Decimal | None:
    """Return the number that a Kubernetes quantity like ``512Mi``, ``500m`` or ``1e3`` stands for; None for no number.

    Negative numbers are none: nothing that is measured or needed is less than nothing.
    """
    match = _QUANTITY.match(text)
    if match is None:
        return None
    digits, exponent, suffix = match.groups()
    scale = Decimal(1).scaleb(int(exponent)) if exponent else _SUFFIXES.get(suffix or "", Decimal(1))
    return Decimal(digits) * scale


def number(text: str) -> float | None:
    """Return a quantity as a float; None where it is none."""
    found = quantity(text)
    return None if found is None else float(found)


@lru_cache(maxsize=4096)
def release(text: str) -> Version | None:
    """Return the version in what a program calls its version: ``v1.29.3+k3s1`` is 1.29.3, ``1.17`` is 1.17.0.

    A vendor's suffix is left away (``v1.27.3-gke.100`` is 1.27.3, ``5.15.0-91-generic`` is 5.15.0); ``-alpha``,
    ``-beta`` and ``-rc`` come before their release.
    """
    match = _RELEASE.match(text[:128])
    if match is None:
        return None
    major, minor, patch, pre = match.groups()
    return Version(int(major), int(minor or 0), int(patch or 0), tuple(pre.split(".")) if pre else ())


def items(text: str) -> frozenset[str]:
    """Return the items of a list fact: ``nvidia,intel``."""
    return frozenset(part for part in (one.strip() for one in text.split(",")) if part)


@lru_cache(maxsize=1024)
def wanted_range(text: str) -> Wish:
    """Return the range that a version test's value stands for; a vendor's version counts as its release.

    Raises:
        ValueError: it is neither a range nor a version.
    """
    try:
        return parse_wish(text)
    except ValueError:
        found = release(text)
        if found is None:
            raise
        return parse_wish(f"{found.major}.{found.minor}.{found.patch}")


def in_range(text: str, version: Version) -> bool:
    """Tell whether a version is in a range, by order alone: a pre-release of 1.29.0 is above 1.28."""
    return any(all(bound.holds(version) for bound in bounds) for bounds in wanted_range(text).ranges)


def satisfied(test: FactTest, text: str) -> bool | None:
    """Tell whether a test holds for a fact's text; None where the text cannot be read as the test reads it."""
    match test.kind:
        case "number":
            value = number(text)
            return None if value is None else _compared(test, value, [number(one) for one in test.values])
        case "version":
            version = release(text)
            return None if version is None else _version_holds(test, version)
        case "list":
            found = any(one in items(text) for one in test.values)
            return not found if test.operator == "!=" else found
        case "text":
            return (text not in test.values) if test.operator == "!=" else (text in test.values)


def _compared(test: FactTest, value: float, wanted: Iterable[float | None]) -> bool:
    numbers = [one for one in wanted if one is not None]
    match test.operator:
        case "==" | "in":
            return value in numbers
        case "!=":
            return value not in numbers
        case "<":
            return value < numbers[0]
        case "<=":
            return value <= numbers[0]
        case ">":
            return value > numbers[0]
        case ">=":
            return value >= numbers[0]


def _version_holds(test: FactTest, version: Version) -> bool:
    match test.operator:
        case "==" | "in":
            return any(in_range(one, version) for one in test.values)
        case "!=":
            return not any(in_range(one, version) for one in test.values)
        case _:
            bound = release(test.values[0])
            assert bound is not None  # checked when the test was made
            order = (version > bound) - (version < bound)
            return {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}[test.operator]


def shown_test(test: FactTest) -> str:
    """Return a test as people write it: ``memory.capacity >= 1Gi``."""
    values = ", ".join(test.values[:5]) + (", …" if len(test.values) > 5 else "")
    return f"{test.name} {test.operator} {f'[{values}]' if test.operator == 'in' else values}"


def shown_failure(test: FactTest, value: str = "") -> str:
    """Return why a test does not hold: ``memory.capacity 420Mi < 1Gi``; without a value what all that fail share."""
    wanted = ", ".join(test.values[:5])
    wanted = f"[{wanted}]" if test.operator == "in" else wanted
    if not value and test.kind in ("list", "text") and test.operator in ("==", "in"):
        return f"{test.name} is not {wanted.strip('[]').replace(', ', ' or ')}"
    return f"{test.name} {shown_value(test, value) + ' ' if value else ''}{_INVERSE[test.operator]} {wanted}"


def shown_value(test: FactTest, value: str) -> str:
    """Return a fact's text for people, bytes in binary units where the test speaks of them so."""
    if test.kind == "number" and any(one.endswith("i") for one in test.values):
        return shown_bytes(int(number(value) or 0))
    return value


def shown_bytes(size: int) -> str:
    """Return bytes as a quantity that reads well: ``420Mi``, ``1.5Gi``."""
    value, step = float(size), 0
    while value >= 1024 and step < len(_BINARY) - 1:
        value, step = value / 1024, step + 1
    return f"{value:.2f}".rstrip("0").rstrip(".") + _BINARY[step] if step else str(size)
