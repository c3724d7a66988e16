"""What pydantic finds wrong with a document, in people's words and with its place. Pure."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gitops import faults
from gitops.document_checks import Problem
from gitops.field_types import PATTERNS, Spec
from gitops.kinds import Document
from gitops.yaml_text import Place, type_name

_KEY = "[key]"


def problems(error: ValidationError, kind: type[Document]) -> list[Problem]:
    """Return every fault that ``error`` lists, each once; of very many, a few more than are shown."""
    found = [_problem(one, kind) for one in error.errors(include_url=False)[: faults.MOST + 1]]
    return list(dict.fromkeys(found))


def fields(spec: type[Spec]) -> dict[str, Any]:
    """Return the fields of a definition by the names that stand in YAML."""
    return {info.alias or name: info.annotation for name, info in spec.model_fields.items()}


def definitions(spec: type[Spec], place: str = "") -> Iterator[tuple[str, type[Spec]]]:
    """Yield a definition and everything that stands within it, with the places: ``spec.clusters.``."""
    yield place, spec
    for name, annotation in fields(spec).items():
        inner = _plain(annotation)
        while get_origin(inner) in (tuple, dict):
            inner = _plain(get_args(inner)[0 if get_origin(inner) is tuple else 1])
        if isinstance(inner, type) and issubclass(inner, Spec):
            yield from definitions(inner, f"{place}{name}.")


def _problem(error: ErrorDetails, kind: type[Document]) -> Problem:
    place: Place = error["loc"]
    key = place[-1:] == (_KEY,)
    place = place[:-1] if key else place
    name = _shown(place)
    match error["type"]:
        case "extra_forbidden":
            return _unknown(place, kind)
        case "missing":
            do = f"write it: it is needed in {_shown(place[:-1])}" if place[:-1] else "write it: it is needed"
            return Problem(place, faults.MISSING_FIELD, f"`{place[-1]}` is missing", do)
        case "string_type":
            return _not_text(place, name, error["input"])
        case "string_pattern_mismatch":
            wanted = PATTERNS.get(error["ctx"]["pattern"], error["ctx"]["pattern"])
            return Problem(
                place, faults.BAD_VALUE, f"{name}: {shown(error['input'])} is not allowed", f"write {wanted}", key
            )
        case "literal_error":
            return _not_one_of(place, name, error)
        case "value_error":
            what, _, do = str(error["ctx"]["error"]).partition(": ")
            return Problem(place, faults.BAD_VALUE, f"{name}: {what}", do or "mend it", key)
        case "greater_than_equal":
            return _out_of_bounds(place, name, error, "less", "at least", "ge")
        case "less_than_equal":
            return _out_of_bounds(place, name, error, "more", "at most", "le")
        case "string_too_short" | "too_short":
            return Problem(place, faults.BAD_VALUE, f"{name} is empty", "write something", key)
        case "finite_number":
            return Problem(place, faults.BAD_VALUE, f"{name}: {{as written}} is not finite", "write digits")
    wanted = _WANTED.get(error["type"])
    if wanted is not None:
        what = f"{name} is {type_name(error['input'])}, wanted {wanted}"
        return Problem(place, faults.WRONG_TYPE, what, _EXAMPLES.get(wanted, "mend it"), key)
    message = error["msg"][:1].lower() + error["msg"][1:]
    return Problem(place, faults.BAD_VALUE, f"{name}: {message}", "mend it", key)


_WANTED: Mapping[str, str] = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
}
_EXAMPLES: Mapping[str, str] = {
    "a list": "write it as [one, two], or one `- ` a line",
    "a mapping": "write it as {key: value}, or one `key: value` a line",
    "true or false": "write true or false, without quotes",
    "a whole number": "write digits, without quotes",
    "a number": "write digits, without quotes",
}


def _unknown(place: Place, kind: type[Document]) -> Problem:
    name = str(place[-1])[:200]
    inside = _definition(kind, place[:-1])
    if inside is None:
        return Problem(place, faults.UNKNOWN_FIELD, f"unknown field {shown(name)}", "take it out", True)
    if name in inside.later:
        what, do = f"`{name}` is not implemented in this version", "take it out: nothing would act on it"
        return Problem(place, faults.NOT_IMPLEMENTED, what, do, True)
    known = fields(inside)
    lower = {one.lower(): one for one in known}
    plain = name.lower().replace("_", "").replace("-", "")
    near = [lower[one] for one in difflib.get_close_matches(plain, lower, 1, 0.6)]
    here = f" in {_shown(place[:-1])}" if place[:-1] else ""
    if near:
        return Problem(
            place, faults.UNKNOWN_FIELD, f"unknown field {shown(name)}{here}", f"did you mean `{near[0]}`?", True
        )
    do = f"known are {', '.join(known)}" if known else "take it out: there are no fields here"
    return Problem(place, faults.UNKNOWN_FIELD, f"unknown field {shown(name)}{here}", do, True)


def _definition(kind: type[Spec], place: Place) -> type[Spec] | None:
    """Return the definition of the mapping at a place; None where its keys are free."""
    at: Any = kind
    for step in place:
        at = _plain(at)
        if isinstance(at, type) and issubclass(at, Spec):
            at = fields(at).get(str(step))
        elif get_origin(at) in (tuple, dict):
            at = get_args(at)[0 if get_origin(at) is tuple else 1]
        else:
            return None
    at = _plain(at)
    return at if isinstance(at, type) and issubclass(at, Spec) else None


def _plain(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return _plain(next(one for one in get_args(annotation) if one is not types.NoneType))
    return annotation


def _not_text(place: Place, name: str, value: Any) -> Problem:
    if value is None:
        return Problem(place, faults.WRONG_TYPE, f"{name} has no value", 'give it one; empty text is ""')
    if isinstance(value, tuple | dict):
        return Problem(place, faults.WRONG_TYPE, f"{name} is {type_name(value)}, wanted text", "write one word")
    what = f"{name}: {{as written}} is read as {type_name(value)}, wanted text"
    return Problem(place, faults.NOT_QUOTED, what, 'quote it: "{as written}"')


def _out_of_bounds(place: Place, name: str, error: ErrorDetails, what: str, do: str, bound: str) -> Problem:
    limit = error["ctx"][bound]
    text = f"{name}: {shown(error['input'])} is {what} than {limit}"
    return Problem(place, faults.BAD_VALUE, text, f"write {do} {limit}")


def _not_one_of(place: Place, name: str, error: ErrorDetails) -> Problem:
    wanted = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
    value = str(error["input"])
    lower = {one.lower(): one for one in wanted}
    near = difflib.get_close_matches(value.lower()[:80], lower, 1)
    do = f"did you mean {lower[near[0]]}?" if near else f"write one of {', '.join(wanted)}"
    if len(wanted) == 1:
        do = f"write {wanted[0]}"
    return Problem(place, faults.BAD_VALUE, f"{name}: {shown(value)} is none of {', '.join(wanted)}", do)


def _shown(place: Place) -> str:
    """Return a place as people write it: ``spec.clusters[0].names``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_clean(step)}" for step in place)
    return text.lstrip(".")


def shown(value: Any) -> str:
    """Return what somebody wrote, short and printable."""
    return f"`{_clean(str(value))}`"


def _clean(text: str) -> str:
    shown = "".join(c if c.isprintable() else "�" for c in text[:80])
    return shown + ("…" if len(text) > 80 else "")
