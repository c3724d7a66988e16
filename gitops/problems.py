"""A fault of a document by itself, before it has a position. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from gitops.faults import CONTRADICTION, Code
from gitops.yaml_text import Place


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault without its position: where it stands within its document.

    Attributes:
        place: keys and list positions from the document's top.
        what, do: ``{as written}`` in them becomes the scalar's text.
        key: whether the key is meant, not its value.
        within: line and column within the scalar's text, from 1, where a part of it is meant.
    """

    place: Place
    code: Code
    what: str
    do: str
    key: bool = False
    within: tuple[int, int] = (0, 0)


def against(place: Place, what: str, do: str, key: bool = False) -> Problem:
    """Return a contradiction."""
    return Problem(place, CONTRADICTION, what, do, key)
