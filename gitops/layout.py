"""Where documents stand in a repository: paths → what a file is. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

Role = Literal["document", "maybe", "version", "content", "other"]

_FOLDERS: Final = ("clusters/", "placements/", "sources/", "runtimes/")
_OURS: Final = re.compile(r"(?:fleet|(?:models|workloads)/[^/]+/(?:model|workload))\.ya?ml\Z")
_VERSION: Final = re.compile(r"((?:models|workloads)/[^/]+/|(?:[^/]+/)*?)versions/([^/]+)/(.+)", re.DOTALL)
_SUFFIXES: Final = (".yaml", ".yml")
_OUR_API: Final = re.compile(rb"apiVersion[\"']?\s*:\s*[\"']?edgeferry\.dev/")
_KEEPERS: Final = frozenset({".gitkeep", ".keep", ".gitattributes", ".gitignore"})


@dataclass(frozen=True, slots=True)
class Standing:
    """What a file is by its path.

    Attributes:
        role: ``document``: holds documents of ours and nothing else; ``maybe``: YAML that may hold some; ``version``:
            a model's version.yaml; ``content``: anything else in a version folder; ``other``: not looked at.
        owner: directory that ``versions/`` stands in, for ``version`` and ``content``; ends with a slash, or is empty.
        version: name of the version's folder, for the same.
    """

    role: Role
    owner: str = ""
    version: str = ""


_DOCUMENT: Final = Standing("document")
_MAYBE: Final = Standing("maybe")
_OTHER: Final = Standing("other")


def standing(path: str) -> Standing:
    """Return what the file at ``path`` is."""
    if "versions/" in path and (found := _VERSION.match(path)) is not None and not _hidden(found[1]):
        before, version, name = found.groups()
        if name in ("version.yaml", "version.yml") and not before.startswith("workloads/"):
            return Standing("version", before, version)
        return _OTHER if name.rpartition("/")[2] in _KEEPERS else Standing("content", before, version)
    if not path.endswith(_SUFFIXES) or _hidden(path):
        return _OTHER
    return _DOCUMENT if path.startswith(_FOLDERS) or _OURS.match(path) else _MAYBE


def speaks_of_us(data: bytes) -> bool:
    """Tell whether a file outside our folders holds a document with our ``apiVersion``."""
    return _OUR_API.search(data) is not None


def parent(path: str) -> str:
    """Return the directory of a path, with a slash at its end; empty for the root."""
    return path[: path.rfind("/") + 1]


def _hidden(path: str) -> bool:
    return path.startswith(".") or "/." in path
