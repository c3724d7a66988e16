"""The small C programs of a test cluster: compiled once with the machine's compiler, kept beside the Go parts."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.cluster.binary import Unavailable, cache_root

SOURCES: Final = Path(__file__).parent / "c"
_FLAGS: Final = ("-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s")


def compiled(name: str) -> Path:
    """Return the program of tests/cluster/c/NAME.c, compiling it where it is not there (under 1 s).

    Raises:
        Unavailable: there is no C compiler, or it refuses the source.
    """
    source = SOURCES / f"{name}.c"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Unavailable("there is no C compiler: run `python -m tests.cluster packages`")
    content = hashlib.sha256("\0".join((os.uname().machine, *_FLAGS, source.read_text())).encode())
    folder = cache_root() / content.hexdigest()[:16]
    path = folder / name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        command = [compiler, *_FLAGS, "-o", f"{made}/{name}", str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"{source.name} does not compile:\n{done.stderr}")
        Path(made, name).rename(path)
    return path
