"""What people ordered at the site itself: ``STATE/orders.json``. It outranks the release until it is taken back.

The commands write it, the agent reads it at its next look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from agent import durable
from agent.journal import EntryState, Key
from agent.wire.canonical import canonical
from agent.wire.errors import EdgeferryError, Stop, Wait
from agent.wire.fields import Fields, write_time

FILE: Final = "orders.json"


class OrdersUnreadable(Stop):
    """``orders.json`` is not what the commands write."""

    code = "EF4420"


class Held(Wait):
    """A person at the site holds the entry: it stays as it is."""

    code = "EF4421"


class RolledBack(Wait):
    """A person at the site went back to the version before."""

    code = "EF4422"


class NothingBefore(Stop):
    """There is no earlier version at the site to go back to."""

    code = "EF4423"


class NoSuchEntry(Stop):
    """No model or workload of this name is at the site."""

    code = "EF4424"


@dataclass(frozen=True, slots=True)
class Hold:
    """Why and since when something stays as it is."""

    why: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Rollback:
    """One entry goes back for as long as the release asks for the version that it goes back from.

    Attributes:
        away: entry digest that is not wanted here.
        to: entry digest to run instead.
    """

    away: str
    to: str
    why: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Orders:
    """All that is ordered.

    Attributes:
        held: ``kind/NAME``, or ``*`` for everything → why.
        rollbacks: ``kind/NAME`` → where to.
    """

    held: Mapping[str, Hold] = field(default_factory=dict)
    rollbacks: Mapping[str, Rollback] = field(default_factory=dict)

    def hold(self, key: Key) -> Hold | None:
        """Return why an entry stays as it is; None where it does not."""
        return self.held.get("/".join(key)) or self.held.get("*")

    def rollback(self, key: Key, wanted: str) -> Rollback | None:
        """Return where an entry goes back to, given the digest that the release asks for."""
        found = self.rollbacks.get("/".join(key))
        return found if found is not None and found.away == wanted else None


class OrdersFile:
    """The orders of a state directory, read again only when the file changed.

    Args:
        root: the state directory.

    Attributes:
        fault: why the file cannot be read: then what was ordered before goes on; None for none.
    """

    def __init__(self, root: Path) -> None:
        self.fault: OrdersUnreadable | None = None
        self._path = root / FILE
        self._mark: tuple[int, int, int] | None = None
        self._orders = Orders()

    def read(self) -> Orders:
        """Return what is ordered now; the same object while nothing changed."""
        try:
            about = self._path.stat()
            mark = (about.st_ino, about.st_mtime_ns, about.st_size)
        except OSError:
            mark = None
        if mark == self._mark:
            return self._orders
        self._mark, self.fault = mark, None
        try:
            self._orders = read_orders(self._path.parent)
        except OrdersUnreadable as error:
            self.fault = error
        return self._orders


def read_orders(root: Path) -> Orders:
    """Read ``orders.json``; nothing is ordered where there is none.

    Raises:
        OrdersUnreadable: see there.
    """
    path = root / FILE
    try:
        top = Fields.parse(path.read_bytes(), str(path))
        top.format((1,))
        held = top.one("held", lambda all_: all_.every(lambda one: Hold(one.text("why", ""), one.time("at"))))
        rollbacks = top.one("rollbacks", lambda all_: all_.every(_read_rollback))
    except FileNotFoundError:
        return Orders()
    except (OSError, EdgeferryError) as error:
        do = "remove the file: then nothing is held or rolled back here"
        raise OrdersUnreadable(getattr(error, "what", None) or str(error), where=str(path), do=do) from None
    return Orders(held or {}, rollbacks or {})


def write_orders(root: Path, orders: Orders) -> None:
    """Make orders durable."""
    held = {name: {"why": one.why, "at": write_time(one.at)} for name, one in orders.held.items()}
    rollbacks = {
        name: {"away": one.away, "to": one.to, "why": one.why, "at": write_time(one.at)}
        for name, one in orders.rollbacks.items()
    }
    durable.write(root / FILE, canonical({"format": 1, "held": held, "rollbacks": rollbacks}))


def with_rollback(orders: Orders, state: EntryState, wanted: str, why: str, at: datetime) -> Orders:
    """Return the orders with one entry going back to what ran before.

    Args:
        orders: before.
        state: of the entry.
        wanted: entry digest that the release asks for.
        why: for people.
        at: now.

    Raises:
        NothingBefore: no earlier version is kept here.
    """
    name = "/".join(state.key)
    target = state.running if state.running and state.running != wanted else state.previous
    if not target or target == wanted:
        raise NothingBefore(
            "no earlier version is kept at this site", where=name, do="`edgeferry-agent hold` stops it here"
        )
    return replace(orders, rollbacks={**orders.rollbacks, name: Rollback(wanted, target, why, at)})


def _read_rollback(item: Fields) -> Rollback:
    return Rollback(item.digest("away"), item.digest("to"), item.text("why", ""), item.time("at"))
