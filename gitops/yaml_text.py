"""Bytes → plain values, from YAML that may be hostile; every fault has its line and column.

libyaml's scanner does the reading, but nothing of PyYAML builds values: its C composer recurses without a bound, so
that a file of brackets ends the process. Here depth, size and the expansion of aliases are bounded.

What a plain scalar means is the caller's choice: gitops/yaml_scalars.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml._yaml import CParser

from gitops import faults
from gitops.faults import Code, Fault
from gitops.yaml_scalars import Value, core

MAX_BYTES: Final = 1 << 20
MAX_DOCUMENTS: Final = 1000
MAX_DEPTH: Final = 64
MAX_TAG_DIRECTIVES: Final = 10
MAX_VALUES: Final = 100_000
"""Values in one file, aliases counted as what they stand for."""

_STANDARD: Final = "tag:yaml.org,2002:"

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """Where something stands; line and column from 1, the scalar as it was written, and how it is quoted."""

    line: int
    column: int
    text: str = ""
    style: str = ""


@dataclass(frozen=True, slots=True)
class TextDocument:
    """One document of a file: mappings are dicts with string keys, sequences are tuples.

    Attributes:
        value: None, bool, int, float, str, tuple or dict.
        line, column: where it begins, from 1.
        marks: place → position of every value, and under ``(*place, "")`` of every key, where they were asked for.
        has_nulls: whether any value in it is None.
    """

    value: Value
    line: int
    column: int
    marks: dict[Place, Mark] = field(default_factory=dict)
    has_nulls: bool = False


class Unreadable(Exception):
    """Ends the reading of a file; never leaves this module."""

    def __init__(self, code: Code, what: str, do: str, line: int, column: int) -> None:
        super().__init__(what)
        self.code, self.what, self.do, self.line, self.column = code, what, do, line, column


def read(
    data: bytes,
    path: str,
    source: str,
    scalar: Callable[[str], Value] = core,
    *,
    merge_keys: bool = False,
    marks: bool = False,
) -> tuple[list[TextDocument], list[Fault]]:
    """Return the documents of a file that are not empty, and every fault in its text.

    Never raises. A fault of syntax ends the file there; duplicate keys, tags and keys that are no strings do not.

    Args:
        data: the file; more than ``MAX_BYTES`` is a fault.
        path: for faults.
        source: for faults.
        scalar: value of a plain scalar.
        merge_keys: whether ``<<`` merges mappings.
        marks: whether to note where everything stands (it costs half as much again).
    """
    found: list[TextDocument] = []
    reader = _Reader(path, source, scalar, merge_keys, marks)
    try:
        _check_text(data)
        found.extend(reader.documents(data))
    except Unreadable as error:
        reader.note(error.code, error.what, error.do, error.line, error.column)
    except (yaml.MarkedYAMLError, yaml.reader.ReaderError) as error:
        reader.faults.append(_syntax(error, data, path, source))
    return found, reader.faults


def _check_text(data: bytes) -> None:
    if len(data) > MAX_BYTES:
        raise Unreadable(
            faults.TOO_LARGE, f"larger than {MAX_BYTES >> 20} MiB", "split it; large data is no document", 0, 0
        )
    if data.count(b"%TAG") > MAX_TAG_DIRECTIVES:  # libyaml compares each with all others
        raise Unreadable(faults.TAG, "many %TAG directives", "take them out: no tag is allowed", 1, 1)
    nul = data.find(b"\0")
    if nul >= 0:
        line, column = _position(data, nul)
        raise Unreadable(faults.NOT_TEXT, "a NUL byte", "save it as UTF-8 text", line, column)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line, column = _position(data, error.start)
        raise Unreadable(faults.NOT_TEXT, "not UTF-8", "save it as UTF-8 text", line, column) from None


class _Reader:
    """Builds values out of the events of one file."""

    def __init__(
        self, path: str, source: str, scalar: Callable[[str], Value], merge_keys: bool, with_marks: bool
    ) -> None:
        self.path, self.source, self.scalar, self.merge_keys = path, source, scalar, merge_keys
        self.faults: list[Fault] = []
        self.with_marks = with_marks
        self.next: Callable[[], Any] = lambda: None
        self.marks: dict[Place, Mark] = {}
        self.anchors: dict[str, tuple[Value, int, int]] = {}  # value, values in it, levels below it
        self.values = 0
        self.deepest = 0
        self.has_nulls = False

    def note(self, code: Code, what: str, do: str, line: int, column: int) -> None:
        self.faults.append(code.at(self.path, what, do, line=line, column=column, source=self.source))

    def documents(self, data: bytes) -> Iterator[TextDocument]:
        parser = CParser(data)
        self.next = parser.get_event
        number = 0
        while not isinstance(event := self.next(), yaml.StreamEndEvent):
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            number += 1
            if number > MAX_DOCUMENTS:
                do = "split the file"
                raise Unreadable(faults.TOO_LARGE, f"more than {MAX_DOCUMENTS} documents", do, *_at(event))
            self.anchors, self.marks, self.has_nulls = {}, {}, False
            first = self.next()
            value = self.value(first, (), 0)
            if value is not None:
                line, column = _at(first)
                yield TextDocument(value, line, column, self.marks, self.has_nulls)

    def value(self, event: Any, place: Place, depth: int) -> Value:
        self.values += 1
        if self.values > MAX_VALUES:
            do = "split the file, and write less with aliases"
            raise Unreadable(faults.TOO_LARGE, f"more than {MAX_VALUES:,} values in one file", do, *_at(event))
        self.go_down(event, depth)
        if self.with_marks:
            self.marks[place] = Mark(*_at(event), getattr(event, "value", ""), getattr(event, "style", None) or "")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, depth)
        if event.anchor is None:
            return self.content(event, place, depth)
        values, deepest, self.deepest = self.values, self.deepest, depth
        value = self.content(event, place, depth)
        self.anchors[event.anchor] = (value, self.values - values + 1, self.deepest - depth)
        self.deepest = max(self.deepest, deepest)
        return value

    def go_down(self, event: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            do = "no document is nested like that"
            raise Unreadable(faults.TOO_LARGE, f"nested deeper than {MAX_DEPTH} levels", do, *_at(event))
        if depth > self.deepest:
            self.deepest = depth

    def content(self, event: Any, place: Place, depth: int) -> Value:
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar_value(event)
        if isinstance(event, yaml.MappingStartEvent):
            self.check_tag(event, "map")
            return self.mapping(event, place, depth)
        self.check_tag(event, "seq")
        return self.sequence(place, depth)

    def alias(self, event: Any, depth: int) -> Value:
        known = self.anchors.get(event.anchor)
        if known is None:
            do = "define the anchor before it, and not around it"
            raise Unreadable(faults.BAD_YAML, f"alias *{event.anchor} has no anchor before it", do, *_at(event))
        self.go_down(event, depth + known[2])
        self.values += known[1]
        return known[0]

    def scalar_value(self, event: Any) -> Value:
        text: str = event.value
        if "\0" in text:
            self.note(faults.NOT_TEXT, "an escaped NUL character", "take it out", *_at(event))
        if event.tag is None:
            value = self.scalar(text) if event.implicit[0] else text
            self.has_nulls = self.has_nulls or value is None
            return value
        kind = event.tag.removeprefix(_STANDARD)
        if kind in ("str", "!"):
            return text
        if kind in ("int", "float", "bool", "null"):
            value = self.scalar(text)
            self.has_nulls = self.has_nulls or value is None
            return value
        self.check_tag(event, "")
        return text

    def check_tag(self, event: Any, allowed: str) -> None:
        if event.tag is not None and event.tag not in ("!", _STANDARD + allowed):
            tag = event.tag.replace(_STANDARD, "!!")
            self.note(faults.TAG, f"the tag {tag[:60]} is not allowed", "write the value itself", *_at(event))

    def sequence(self, place: Place, depth: int) -> Value:
        items: list[Value] = []
        while not isinstance(event := self.next(), yaml.SequenceEndEvent):
            items.append(self.value(event, (*place, len(items)) if self.with_marks else place, depth + 1))
        return tuple(items)

    def mapping(self, start: Any, place: Place, depth: int) -> Value:
        found: dict[str, Value] = {}
        merged: list[Value] = []
        while not isinstance(event := self.next(), yaml.MappingEndEvent):
            key = self.key(event, depth)
            if key is None:
                self.value(self.next(), (*place, "\0") if self.with_marks else place, depth + 1)
                continue
            inner = place
            if self.with_marks:
                inner = (*place, key)
                if inner not in self.marks:
                    self.marks[(*inner, "")] = Mark(*_at(event), key)
            if self.merge_keys and key == "<<" and event.implicit[0]:
                merged.append(self.value(self.next(), inner, depth + 1))
                continue
            if key in found:
                self.note(faults.DUPLICATE_KEY, f"{_short(key)} stands here twice", "keep one of them", *_at(event))
                self.value(self.next(), (*place, "\0") if self.with_marks else place, depth + 1)
                continue
            found[key] = self.value(self.next(), inner, depth + 1)
        return self.merge(start, found, merged) if merged else found

    def key(self, event: Any, depth: int) -> str | None:
        """Return a key's text; None, and a fault, where it is no text."""
        if not isinstance(event, yaml.ScalarEvent):
            what, do = "a key that is no text", "write keys as plain words"
            if isinstance(event, yaml.AliasEvent):
                value = self.alias(event, depth)
                if isinstance(value, str):
                    return value
            else:
                self.value(event, ("\0",), depth + 1)
            self.note(faults.BAD_YAML, what, do, *_at(event))
            return None
        value = self.scalar_value(event)
        if not isinstance(value, str) and not self.merge_keys:
            what = f"the key {_short(event.value)} is read as {type_name(value)}"
            self.note(faults.NOT_QUOTED, what, f'quote it: "{_short(event.value)}"', *_at(event))
        text: str = event.value
        if event.anchor is not None:
            self.anchors[event.anchor] = (text, 1, 0)
        return text

    def merge(self, start: Any, own: dict[str, Value], merged: list[Value]) -> Value:
        together: dict[str, Value] = {}
        for one in [one for value in merged for one in (value if isinstance(value, tuple) else (value,))]:
            if not isinstance(one, dict):
                self.note(faults.BAD_YAML, "`<<` merges something that is no mapping", "name a mapping", *_at(start))
                continue
            self.values += len(one)
            together = {**one, **together}
        return {**together, **own}


def type_name(value: Value) -> str:
    """Return what a value is, for people."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case tuple():
            return "a list"
        case _:
            return "a mapping"


def _short(text: str) -> str:
    shown = "".join(c if c.isprintable() else "�" for c in text[:60])
    return shown + ("…" if len(text) > len(shown) else "")


def _at(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _position(data: bytes, offset: int) -> tuple[int, int]:
    before = data[:offset]
    start = before.rfind(b"\n") + 1
    return before.count(b"\n") + 1, len(before[start:].decode(errors="replace")) + 1


def _syntax(error: Exception, data: bytes, path: str, source: str) -> Fault:
    if isinstance(error, yaml.reader.ReaderError):
        line, column = _position(data, error.position)
        what = f"a character that YAML does not allow ({error.reason})"
        return faults.NOT_TEXT.at(path, what, "take it out", line=line, column=column, source=source)
    assert isinstance(error, yaml.MarkedYAMLError)
    mark = error.problem_mark or error.context_mark
    line, column = (0, 0) if mark is None else (mark.line + 1, mark.column + 1)
    what = ", ".join(part for part in (error.context, error.problem) if part)
    lines = data.decode().split("\n")
    text = lines[line - 1] if 0 < line <= len(lines) else ""
    if "\t" in text[: len(text) - len(text.lstrip())] or "'\\t'" in what:
        return faults.TAB_IN_INDENTATION.at(
            path, "a tab in the indentation", "indent with spaces", line=line, column=column, source=source
        )
    return faults.BAD_YAML.at(path, f"not YAML: {what}", "mend the syntax", line=line, column=column, source=source)
