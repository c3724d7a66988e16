"""The parts of a test cluster: built once from tests/cluster/go, kept outside the checkout.

A part's folder is named by the content of its Go module, the build flags and the Go version, so that a checkout never
runs another checkout's parts, and an old cache can simply be deleted.
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MODULES: Final = Path(__file__).parent / "go"
KUBERNETES: Final = "1.34.4"
CONTAINERD: Final = "2.2.9"
HELM: Final = "3.22.0"

_MAJOR, _MINOR, _ = KUBERNETES.split(".")
_VERSION: Final = "k8s.io/component-base/version"
_STATIC: Final = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
_LINE_EVERY_S: Final = 10.0

Say = Callable[[str], None]


class Unavailable(Exception):
    """A part is not there, and cannot be made here; the text says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one Go module builds.

    Attributes:
        name: of the part, and where ``module`` is empty of its folder below tests/cluster/go.
        makes: the files that it makes.
        duration: how long a cold build takes on two cores, in words.
        flags: of ``go build``.
        packages: what ``go build`` builds: ``.``, or ``tool`` for the module's tool lines.
        environment: of the compiler.
        links: further names → one of ``makes``.
        module: its folder below tests/cluster/go.
    """

    name: str
    makes: tuple[str, ...]
    duration: str
    flags: tuple[str, ...]
    packages: str = "tool"
    environment: Mapping[str, str] = field(default_factory=lambda: dict(_STATIC))
    links: Mapping[str, str] = field(default_factory=dict)
    module: str = ""

    @property
    def folder(self) -> Path:
        """Of the Go module."""
        return MODULES / (self.module or self.name)


KUBECLUSTER: Final = Part(
    "kubecluster",
    ("kubecluster",),
    "6 to 10 minutes",
    (
        "-trimpath",
        "-ldflags",
        f"-s -w -X {_VERSION}.gitVersion=v{KUBERNETES} -X {_VERSION}.gitMajor={_MAJOR} -X {_VERSION}.gitMinor={_MINOR}",
    ),
    packages=".",
    links={"kubectl": "kubecluster"},
)
NODE: Final = Part(
    "node",
    ("containerd", "containerd-shim-runc-v2", "ctr"),
    "2 to 3 minutes",
    (
        "-trimpath",
        "-tags",
        "no_btrfs no_devmapper no_zfs",
        "-ldflags",
        f"-s -w -X github.com/containerd/containerd/v2/version.Version=v{CONTAINERD}",
    ),
)
KINE: Final = Part(
    "kine",
    ("kine",),
    "3 to 4 minutes",
    ("-trimpath", "-ldflags", "-s -w"),
    environment={**_STATIC, "CGO_ENABLED": "1"},
)
COREDNS: Final = Part("coredns", ("coredns",), "2 minutes", ("-trimpath", "-ldflags", "-s -w"), packages=".")


def helm(architecture: str) -> Part:
    """Return the part that makes ``helm`` for ``amd64`` or ``arm64``."""
    return Part(
        f"helm-{architecture}",
        ("helm",),
        "2 to 4 minutes",
        ("-trimpath", "-ldflags", f"-s -w -X helm.sh/helm/v3/internal/version.version=v{HELM}"),
        environment={**_STATIC, "GOOS": "linux", "GOARCH": architecture},
        module="helm",
    )


PARTS: Final = {part.name: part for part in (KUBECLUSTER, NODE, COREDNS, KINE, helm("amd64"), helm("arm64"))}


def cache_root() -> Path:
    """Return the folder that holds every part, of every version."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeferry" / "cluster"


def cache(part: Part = KUBECLUSTER) -> Path:
    """Return the folder for this content of a part, which may not be there yet.

    Raises:
        Unavailable: not Linux, or no Go to name the version of.
    """
    if sys.platform != "linux":
        raise Unavailable(f"real clusters need Linux, this is {sys.platform}")
    if shutil.which("go") is None:
        raise Unavailable(
            "Go is not installed (go.mod says which version), and the Kubernetes components are built from source"
        )
    version = _go_version(part)
    content = hashlib.sha256("\0".join((version, platform.machine(), *part.flags, str(part.environment))).encode())
    for path in sorted(part.folder.iterdir()):
        content.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return cache_root() / content.hexdigest()[:16]


def find(part: Part = KUBECLUSTER) -> Path:
    """Return the first file that the part makes; its others lie beside it.

    Raises:
        Unavailable: it is not built yet, or cannot be.
    """
    path = cache(part) / part.makes[0]
    if not path.exists():
        raise Unavailable(
            f"{path} is not built: run `python -m tests.cluster build {part.name}` ({part.duration} on two cores)"
        )
    return path


def build(say: Say, part: Part = KUBECLUSTER) -> Path:
    """Return what `find` does, building it where it is not there; of several builders one works and the others wait.

    Args:
        say: told in one line what goes on, at least every ten seconds.
        part: to build.

    Raises:
        Unavailable: it cannot be built; the compiler's words are in the text.
    """
    folder = cache(part)
    path = folder / part.makes[0]
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder / "lock", say):
        if not path.exists():
            _build(part, folder, say)
    return path


def _build(part: Part, folder: Path, say: Say) -> None:
    say(f"building {part.name} from source: {part.duration} on two cores, less than 1 where Go has it cached")
    began = time.monotonic()
    _follow(part, ["go", "list", "-deps", part.packages], say, "modules")
    with tempfile.TemporaryDirectory(dir=folder) as made:
        _follow(part, ["go", "build", "-v", *part.flags, "-o", f"{made}/", part.packages], say, "packages compiled")
        built = sorted(Path(made).iterdir())
        if len(built) == 1:
            built = [built[0].rename(Path(made, part.makes[0]))]
        # The first is what `find` looks for: it comes last.
        for name in reversed(part.makes):
            Path(made, name).rename(folder / name)
    for name, target in part.links.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
    say(f"built in {time.monotonic() - began:.0f} s: {folder}")


def _follow(part: Part, command: list[str], say: Say, what: str) -> None:
    began = said = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        command,
        cwd=part.folder,
        env={**os.environ, **part.environment},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line.rstrip())
            if (now := time.monotonic()) - said >= _LINE_EVERY_S:
                said = now
                say(f"{len(lines)} {what}, {now - began:.0f} s")
    if process.returncode:
        raise Unavailable(f"`{' '.join(command[:2])}` failed:\n" + "\n".join(lines[-20:]))


def _go_version(part: Part) -> str:
    command = ["go", "env", "GOVERSION"]
    return subprocess.run(command, cwd=part.folder, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def _only_one(path: Path, say: Say) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process builds it: waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
