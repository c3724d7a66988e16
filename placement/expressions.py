"""Expressions in CEL over ``cluster`` and ``model``: checked when they are read, limited when they run. Pure.

``cluster.name``, ``cluster.labels``, ``cluster.facts`` and ``model.name``, ``model.labels`` are known. A missing label
reads as ''; a missing fact is an error of the evaluation, as there is no value that would be right for all tests.
Facts that are numbers are doubles, lists are lists of strings, everything else is text; ``quantity('1Gi')`` makes a
number, ``versionIn(text, range)`` compares versions.

The library bounds the nesting of what it parses and the iterations of what it evaluates; the length is bounded here.

Source: cel.dev, language definition; evaluated by cel-expr-python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional

from placement.facts import in_range, items, number, release
from placement.types import Subject, Target

MOST_CHARACTERS: Final = 2048
_MOST_OPERATORS: Final = 200
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<text>[rRbB]{0,2}(?:'''(?:\\.|[^\\])*?'''|\"\"\"(?:\\.|[^\\])*?\"\"\"|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"))
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>[0-9][0-9A-Za-z.]*)
    |(?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
_PLACE: Final = re.compile(r"<input>:(\d+):(\d+): (.*)")
_PATHS: Final = {("cluster", "labels"), ("model", "labels")}


class BadExpression(ValueError):
    """An expression cannot be used.

    Attributes:
        line, column: where, from 1.
        costly: it is too long or too deep, rather than wrong.
    """

    def __init__(self, what: str, line: int = 1, column: int = 1, *, costly: bool = False) -> None:
        super().__init__(what)
        self.line, self.column, self.costly = line, column, costly


@dataclass(frozen=True, slots=True)
class Expression:
    """One that can be evaluated.

    Attributes:
        text: as it was written.
        reads_facts: whether it mentions the cluster's facts.
        keys: labels of the cluster that it names.
        words: all text in it: what a label may have to be.
    """

    text: str
    compiled: Any
    reads_facts: bool
    keys: tuple[str, ...]
    words: tuple[str, ...]

    def evaluate(self, target: Target, subject: Subject, kinds: Mapping[str, str]) -> bool | str:
        """Return what it says of a cluster, or why it says nothing.

        Args:
            target: the cluster.
            subject: what is placed.
            kinds: fact name → ``number``, ``list``, ``version`` or ``text``; what is not named is read by its form.
        """
        data = {
            "cluster.name": target.name,
            "cluster.labels": dict(target.labels),
            "cluster.facts": _facts(target, kinds) if self.reads_facts else {},
            "model.name": subject.name,
            "model.labels": dict(subject.labels),
        }
        try:
            value = self.compiled.eval(data=data).value()
        except RuntimeError as error:
            return _reason(str(error))
        return value if isinstance(value, bool) else _reason(str(value))


@lru_cache(maxsize=1024)
def compile_expression(text: str) -> Expression:
    """Check an expression and make it ready.

    Raises:
        BadExpression: it is no CEL, its types do not fit, it is not true or false, or it is too long or too deep.
    """
    if len(text) > MOST_CHARACTERS:
        raise BadExpression(f"{len(text)} characters, at most {MOST_CHARACTERS}", costly=True)
    tokens = [match for match in _TOKEN.finditer(text) if match.lastgroup != "space"]
    signs = sum(match.lastgroup == "sign" and match[0] in "!-&|?+*/%<>=" for match in tokens)
    if signs > _MOST_OPERATORS:
        raise BadExpression(f"{signs} operators, at most {_MOST_OPERATORS}", costly=True)
    rewritten, inserted = _forgiving(text, tokens)
    try:
        compiled = _environment().compile(rewritten)
    except RuntimeError as error:
        raise _bad(str(error), rewritten, inserted) from None
    if compiled.return_type() != cel.Type.BOOL:
        raise BadExpression(f"it is {compiled.return_type().name().lower()}, wanted true or false")
    strings = tuple(dict.fromkeys(_unquoted(match[0]) for match in tokens if match.lastgroup == "text"))
    words = [match[0] for match in tokens]
    reads = any(words[n : n + 3] == ["cluster", ".", "facts"] for n in range(len(words)))
    return Expression(text, compiled, reads, tuple(_keys(tokens)), strings)


@lru_cache(maxsize=1)
def _environment() -> Any:
    text, of = cel.Type.STRING, cel.Type.Map
    return cel.NewEnv(
        variables={
            "cluster.name": text,
            "cluster.labels": of(text, text),
            "cluster.facts": of(text, cel.Type.DYN),
            "model.name": text,
            "model.labels": of(text, text),
        },
        extensions=[ext_optional.ExtOptional()],
        functions=[
            cel.FunctionDecl("quantity", [cel.Overload("quantity_string", cel.Type.DOUBLE, [text], impl=_quantity)]),
            cel.FunctionDecl(
                "versionIn", [cel.Overload("version_in_string", cel.Type.BOOL, [text, text], impl=_version_in)]
            ),
        ],
    )


def _quantity(text: str) -> float:
    found = number(text)
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    return found


def _version_in(text: str, wanted: str) -> bool:
    version = release(text)
    return version is not None and in_range(wanted, version)


def _facts(target: Target, kinds: Mapping[str, str]) -> dict[str, object]:
    return {name: _typed(text, kinds.get(name, "")) for name, (text, _) in target.facts.items()}


def _typed(text: str, kind: str) -> object:
    if kind == "list":
        return sorted(items(text))
    found = number(text) if kind in ("number", "") else None
    return text if found is None else found


def _forgiving(text: str, tokens: list[re.Match[str]]) -> tuple[str, list[tuple[int, int]]]:
    """Make missing labels read as '': ``x.labels[k]`` → ``x.labels[?k].orValue('')``, and ``x.labels.k`` likewise.

    Returns:
        The expression, and (place in it, length) of everything that was inserted.
    """
    inserts: list[tuple[int, str]] = []
    for n, match in enumerate(tokens):
        words = [one[0] for one in tokens[n : n + 5]]
        if tuple(words[0:3:2]) not in _PATHS or words[1] != "." or (n and tokens[n - 1][0] == "."):
            continue
        if words[3:4] == ["["] and words[4:5] != ["?"]:
            end = _closing(tokens, n + 3)
            if end is not None:
                inserts += [(tokens[n + 3].end(), "?"), (tokens[end].end(), ".orValue('')")]
        elif words[3:4] == ["."] and len(words) == 5 and match.lastgroup == "word":
            tested = [one[0] for one in tokens[max(0, n - 2) : n]] == ["has", "("]
            called = tokens[n + 5][0] == "(" if n + 5 < len(tokens) else False
            if not tested and not called and tokens[n + 4].lastgroup == "word":
                inserts += [(tokens[n + 3].end(), "?"), (tokens[n + 4].end(), ".orValue('')")]
    made, places, last, shift = [], [], 0, 0
    for place, piece in sorted(inserts, key=lambda one: one[0]):
        made += [text[last:place], piece]
        places.append((place + shift, len(piece)))
        last, shift = place, shift + len(piece)
    return "".join([*made, text[last:]]), places


def _closing(tokens: list[re.Match[str]], start: int) -> int | None:
    depth = 0
    for n in range(start, len(tokens)):
        depth += tokens[n][0] == "["
        depth -= tokens[n][0] == "]"
        if not depth:
            return n
    return None


def _keys(tokens: list[re.Match[str]]) -> Iterable[str]:
    found = []
    for n in range(len(tokens) - 4):
        words = [one[0] for one in tokens[n : n + 5]]
        if words[:3] == ["cluster", ".", "labels"]:
            if words[3] == "[" and tokens[n + 4].lastgroup == "text":
                found.append(_unquoted(words[4]))
            elif words[3] == "." and tokens[n + 4].lastgroup == "word":
                found.append(words[4])
    return dict.fromkeys(found)


def _unquoted(text: str) -> str:
    body = text.lstrip("rRbB")
    quotes = 3 if body[:3] in ("'''", '"""') else 1
    return re.sub(r"\\(.)", r"\1", body[quotes:-quotes], flags=re.DOTALL)


def _bad(message: str, rewritten: str, inserted: list[tuple[int, int]]) -> BadExpression:
    match = _PLACE.search(message)
    if match is None:
        costly = "limit" in message or "exceeded" in message
        return BadExpression(message.split(": ", 1)[-1].split(" [")[0].lower(), costly=costly)
    line, column = int(match[1]), int(match[2])
    start = sum(len(one) + 1 for one in rewritten.split("\n")[: line - 1])
    shift = sum(length for place, length in inserted if start <= place < start + column - 1)
    what = re.sub(r" \(in container ''\)", "", match[3])
    what = re.sub(r", expecting \{.*|expecting \{.*", "", what).strip()
    return BadExpression(what[:1].lower() + what[1:], line, max(1, column - shift))


def _reason(text: str) -> str:
    """Return why an evaluation says nothing, without the library's own words."""
    match = re.search(r'Key not found in map : "(.*)"', text)
    if match is not None:
        return f"fact {match[1]} is not known"
    if "budget" in text or "limit" in text.lower():
        return "it takes too many steps"
    what = text.split(": ", 1)[-1].split(" [")[0]
    return what[:1].lower() + what[1:200]
