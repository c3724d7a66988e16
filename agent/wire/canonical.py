"""Canonical JSON and digests: the same value is the same bytes, everywhere.

Canonical here: UTF-8, keys sorted by code point, no spaces, no floats, one newline at the end.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final

Json = Any
"""What ``json.loads`` returns; it never leaves the codecs."""

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}\Z")
_encode: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical(value: Json) -> bytes:
    """Return the canonical JSON bytes of ``value``."""
    return _encode(value).encode() + b"\n"


def digest(data: bytes) -> str:
    """Return ``sha256:<64 hex digits>`` of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    """Tell whether ``text`` is a sha256 digest as we write it."""
    return _DIGEST.match(text) is not None
