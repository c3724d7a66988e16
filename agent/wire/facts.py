"""Facts: what the agent measured about its cluster. Values are text here; who compares them knows their type."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agent.wire.fields import Fields, write_time


@dataclass(frozen=True, slots=True)
class Fact:
    """One measurement.

    Attributes:
        name: dotted, as ``arch`` or ``memory.capacity``.
        value: in the unit that the name's definition gives.
        measured_at: UTC.
    """

    name: str
    value: str
    measured_at: datetime


def encode_fact(fact: Fact) -> dict[str, str]:
    """Return the fact as JSON."""
    return {"name": fact.name, "value": fact.value, "measuredAt": write_time(fact.measured_at)}


def decode_fact(item: Fields) -> Fact:
    """Read one fact."""
    return Fact(item.text("name", most=253), item.text("value", most=4096), item.time("measuredAt"))
