"""Facts from outside → those that placement may look at, and why the others may not. Pure.

A faulty fact is left out by itself: the report that it came with counts, and so do the other facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from agent.wire.errors import Stop
from agent.wire.facts import Fact
from placement.fact_names import MOST_NUMBER, MOST_VALUE, NAME, Definition, definition
from placement.facts import items, number, release

MOST_FACTS: Final = 512
SKEW: Final = timedelta(minutes=5)
"""A clock at the edge may be so much ahead before it is said."""


class FactRefused(Stop):
    """A fact has a name, a value or a unit that it cannot have."""

    code = "EF3140"


class FactFromTheFuture(Stop):
    """A fact says that it was measured later than now; it counts as measured now."""

    code = "EF3141"


class TooManyFacts(Stop):
    """A cluster tells more facts than are kept."""

    code = "EF3142"


def admitted(
    facts: Sequence[Fact], now: datetime, unread: Iterable[str] = ()
) -> tuple[tuple[Fact, ...], tuple[Stop, ...]]:
    """Return the facts that count, sorted by name, and what is wrong with the others.

    Args:
        facts: as they came.
        now: of the hub; one that is later is not believed.
        unread: why some could not be read at all.
    """
    faults: list[Stop] = [FactRefused(text) for text in unread]
    found: dict[str, Fact] = {}
    for fact in sorted(facts, key=lambda one: one.name):
        wrong = _wrong(fact)
        if wrong:
            faults.append(FactRefused(f"{fact.name[:80]!r} {wrong}"))
            continue
        if fact.measured_at > now + SKEW:
            ahead = fact.measured_at - now
            faults.append(FactFromTheFuture(f"{fact.name} was measured {ahead} from now; it counts as of now"))
        found[fact.name] = replace(fact, measured_at=min(fact.measured_at, now))
    if len(found) > MOST_FACTS:
        # What every agent measures comes before what a site adds.
        kept = sorted(found, key=lambda name: (definition(name) is None, name))[:MOST_FACTS]
        faults.append(TooManyFacts(f"{len(found)} facts, the first {MOST_FACTS} of them are kept"))
        found = {name: found[name] for name in sorted(kept)}
    return tuple(found.values()), tuple(faults)


def _wrong(fact: Fact) -> str:
    if not NAME.match(fact.name):
        return "is no name of a fact"
    if len(fact.value) > MOST_VALUE or not fact.value.isprintable():
        return f"is longer than {MOST_VALUE} characters, or not printable"
    known = definition(fact.name)
    return "" if known is None else _wrong_value(known, fact.value)


def _wrong_value(known: Definition, text: str) -> str:
    match known.kind:
        case "number":
            value = number(text)
            if value is None:
                return f"is {text[:40]!r}, which is no number"
            if value > MOST_NUMBER:
                return f"is {text[:40]}, which is absurd"
            if text[-1:].isalpha():
                return f"is {text[:40]!r}: it is told in {known.unit or 'plain numbers'}, without a unit"
        case "version":
            return "" if release(text) is not None else f"is {text[:40]!r}, which is no version"
        case "list":
            return "" if len(items(text)) <= 64 else "has more than 64 items"
        case "text":
            return "" if text else "is empty"
    return ""
