"""Files of a host that survive a power cut: written beside, flushed, renamed; and what consumers read of models."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from agent import durable
from agent.actions import ModelPoint
from agent.durable import sync_directory
from agent.wire.errors import Wait
from agent.wire.fields import Fields

MODELS_JSON: Final = "models.json"
MODELS_ENV: Final = "models.env"


class PathTaken(Wait):
    """Where a model's stable path should be stands something that we did not put there."""

    code = "EF4108"


def point(link: Path, target: Path) -> None:
    """Have the symbolic link ``link`` lead to ``target``, at once: there is no moment without it.

    Raises:
        PathTaken: something that is no link stands there.
    """
    if os.path.lexists(link):
        if not link.is_symlink():
            raise PathTaken("a file that is not ours stands there", where=str(link), do="move it away")
        if leads_to(link, target):
            return
    link.parent.mkdir(parents=True, exist_ok=True)
    beside = link.with_name(f".{link.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(os.path.relpath(target, link.parent))
    beside.replace(link)
    sync_directory(link.parent)


def leads_to(link: str | Path, target: str | Path) -> bool:
    """Tell whether ``link`` is a link to exactly ``target``. Asked at every look, of every delivered file."""
    try:
        return os.readlink(link) == _way(str(link), str(target))  # noqa: PTH115  # a Path is slow to make
    except OSError:
        return False


@lru_cache(4096)
def _way(link: str, target: str) -> str:
    return os.path.relpath(target, Path(link).parent)


def unlink_ours(link: Path) -> None:
    """Remove the link and its folder where nothing else is in it; what is no link stays."""
    if link.is_symlink():
        link.unlink()
    try:
        link.parent.rmdir()
    except OSError:
        return


def variables(points: Sequence[ModelPoint]) -> dict[str, str]:
    """Return ``<NAME>_URL``, ``<NAME>_PATH`` and ``<NAME>_VERSION`` of every model."""
    found: dict[str, str] = {}
    for one in sorted(points, key=lambda point: point.name):
        name = re.sub(r"[^A-Z0-9]", "_", one.name.upper())
        found[f"{name}_VERSION"] = one.version
        if one.url:
            found[f"{name}_URL"] = one.url
        if one.path:
            found[f"{name}_PATH"] = one.path
    return found


def write_models(directory: Path, announced: Mapping[str, Sequence[ModelPoint]]) -> None:
    """Write ``models.json`` and ``models.env`` for consumers, unless they say just that already.

    Args:
        directory: of the two files.
        announced: namespace → models; none at all removes the files.
    """
    namespaces = {name: points for name, points in announced.items() if points}
    as_json, as_env = directory / MODELS_JSON, directory / MODELS_ENV
    if not namespaces:
        as_json.unlink(missing_ok=True)
        as_env.unlink(missing_ok=True)
        return
    value = {
        "format": 1,
        "models": [
            {"namespace": name, "name": one.name, "version": one.version, "url": one.url, "path": one.path}
            for name in sorted(namespaces)
            for one in sorted(namespaces[name], key=lambda point: point.name)
        ],
    }
    env = env_file(namespaces)
    data = json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"
    directory.mkdir(parents=True, exist_ok=True)
    for path, wanted in ((as_env, env), (as_json, data)):
        if not path.is_file() or path.read_bytes() != wanted:
            durable.write(path, wanted, 0o644)


def env_file(announced: Mapping[str, Sequence[ModelPoint]]) -> bytes:
    """Return ``models.env``: lines that a shell and systemd read alike."""
    lines = variables([one for name in sorted(announced) for one in announced[name]])
    return "".join(f"{name}={shlex.quote(text)}\n" for name, text in sorted(lines.items())).encode()


def read_models(directory: Path) -> dict[str, tuple[ModelPoint, ...]]:
    """Return what ``write_models`` wrote; nothing where the file is missing.

    Raises:
        Malformed: somebody changed it.
    """
    path = directory / MODELS_JSON
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    announced: dict[str, list[ModelPoint]] = {}
    for namespace, one in Fields.parse(data, str(path)).each("models", _read_point):
        announced.setdefault(namespace, []).append(one)
    return {namespace: tuple(points) for namespace, points in announced.items()}


def _read_point(item: Fields) -> tuple[str, ModelPoint]:
    one = ModelPoint(item.text("name"), item.text("version"), item.text("url", ""), item.text("path", ""))
    return item.text("namespace"), one
