"""What a plain scalar of YAML means, by two sets of rules. Pure.

YAML 1.2 core for documents of ours: ``no`` is a string, ``1e-4`` a number, there are no dates. What Kubernetes' own
parser does for its manifests: ``no`` is a boolean, ``0644`` is octal.
"""

from __future__ import annotations

import re
from typing import Any, Final

Value = Any
"""None, bool, int, float, str; in a document also tuple and dict."""


def core(text: str) -> Value:
    """Return a plain scalar's value by the core rules of YAML 1.2. Source: YAML 1.2.2, 10.3.2."""
    if text and text[0] not in "+-.0123456789~nNtTfF":
        return text
    if text in _CORE_WORDS:
        return _CORE_WORDS[text]
    if _CORE_INT.match(text) and len(text) <= _MAX_DIGITS:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    return float(text) if _CORE_FLOAT.match(text) and len(text) <= _MAX_DIGITS else text


def kubernetes(text: str) -> Value:
    """Return a plain scalar's value as Kubernetes' parser does; dates stay strings. Source: go-yaml v2, resolve.go."""
    if text in _OLD_WORDS:
        return _OLD_WORDS[text]
    if _OLD_OCTAL.match(text) and len(text) <= _MAX_DIGITS:
        return int(text.replace("_", ""), 8)
    plain = text.replace("_", "") if text[:1] in "+-.0123456789" else text
    return core(plain) if not isinstance(core(plain), str) else text


_MAX_DIGITS: Final = 400
_CORE_WORDS: Final[dict[str, Value]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_OLD_WORDS: Final[dict[str, Value]] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF"), False),
    **_CORE_WORDS,
}
_CORE_INT: Final = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_CORE_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_OLD_OCTAL: Final = re.compile(r"[-+]?0[0-7_]+\Z")
