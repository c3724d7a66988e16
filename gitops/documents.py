"""A file's bytes → typed documents and every fault in it. Pure.

A file is read once without positions; only where something is wrong is it read again with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from pydantic import ValidationError

from gitops import faults, layout, yaml_text
from gitops.document_checks import Problem, check
from gitops.faults import Fault
from gitops.foreign import FOREIGN, instead
from gitops.kinds import API_VERSION, KINDS, Document
from gitops.tree import File
from gitops.validation import problems, shown
from gitops.yaml_scalars import Value
from gitops.yaml_text import Mark, Place, TextDocument

_GROUP: Final = API_VERSION.partition("/")[0] + "/"


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """One faultless document and where it stands.

    Attributes:
        document: as typed in gitops/kinds.py.
        file: that it stands in.
        number: of the document within the file, from 0, empty ones not counted.
        where: file:line:column.
    """

    document: Document
    file: File
    number: int
    where: str


@dataclass(frozen=True, slots=True, eq=False)
class Parsed:
    """What one file holds.

    Attributes:
        documents: the faultless ones, in the file's order.
        faults: every fault, sorted; of very many, the first and how many there are.
        broken: (kind, name) of documents with faults, as far as they can be read: references to them do not dangle.
    """

    documents: tuple[Located, ...] = ()
    faults: tuple[Fault, ...] = ()
    broken: frozenset[tuple[str, str]] = frozenset()


NOTHING: Final = Parsed()


def parse(file: File, data: bytes, source: str) -> Parsed:
    """Read one file. Never raises: whatever it holds, the result says what is wrong with it.

    Where our documents alone belong (``clusters/``, ``models/NAME/model.yaml`` …), anything else is a fault; elsewhere,
    documents of others are left alone, and so is a file that does not speak of our ``apiVersion``.

    Args:
        file: its path decides what may stand in it.
        data: its bytes, or more than ``yaml_text.MAX_BYTES`` of them.
        source: for faults.
    """
    role = layout.standing(file.path).role
    strict = role in ("document", "version")
    if not strict and (role != "maybe" or not layout.speaks_of_us(data)):
        return NOTHING
    texts, found = yaml_text.read(data, file.path, source)
    documents: list[Located] = []
    broken: dict[int, list[Problem]] = {}
    for number, text in enumerate(texts):
        made = _document(text, strict)
        if isinstance(made, Document):
            where = f"{file.path}:{text.line}:{text.column}"
            documents.append(Located(made, file, number, where))
        elif made:
            broken[number] = made
    if not broken:
        return Parsed(tuple(documents), faults.first(found))
    marked, _ = yaml_text.read(data, file.path, source, marks=True)
    for number, wrong in broken.items():
        found += [_fault(problem, marked[number], data, file.path, source) for problem in wrong]
    names = frozenset(_name(texts[number].value) for number in broken)
    return Parsed(tuple(documents), faults.first(found), names)


def position(data: bytes, number: int, place: Place, *, key: bool = False) -> tuple[int, int]:
    """Return line and column of a value (or of its key) in one document; where it is not, of what is around it.

    Args:
        data: the file.
        number: of the document, as in ``Located``.
        place: keys and list positions from the document's top.
        key: whether the key is meant.
    """
    texts = _marked(data)
    if number >= len(texts):
        return 0, 0
    mark = _mark(texts[number], place, key)
    return mark.line, mark.column


@lru_cache(maxsize=1)
def _marked(data: bytes) -> list[TextDocument]:
    """Return the documents with positions; kept for the next fault, which is most often in the same file."""
    return yaml_text.read(data, "", "", marks=True)[0]


def _document(text: TextDocument, strict: bool) -> Document | list[Problem]:
    """Return the typed document, or what is wrong with it: nothing where it is somebody else's and may be."""
    value = text.value
    if not isinstance(value, dict):
        what = f"{yaml_text.type_name(value)} where a document should be"
        return [Problem((), faults.WRONG_TYPE, what, "begin with apiVersion and kind")] if strict else []
    version, kind = value.get("apiVersion"), value.get("kind")
    if not isinstance(version, str) or not version.startswith(_GROUP):
        return _not_ours(version, kind) if strict else []
    if version != API_VERSION:
        return [
            Problem(
                ("apiVersion",), faults.UNKNOWN_API_VERSION, f"{shown(version)} is not known", f"write {API_VERSION}"
            )
        ]
    if kind is None:
        return [Problem((), faults.MISSING_FIELD, "`kind` is missing", f"it is one of {', '.join(sorted(KINDS))}")]
    typed = KINDS.get(kind) if isinstance(kind, str) else None
    if typed is None:
        return [Problem(("kind",), faults.UNKNOWN_KIND, f"there is no kind {shown(kind)}", instead(str(kind), KINDS))]
    empty = list(_without_value(value, ())) if text.has_nulls else []
    try:
        made = typed.model_validate(value, by_alias=True, by_name=False)
    except ValidationError as error:
        places = {problem.place for problem in empty}
        return empty + [problem for problem in problems(error, typed) if problem.place not in places]
    return empty + check(made) or made


def _without_value(value: Value, place: Place) -> Iterator[Problem]:
    """Yield a problem for every null: `clusters:` with nothing behind it must not mean that it was left out."""
    if value is None:
        name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)[1:]
        yield Problem(place, faults.MISSING_FIELD, f"{name} has no value", "give it one, or take it out")
    for key, one in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, tuple) else ()):
        yield from _without_value(one, (*place, key))


def _not_ours(version: Value, kind: Value) -> list[Problem]:
    if version is None:
        return [Problem((), faults.MISSING_FIELD, "`apiVersion` is missing", f"write apiVersion: {API_VERSION}")]
    if isinstance(kind, str) and kind in KINDS and kind not in FOREIGN:
        what = f"{kind} of {shown(version)} is not ours"
        return [Problem(("apiVersion",), faults.UNKNOWN_API_VERSION, what, f"write apiVersion: {API_VERSION}")]
    what = f"the kind {shown(kind)} of {shown(version)} is not ours"
    return [Problem(("kind",), faults.UNKNOWN_KIND, what, instead(str(kind), KINDS))]


def _fault(problem: Problem, text: TextDocument, data: bytes, path: str, source: str) -> Fault:
    mark = _mark(text, problem.place, problem.key)
    if problem.within != (0, 0):
        mark = _within(mark, problem.within, data)
    what, do = (part.replace("{as written}", mark.text[:60]) for part in (problem.what, problem.do))
    return problem.code.at(path, what, do, line=mark.line, column=mark.column, source=source)


def _within(mark: Mark, within: tuple[int, int], data: bytes) -> Mark:
    """Return where a part of a scalar's text stands, as far as the text stands as it is written."""
    line, column = within
    if mark.style == "|":
        lines = data.decode().split("\n")[mark.line :]
        first = next((one for one in lines if one.strip()), "")
        return replace(mark, line=mark.line + line, column=len(first) - len(first.lstrip(" ")) + column)
    if line > 1 or mark.style == ">":
        return mark  # lines that were folded
    return replace(mark, column=mark.column + column - 1 + (mark.style in ("'", '"')))


def _mark(text: TextDocument, place: Place, key: bool) -> Mark:
    """Return where something stands, or the nearest thing around it."""
    if key and (*place, "") in text.marks:
        return text.marks[(*place, "")]
    if place in text.marks:
        return text.marks[place]
    while place:
        place = place[:-1]
        if (*place, "") in text.marks:
            return text.marks[(*place, "")]
        if place in text.marks:
            break
    return text.marks.get(place, Mark(text.line, text.column))


def _name(value: Value) -> tuple[str, str]:
    if not isinstance(value, dict):
        return "", ""
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return str(value.get("kind")), name if isinstance(name, str) else ""
