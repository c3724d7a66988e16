"""Syntax of names, labels and versions; each check raises ValueError with the reason."""

from __future__ import annotations

import re
from typing import Final

from agent.wire.signature import is_public_key
from placement import fact_names, facts
from placement.versions import parse_version, parse_wish

_MAX_LABEL: Final = 63
_BRANCH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}\Z")
_LABEL_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_LABEL_WORDS: Final = "write at most 63 of A-Z a-z 0-9 - _ . that begin and end with a letter or digit"
_DNS: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")


def is_name(text: str) -> bool:
    """Tell whether a text may name a document: a DNS label of at most 53 characters."""
    return re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?", text) is not None


def label_key(text: str) -> str:
    """Check a label key: ``[prefix/]name`` as Kubernetes has it."""
    prefix, slash, name = text.rpartition("/")
    if slash and (len(prefix) > 253 or not _DNS.match(prefix)):
        raise ValueError(f"label key prefix {prefix[:80]!r} is not allowed: write a DNS name in lower case")
    if not _LABEL_NAME.match(name):
        raise ValueError(f"label key {text[:80]!r} is not allowed: {_LABEL_WORDS}")
    return text


def label_value(text: str) -> str:
    """Check a label value: empty, or at most 63 characters as Kubernetes has it."""
    if text and not _LABEL_NAME.match(text):
        raise ValueError(f"label value {text[:80]!r} is not allowed: {_LABEL_WORDS}")
    return text


def version_number(text: str) -> str:
    """Check a semantic version without build metadata, short enough to be a label value."""
    parse_version(text)
    if len(text) > _MAX_LABEL:
        raise ValueError(f"version {text[:20]}… has {len(text)} characters: at most {_MAX_LABEL} are allowed")
    return text


def version_wish(text: str) -> str:
    """Check an exact version, a range, or ``channel: NAME``."""
    parse_wish(text)
    return text


def quantity(text: str) -> str:
    """Check a Kubernetes quantity: ``512Mi``, ``500m``, ``2``."""
    if facts.quantity(text) is None:
        raise ValueError(f"{text[:40]!r} is no quantity: write it like 512Mi, 1.5Gi, 500m or 2")
    return text


def fact_name(text: str) -> str:
    """Check the name of a fact."""
    if not fact_names.NAME.match(text):
        raise ValueError(f"{text[:80]!r} is no name of a fact: write at most 63 of a-z 0-9 - _ . like memory.capacity")
    return text


def relative_path(text: str) -> str:
    """Check a path that stays below where it starts: relative, with slashes, no ``..``."""
    if text.startswith("/") or "\\" in text or "\0" in text or any(part in ("", "..") for part in text.split("/")):
        raise ValueError(
            f"path {text[:80]!r} is not allowed: write a relative one, with single slashes and without `..`"
        )
    return text


def branch(text: str) -> str:
    """Check the name of a Git branch (a stricter rule than Git's own, so that it is never an option or a range)."""
    if not _BRANCH.match(text) or ".." in text or "//" in text or text.endswith(("/", ".", ".lock")):
        raise ValueError(f"{text[:80]!r} is not the name of a branch")
    return text


def repository_url(text: str) -> str:
    """Check what ``git clone`` is given: no option, no helper program, no password."""
    if not text or text.startswith("-") or "::" in text or any(c.isspace() or not c.isprintable() for c in text):
        raise ValueError(f"{text[:80]!r} is not the URL of a Git repository: write what `git clone` takes")
    scheme, _, rest = text.partition("://")
    if rest and scheme != "ssh" and "@" in rest.partition("/")[0]:
        raise ValueError("the URL holds a user or password: give them to Git by its credential helper")
    return text


def public_key(text: str) -> str:
    """Check an ed25519 public key in OpenSSH form, without its comment."""
    if not is_public_key(text):
        raise ValueError(
            "not an ed25519 public key: write it as in id_ed25519.pub, without its comment (`ssh-ed25519 AAAA…`)"
        )
    return text


def fits(glob: str, name: str) -> bool:
    """Tell whether a name fits a pattern in which ``*`` stands for any run of characters; never slow."""
    first, *parts = glob.split("*")
    if not parts:
        return glob == name
    *middle, last = parts
    end = len(name) - len(last)
    at = len(first)
    if not name.startswith(first) or not name.endswith(last) or end < at:
        return False
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
