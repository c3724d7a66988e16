"""Our own packages → what an image holds of them, and the bytecode of everything in Python."""

from __future__ import annotations

import configparser
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from images.debian import CannotBuild
from images.recipes import Recipe
from images.wheels import PYTHON, SITE

_LAUNCHER: Final = """\
#!/usr/bin/python3.11 -s
import sys

from {module} import {function}

sys.exit({function}())
"""

_NEVER: Final = shutil.ignore_patterns("__pycache__", "*.pyc")


def install(recipe: Recipe, checkout: Path, root: Path) -> None:
    """Copy our packages and make their scripts."""
    site, scripts = root / SITE, root / "usr/local/bin"
    for folder in (site, scripts):
        folder.mkdir(parents=True, exist_ok=True)
    for package in recipe.packages:
        shutil.copytree(checkout / package, site / package, ignore=_NEVER)
    if recipe.packages:
        config = configparser.ConfigParser()
        config.read(checkout / "setup.cfg")
        metadata = config["metadata"]
        folder = site / f"edgeferry-{metadata['version']}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: edgeferry\nVersion: {metadata['version']}\n")
    for name, target in recipe.scripts:
        module, colon, function = target.partition(":")
        text = _LAUNCHER.format(module=module, function=function) if colon else _script(checkout / target)
        (scripts / name).write_text(text)
        (scripts / name).chmod(0o755)


def compile_all(root: Path, *folders: str) -> None:
    """Compile what is Python below folders of ``root``; the same sources give the same bytes.

    The bytecode is not checked against its source at start: an image does not change.

    Raises:
        CannotBuild: no Python of the image's version is here.
    """
    there = [str(root / one) for one in folders if (root / one).exists()]
    if not there:
        return
    command = [_python(), "-m", "compileall", "-q", "-s", str(root), "-p", "/", "--invalidation-mode"]
    command += ["unchecked-hash", *there]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    # Some wheels ship sources for other Pythons, which do not compile; they are not imported either.
    subprocess.run(command, capture_output=True, env=environment, check=False)


def _python() -> str:
    if sys.version_info[:2] == PYTHON:
        return sys.executable
    name = f"python{PYTHON[0]}.{PYTHON[1]}"
    found = shutil.which(name)
    if found is None:
        raise CannotBuild(f"{name} is not here, and images ship its bytecode: install it")
    return found


def _script(path: Path) -> str:
    shebang, _, rest = path.read_text().partition("\n")
    if not shebang.startswith("#!"):
        raise CannotBuild(f"{path} is no script")
    return f"#!/usr/bin/python3.11 -s\n{rest}"


def bytecode_magic() -> str:
    """Return what names the format of the bytecode that this Python writes; part of every layer's key."""
    return importlib.util.MAGIC_NUMBER.hex()
