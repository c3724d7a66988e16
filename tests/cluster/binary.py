"""The binary with every Kubernetes component: built once from tests/cluster/go, kept outside the checkout.

Its folder is named by the content of the Go module, the build flags and the Go version, so that a checkout never runs
another checkout's components, and an old cache can simply be deleted.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MODULE: Final = Path(__file__).parent / "go" / "kubecluster"
KUBERNETES: Final = "1.34.4"
NAME: Final = "kubecluster"

_MAJOR, _MINOR, _ = KUBERNETES.split(".")
_VERSION: Final = "k8s.io/component-base/version"
_FLAGS: Final = (
    "-trimpath",
    "-ldflags",
    f"-s -w -X {_VERSION}.gitVersion=v{KUBERNETES} -X {_VERSION}.gitMajor={_MAJOR} -X {_VERSION}.gitMinor={_MINOR}",
)
_ENVIRONMENT: Final = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
_LINE_EVERY_S: Final = 10.0

Say = Callable[[str], None]


class Unavailable(Exception):
    """There is no binary, and none can be built here; the text says why."""


def cache() -> Path:
    """Return the folder for this content, which may not be there yet.

    Raises:
        Unavailable: not Linux, or no Go to name the version of.
    """
    if sys.platform != "linux":
        raise Unavailable(f"real clusters need Linux, this is {sys.platform}")
    if shutil.which("go") is None:
        raise Unavailable(
            "Go is not installed (go.mod says which version), and the Kubernetes components are built from source"
        )
    version = _go("env", "GOVERSION")
    content = hashlib.sha256("\0".join((version, platform.machine(), *_FLAGS, str(_ENVIRONMENT))).encode())
    for path in sorted(MODULE.iterdir()):
        content.update(f"\0{path.name}\0".encode() + path.read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "edgeferry" / "cluster" / content.hexdigest()[:16]


def find() -> Path:
    """Return the built binary.

    Raises:
        Unavailable: it is not built yet, or cannot be.
    """
    path = cache() / NAME
    if not path.exists():
        raise Unavailable(f"{path} is not built: run `python -m tests.cluster build` (about 6 minutes on two cores)")
    return path


def build(say: Say) -> Path:
    """Return the binary, building it where it is not there; of several builders one works and the others wait.

    Args:
        say: told in one line what goes on, at least every ten seconds.

    Raises:
        Unavailable: it cannot be built; the compiler's words are in the text.
    """
    folder = cache()
    path = folder / NAME
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder / "lock", say):
        if not path.exists():
            _build(folder, say)
    return path


def _build(folder: Path, say: Say) -> None:
    say("building Kubernetes from source: 6 to 10 minutes on two cores, less than 1 where Go has it cached")
    began = time.monotonic()
    _follow(["go", "list", "-deps", "."], say, "modules")
    with tempfile.TemporaryDirectory(dir=folder) as made:
        _follow(["go", "build", "-v", *_FLAGS, "-o", f"{made}/{NAME}", "."], say, "packages compiled")
        Path(made, NAME).rename(folder / NAME)
    (folder / "kubectl").unlink(missing_ok=True)
    (folder / "kubectl").symlink_to(NAME)
    say(f"built in {time.monotonic() - began:.0f} s: {folder / NAME}")


def _follow(command: list[str], say: Say, what: str) -> None:
    began = said = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=MODULE, env=os.environ | _ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line.rstrip())
            if (now := time.monotonic()) - said >= _LINE_EVERY_S:
                said = now
                say(f"{len(lines)} {what}, {now - began:.0f} s")
    if process.returncode:
        raise Unavailable(f"`{' '.join(command[:2])}` failed:\n" + "\n".join(lines[-20:]))


def _go(*arguments: str) -> str:
    return subprocess.run(["go", *arguments], cwd=MODULE, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def _only_one(path: Path, say: Say) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process builds it: waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
