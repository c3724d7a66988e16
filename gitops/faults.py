"""Faults in what people wrote: values, so that all of them are shown at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

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


@dataclass(frozen=True, slots=True)
class Code:
    """One sort of fault: its stable code and its name."""

    code: str
    name: str

    def at(self, path: str, what: str, do: str, *, line: int = 0, column: int = 0, source: str = "main") -> Fault:
        """Return a fault of this sort."""
        return Fault(path, line, column, self.code, self.name, what, do, source)


BAD_YAML: Final = Code("EF1002", "BadYaml")
TAB_IN_INDENTATION: Final = Code("EF1003", "TabInIndentation")
DUPLICATE_KEY: Final = Code("EF1004", "DuplicateKey")
NOT_TEXT: Final = Code("EF1005", "NotText")
TOO_LARGE: Final = Code("EF1006", "TooLarge")
TAG: Final = Code("EF1007", "TagNotAllowed")
UNKNOWN_KIND: Final = Code("EF1008", "UnknownKind")
UNKNOWN_API_VERSION: Final = Code("EF1009", "UnknownApiVersion")
UNKNOWN_FIELD: Final = Code("EF1010", "UnknownField")
NOT_IMPLEMENTED: Final = Code("EF1011", "NotImplementedYet")
MISSING_FIELD: Final = Code("EF1012", "MissingField")
NOT_QUOTED: Final = Code("EF1013", "NotQuoted")
WRONG_TYPE: Final = Code("EF1014", "WrongType")
BAD_VALUE: Final = Code("EF1015", "BadValue")
DUPLICATE_DOCUMENT: Final = Code("EF1020", "DuplicateDocument")
DANGLING_REFERENCE: Final = Code("EF1021", "DanglingReference")
NO_VERSION: Final = Code("EF1022", "NoVersion")
CHANGED_AFTER_PUBLICATION: Final = Code("EF1023", "ChangedAfterPublication")
NOT_ALLOWED: Final = Code("EF1024", "NotAllowedForSource")
SOURCE_EMPTY: Final = Code("EF1025", "SourceEmpty")
CASE_COLLISION: Final = Code("EF1026", "CaseCollision")
WRONG_FOLDER: Final = Code("EF1027", "WrongFolder")
CONTRADICTION: Final = Code("EF1028", "Contradiction")
MISSING_FILE: Final = Code("EF1029", "MissingFile")
BAD_SELF_TEST: Final = Code("EF1030", "BadSelfTest")
NOTHING_TO_DELIVER: Final = Code("EF1031", "NothingToDeliver")
BAD_MANIFEST: Final = Code("EF1032", "BadManifest")
UNKNOWN_CLUSTER: Final = Code("EF1033", "UnknownCluster")
BAD_CHART: Final = Code("EF1034", "BadChart")
BAD_CHART_VALUE: Final = Code("EF1035", "BadChartValue")
BAD_FACT_VALUE: Final = Code("EF1110", "BadFactValue")
BAD_EXPRESSION: Final = Code("EF1111", "BadExpression")
COSTLY_EXPRESSION: Final = Code("EF1112", "CostlyExpression")
BAD_NEED: Final = Code("EF1113", "BadNeed")
PLACEMENT_CYCLE: Final = Code("EF1114", "PlacementCycle")
LABEL_IS_NO_FACT: Final = Code("EF1115", "LabelIsNoFact")
SELECTS_NOTHING: Final = Code("EF1120", "SelectsNothing")
NEVER_MET: Final = Code("EF1121", "NeverMet")
SHADOWED: Final = Code("EF1122", "Shadowed")
CONTRADICTING: Final = Code("EF1123", "ContradictsItself")
SPREAD_OVER_NOTHING: Final = Code("EF1124", "SpreadOverNothing")
PLACEMENTS_CLASH: Final = Code("EF1102", "PlacementsClash")
PROTECTED: Final = Code("EF1150", "Protected")


MOST: Final = 100
"""So many faults of one file are shown."""


def first(found: Sequence[Fault]) -> tuple[Fault, ...]:
    """Return the faults of one file, sorted, each once; of very many the first, with a note on the last."""
    known = sorted(set(found))
    if len(known) <= MOST:
        return tuple(known)
    last = known[MOST - 1]
    return (*known[: MOST - 1], replace(last, what=f"{last.what} (and more faults below)"))


class FaultyCatalog(Stop):
    """A source has faults and cannot be used; ``faults`` has them all."""

    code = "EF1001"

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        plural = "fault" if len(self.faults) == 1 else "faults"
        super().__init__(f"{len(self.faults)} {plural} in the documents", do="run `edgeferry validate` and mend them")
