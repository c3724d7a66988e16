"""Facts of a whole fleet at one time: exported from a hub, read where a decision is looked at without it.

``{"format": 1, "fleet": …, "at": …, "clusters": {NAME: [{"name", "value", "measuredAt"}]}}``
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.wire.errors import Malformed, Stop
from agent.wire.facts import Fact, decode_fact, encode_fact
from agent.wire.fields import Fields, parse_time, write_time
from gitops.fact_checks import admitted

FORMATS: Final = (1,)
_MOST_BYTES: Final = 512 << 20


class BadSnapshot(Stop):
    """A file of facts cannot be read, or is none."""

    code = "EF1116"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Facts as they were known at one time.

    Attributes:
        at: when; None for no facts at all.
        clusters: cluster → fact name → (text, time measured).
        faults: facts that do not count.
    """

    at: datetime | None = None
    clusters: Mapping[str, Mapping[str, tuple[str, datetime]]] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return for people: of when the facts are, and which do not count."""
        return [] if self.at is None else [f"facts of {write_time(self.at)}", *self.faults]

    def as_json(self) -> dict[str, Any]:
        """Return the same for programs."""
        return {"factsAt": "" if self.at is None else write_time(self.at), "factsRefused": list(self.faults)}


NO_FACTS: Final = Snapshot()


def encode_snapshot(fleet: str, at: datetime, clusters: Mapping[str, Sequence[Fact]]) -> dict[str, Any]:
    """Return a snapshot as JSON."""
    return {
        "format": 1,
        "fleet": fleet,
        "at": write_time(at),
        "clusters": {name: [encode_fact(one) for one in facts] for name, facts in sorted(clusters.items())},
    }


def decode_snapshot(value: Any, where: str) -> Snapshot:
    """Read a snapshot; facts that do not count are left out, and named.

    Raises:
        BadSnapshot: it is none.
    """
    try:
        top = Fields(value, where)
        top.format(FORMATS)
        at = parse_time(top.text("at"), where)
        clusters: dict[str, dict[str, tuple[str, datetime]]] = {}
        faults: list[str] = []
        for name, facts, unread in top.one("clusters", _lists) or ():
            good, wrong = admitted(facts, at, unread)
            clusters[name] = {one.name: (one.value, one.measured_at) for one in good}
            faults += [f"{name}: {one}" for one in wrong]
    except (Malformed, Stop) as error:
        do = "export one: `edgeferry facts export`"
        raise BadSnapshot(f"no snapshot of facts: {error}", where=where, do=do) from None
    return Snapshot(at, clusters, tuple(faults))


def _lists(fields: Fields) -> list[tuple[str, tuple[Fact, ...], tuple[str, ...]]]:
    return [(name, *fields.readable(name, decode_fact)) for name in fields.names()]


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot from a file.

    Raises:
        BadSnapshot: it cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise BadSnapshot(f"larger than {_MOST_BYTES >> 20} MiB", where=str(path))
        value = json.loads(data)
    except OSError as error:
        do = "name a file, or the URL of a hub"
        raise BadSnapshot(error.strerror or str(error), where=str(path), do=do) from None
    except (ValueError, RecursionError) as error:
        raise BadSnapshot(f"not JSON: {error}", where=str(path), do="export one: `edgeferry facts export`") from None
    return decode_snapshot(value, str(path))


def now_of(snapshot: Snapshot) -> datetime:
    """Return the time that is decided for: that of the facts, else now, to the second."""
    return snapshot.at or datetime.now(UTC).replace(microsecond=0)
