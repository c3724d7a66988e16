"""The lock file → wheels of one architecture, installed below a root."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from images.debian import CannotBuild
from images.recipes import MACHINES, Architecture, Recipe

PYTHON: Final = (3, 11)
SITE: Final = "usr/local/lib/python3.11/dist-packages"
"""Where Debian's Python looks for what its packages did not bring."""

_PRUNED: Final = (
    "bin", "numpy/**/tests", "numpy/f2py", "onnxruntime/quantization", "onnxruntime/tools", "onnxruntime/transformers",
    "onnxruntime/datasets", "kubernetes/aio", "websocket/tests", "certifi/tests", "__pycache__",
)  # fmt: skip
"""Globs of what no image runs."""
_NEWEST_GLIBC: Final = 36
_OLDEST_GLIBC: Final = 17


def locked(recipe: Recipe, checkout: Path, architecture: Architecture) -> str:
    """Return the part of requirements.lock that an image needs, hashes included; sorted.

    Raises:
        CannotBuild: the lock file, or the environment that this runs in, lacks one of them.
    """
    lock = _by_name((checkout / "requirements.lock").read_text())
    names = sorted(_closure(_declared(recipe, checkout), architecture) - recipe.without)
    missing = [name for name in names if name not in lock]
    if missing:
        raise CannotBuild(f"requirements.lock lacks {', '.join(missing)}: run `make lock`")
    return "".join(lock[name] for name in names)


def install(requirements: str, architecture: Architecture, root: Path, scratch: Path) -> None:
    """Install exactly these wheels below ``root``, verified by their hashes.

    Raises:
        CannotBuild: pip could not; its words are in the text.
    """
    listed = scratch / "requirements.txt"
    listed.write_text(requirements)
    machine = MACHINES[architecture]
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1)]
    platforms += [f"manylinux2014_{machine}"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-warn-script-location"]
    command += [word for one in platforms for word in ("--platform", one)]
    command += ["--python-version", ".".join(map(str, PYTHON)), "--implementation", "cp"]
    command += ["--target", str(root / SITE), "--requirement", str(listed)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PIP_USER": "0"}, check=False)
    if done.returncode:
        raise CannotBuild(f"pip could not install the wheels for {architecture}:\n{done.stderr.strip()[-2000:]}")
    for record in (root / SITE).glob("*.dist-info/*"):
        # What pip writes about this installation, and not about the wheel, differs from run to run.
        if record.name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
            record.unlink()
    for pattern in _PRUNED:
        for folder in (root / SITE).glob(pattern):
            shutil.rmtree(folder)


def _declared(recipe: Recipe, checkout: Path) -> Iterator[Requirement]:
    config = configparser.ConfigParser()
    config.read(checkout / "setup.cfg")
    lines = [*recipe.wheels]
    for extra in recipe.extras:
        text = config["options.extras_require"][extra] if extra else config["options"]["install_requires"]
        lines += text.strip().splitlines()
    yield from map(Requirement, lines)


def _closure(roots: Iterator[Requirement], architecture: Architecture) -> set[str]:
    """Return the names of distributions that these need, as the installed ones of the same lock file say."""
    environment = {
        "platform_machine": MACHINES[architecture],
        "python_version": ".".join(map(str, PYTHON)),
        "python_full_version": ".".join(map(str, PYTHON)) + ".2",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    found: set[tuple[str, frozenset[str]]] = set()
    todo = list(roots)
    while todo:
        one = todo.pop()
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key in found:
            continue
        found.add(key)
        try:
            needed = requires(one.name) or ()
        except PackageNotFoundError:
            raise CannotBuild(f"{one.name} is not installed here: run `make install`") from None
        for text in needed:
            requirement = Requirement(text)
            if any(_holds(requirement, {**environment, "extra": extra}) for extra in one.extras or {""}):
                todo.append(requirement)
    return {name for name, _ in found}


def _holds(requirement: Requirement, environment: Mapping[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(dict(environment))


def _by_name(lock: str) -> dict[str, str]:
    """Return name → its lines in the lock file, comments left out."""
    found: dict[str, str] = {}
    name = ""
    for line in lock.splitlines():
        if start := re.match(r"([A-Za-z0-9._-]+)==", line):
            name = canonicalize_name(start[1])
        if name and line.strip() and not line.strip().startswith("#"):
            found[name] = found.get(name, "") + line + "\n"
    return {key: _ended(text) for key, text in found.items()}


def _ended(text: str) -> str:
    return text.rstrip().rstrip("\\").rstrip() + "\n"


def names(requirements: str) -> Sequence[str]:
    """Return ``name==version`` of every requirement."""
    return [line.split()[0] for line in requirements.splitlines() if "==" in line]
