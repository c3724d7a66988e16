"""Syntax of names, labels and versions; each check raises ValueError with the reason."""

from __future__ import annotations

import re
from typing import Final

from placement.versions import parse_version, parse_wish

_LABEL_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_DNS: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")


def label_key(text: str) -> str:
    """Check a label key: ``[prefix/]name`` as Kubernetes has it."""
    prefix, slash, name = text.rpartition("/")
    if slash and (len(prefix) > 253 or not _DNS.match(prefix)):
        raise ValueError(f"label key prefix {prefix!r} is not a DNS name in lower case")
    if not _LABEL_NAME.match(name):
        raise ValueError(
            f"label key {text!r}: at most 63 of A-Z a-z 0-9 - _ . that begin and end with a letter or digit"
        )
    return text


def label_value(text: str) -> str:
    """Check a label value: empty, or at most 63 characters as Kubernetes has it."""
    if text and not _LABEL_NAME.match(text):
        raise ValueError(
            f"label value {text!r}: at most 63 of A-Z a-z 0-9 - _ . that begin and end with a letter or digit"
        )
    return text


def version_number(text: str) -> str:
    """Check a semantic version without build metadata."""
    parse_version(text)
    return text


def version_wish(text: str) -> str:
    """Check an exact version, a range, or ``channel: NAME``."""
    parse_wish(text)
    return text
