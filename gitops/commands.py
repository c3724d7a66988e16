"""What people ordered, as it stands in the fleet repository: ``commands/<date>/<id>.json``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, cast, get_args

from agent.wire.canonical import canonical
from agent.wire.errors import Malformed
from agent.wire.fields import Fields, write_time

FORMATS: Final = (1,)
Verb = Literal["pause", "resume", "approve", "abort", "retry", "freeze", "thaw"]


@dataclass(frozen=True, slots=True)
class Command:
    """One order.

    Attributes:
        id: unique, made by who gives the order.
        verb: what to do.
        object: ``placement/NAME``, ``rollout/NAME``, ``cluster/NAME`` or ``fleet``.
        by: who ordered it.
        at: when, UTC.
        why: in that person's words.
        argument: what the verb needs besides, as the hash of an approval; empty for none.
    """

    id: str
    verb: Verb
    object: str
    by: str
    at: datetime
    why: str
    argument: str = ""


def command_path(command: Command) -> str:
    """Return where the command stands."""
    return f"commands/{command.at:%Y-%m-%d}/{command.id}.json"


def encode_command(command: Command) -> bytes:
    """Return the canonical bytes."""
    return canonical(
        {
            "format": 1,
            "id": command.id,
            "verb": command.verb,
            "object": command.object,
            "by": command.by,
            "at": write_time(command.at),
            "why": command.why,
            "argument": command.argument,
        }
    )


def decode_command(data: bytes, where: str) -> Command:
    """Read a command.

    Raises:
        Malformed: a field is missing, or the verb is unknown.
    """
    top = Fields.parse(data, where)
    top.format(FORMATS)
    verb = top.text("verb")
    if verb not in get_args(Verb):
        raise Malformed(f"verb is {verb[:40]!r}, not one of {', '.join(get_args(Verb))}", where=where)
    return Command(
        id=top.text("id", most=64),
        verb=cast(Verb, verb),
        object=top.text("object"),
        by=top.text("by"),
        at=top.time("at"),
        why=top.text("why"),
        argument=top.text("argument", ""),
    )
