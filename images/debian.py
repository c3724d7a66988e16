"""Debian packages → a root file system, for any architecture, without root; this machine's packages stay as they are.

apt works in a folder of its own, with this machine's sources and keys, so that every package is verified as always.
"""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from images.recipes import MACHINES, NOT_NEEDED, PRUNED, STATE, USER, Architecture

_LISTS_FRESH_S: Final = 6 * 3600.0
_TOOLS: Final = ("apt-get", "dpkg-deb")


class CannotBuild(Exception):
    """Something that a build needs is missing or failed; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package file.

    Attributes:
        file: name of the file, which holds package, version and architecture.
        digest: sha256 of it, hexadecimal.
        path: where it stands.
    """

    file: str
    digest: str
    path: Path


def closure(names: Sequence[str], architecture: Architecture, cache: Path, *, fresh: bool = False) -> list[Package]:
    """Return the files of packages and of what they depend on, downloaded; sorted by name.

    Args:
        names: of packages.
        architecture: of all of them.
        cache: folder for apt's lists and the files.
        fresh: ask for the newest lists whatever their age.

    Raises:
        CannotBuild: not a Debian machine, no network, or no such package.
    """
    for tool in _TOOLS:
        if shutil.which(tool) is None:
            raise CannotBuild(f"{tool} is not here: build on Debian or Ubuntu, or use images/Containerfile.*")
    place = cache / f"apt-{architecture}"
    archives = place / "cache" / "archives"
    for folder in (place / "lists" / "partial", archives / "partial", place / "none" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(place / "lock"):
        apt = _apt(place, architecture)
        stamp = place / "updated"
        if fresh or not stamp.exists() or time.time() - stamp.stat().st_mtime > _LISTS_FRESH_S:
            _run([*apt, "update", "-qq"])
            stamp.touch()
        wanted = [*apt, "install", "--yes", "-qq", *(f"{name}:{architecture}" for name in names)]
        # What is downloaded already is not printed, so apt is shown a folder without anything.
        lines = _run([*wanted, "--print-uris", "-o", f"Dir::Cache::archives={place / 'none'}"]).splitlines()
        files = sorted(line.split()[1] for line in lines if line.startswith("'"))
        kept = [file for file in files if file.partition("_")[0] not in NOT_NEEDED]
        if not all((archives / file).exists() for file in files):
            _run([*wanted, "--download-only"])
    return [Package(file, _digest(archives / file), archives / file) for file in kept]


def unpack(packages: Sequence[Package], architecture: Architecture, root: Path) -> None:
    """Lay packages out below ``root``, with what their maintainer scripts would have made."""
    status = root / "var" / "lib" / "dpkg" / "status.d"
    for package in packages:
        _run(["dpkg-deb", "--extract", str(package.path), str(root)])
        status.mkdir(parents=True, exist_ok=True)
        control = _run(["dpkg-deb", "--field", str(package.path)])
        (status / package.file.partition("_")[0]).write_text(control)
    _prune(root)
    for link, target in (("usr/bin/python3", "python3.11"), ("usr/bin/python", "python3.11")):
        if (root / "usr/bin/python3.11").exists():
            (root / link).symlink_to(target)
    _certificates(root)
    etc = root / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text(
        "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        f"edgeferry:x:{USER}:{USER}:edgeferry:/{STATE}:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    )
    (etc / "group").write_text(f"root:x:0:\nedgeferry:x:{USER}:\nnogroup:x:65534:\n")
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    (root / STATE).mkdir(parents=True, exist_ok=True)
    (root / "tmp").mkdir(exist_ok=True)
    loader = {"amd64": "lib64/ld-linux-x86-64.so.2", "arm64": "lib/ld-linux-aarch64.so.1"}[architecture]
    if not (root / loader).exists():
        raise CannotBuild(f"the packages hold no {loader}: is this machine's apt set up for {MACHINES[architecture]}?")


def _apt(place: Path, architecture: str) -> list[str]:
    (place / "status").touch()
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "APT::Get::Show-User-Simulation-Note": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Debug::NoLocking": "true",
        "Dir::State": str(place),
        "Dir::State::status": str(place / "status"),
        "Dir::Cache": str(place / "cache"),
        "DPkg::Post-Invoke": "",
    }
    return ["apt-get", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]


def _prune(root: Path) -> None:
    for pattern in PRUNED:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in (root / "usr/share/doc").glob("*/*"):
        if path.name != "copyright":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in _scripts(root / "usr" / "lib" / "git-core"):
        path.unlink()


def _scripts(folder: Path) -> Iterator[Path]:
    """Yield git's programs in Perl and Python, which have no interpreter here or no use."""
    for path in sorted(folder.glob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                first = file.readline(64)
            if fnmatch.fnmatch(first.decode(errors="replace"), "#!*perl*") or path.name == "git-p4":
                yield path


def _certificates(root: Path) -> None:
    """Do what ca-certificates' own script does, as far as programs read it."""
    found = sorted((root / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    bundle = root / "etc" / "ssl" / "certs" / "ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_bytes(b"".join(path.read_bytes().rstrip(b"\n") + b"\n" for path in found))
    for path in (root / "usr/share/ca-certificates", root / "usr/sbin/update-ca-certificates"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _run(command: Sequence[str]) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        shown = " ".join(word for word in command if "=" not in word and word != "-o")
        raise CannotBuild(f"`{shown[:200]}` failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
