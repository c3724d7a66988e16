"""What an entry's values mean to a Helm chart: dotted names and text → Helm values. Pure.

``image.tag: "1.27"`` becomes ``{"image": {"tag": 1.27}}``: a value is read as YAML 1.2 reads it, so that numbers,
booleans, lists and mappings can be written, and ``'"1.27"'`` is text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from agent.wire.canonical import Json
from agent.wire.errors import Stop

MODEL_VALUES: Final = "edgeferry"
"""Helm value with the staged model's place, for charts whose version has a model beside it."""

_MOST_CHARACTERS: Final = 65_536


class BadChartValue(Stop):
    """A value cannot be given to a Helm chart."""

    code = "EF1035"


def helm_values(values: Mapping[str, str], where: str = "") -> dict[str, Json]:
    """Return the values of an entry as Helm takes them.

    Args:
        values: dotted name → text.
        where: for messages.

    Raises:
        BadChartValue: a value is no YAML, or a name stands both for a value and for a group of values.
    """
    found: dict[str, Json] = {}
    for name in sorted(values):
        *groups, last = name.split(".")
        here: Any = found
        for group in groups:
            here = here.setdefault(group, {})
            if not isinstance(here, dict):
                break
        if not isinstance(here, dict) or last in here:
            raise BadChartValue(
                f"{name} contradicts another value", where=where, do="give a group or its members, not both"
            )
        if "" in (*groups, last):
            raise BadChartValue(f"{name} has an empty part", where=where, do="write names separated by single dots")
        here[last] = _read(name, values[name], where)
    return found


def _read(name: str, text: str, where: str) -> Json:
    try:
        if len(text) > _MOST_CHARACTERS or ("*" in text and "&" in text):
            raise ValueError("too long, or with anchors")
        value = yaml.load(text, Loader=_Core)
        _check(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        do = "quote it twice to make it text: '\"…\"'"
        raise BadChartValue(f"{name}: {text[:60]!r} is no YAML: {said}", where=where, do=do) from None
    return value


def _check(value: Json) -> None:
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("a name that is no text")
        for one in value.values():
            _check(one)
    elif isinstance(value, list):
        for one in value:
            _check(one)


class _Core(yaml.SafeLoader):
    """YAML 1.2's core rules: ``no`` is text, ``1e-4`` a number."""


_Core.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Core.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)
_Core.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
_Core.add_constructor("tag:yaml.org,2002:float", lambda loader, node: float(node.value))
