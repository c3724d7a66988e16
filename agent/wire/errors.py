"""Faults with a code. The parent class names the reaction, the class the fault."""

from __future__ import annotations

from typing import ClassVar


class EdgeferryError(Exception):
    """A fault that a person can act on.

    Args:
        what: what is wrong, with the offending value, no trailing stop.
        where: file:line:column, object, cluster or URL; empty where the message says it.
        do: what to do about it.
    """

    code: ClassVar[str] = "EF0000"

    def __init__(self, what: str, *, where: str = "", do: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.do = do

    def __str__(self) -> str:
        """One line: ``where: CODE Name: what; do``."""
        place = f"{self.where}: " if self.where else ""
        advice = f"; {self.do}" if self.do else ""
        return f"{place}{self.code} {type(self).__name__}: {self.what}{advice}"


class Retry(EdgeferryError):
    """It may work later as it is: try again after ``delay_s``."""

    delay_s: float = 5.0


class Wait(EdgeferryError):
    """It works once something else has happened; that event starts the next attempt."""


class Stop(EdgeferryError):
    """Only a new commit, or a person, helps. Never tried again with the same input."""


class Malformed(Stop):
    """A document of ours is not what its format says."""

    code = "EF2001"


class UnsupportedFormat(Stop):
    """A document has a format number that this version does not read."""

    code = "EF2002"


class DigestMismatch(Stop):
    """The bytes are not the bytes that the release names."""

    code = "EF2003"


class BadSignature(Stop):
    """A signature is missing, broken, or not by a key that may sign this."""

    code = "EF2004"
