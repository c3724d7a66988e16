"""Faults in what people wrote: values, so that all of them are shown at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.wire.errors import Stop


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault in a document.

    Attributes:
        path: file within the source.
        line: from 1; 0 where the file as a whole is meant.
        column: from 1; 0 as above.
        code: ``EF1xxx``, described in docs/errors.md.
        name: the code's name in CamelCase.
        what: what is wrong.
        do: what to do about it.
        source: of which source; ``main`` is not printed.
    """

    path: str
    line: int
    column: int
    code: str
    name: str
    what: str
    do: str
    source: str = "main"

    def __str__(self) -> str:
        """One line: ``file:line:column: CODE Name: what; do``."""
        where = self.path if not self.line else f"{self.path}:{self.line}:{self.column}"
        prefix = "" if self.source == "main" else f"{self.source}: "
        return f"{prefix}{where}: {self.code} {self.name}: {self.what}; {self.do}"


class FaultyCatalog(Stop):
    """A source has faults and cannot be used; ``faults`` has them all."""

    code = "EF1001"

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        plural = "fault" if len(self.faults) == 1 else "faults"
        super().__init__(f"{len(self.faults)} {plural} in the documents", do="run `edgeferry validate` and mend them")
