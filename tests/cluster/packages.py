"""What a cluster with nodes needs of the machine: root, a kernel with tun and overlayfs, some Debian packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.cluster import layout

# What is looked for → the Debian package that has it.
_NEEDED: Final = {
    "cc": "gcc libc6-dev",
    "runc": "runc",
    f"{layout.CNI}/bridge": "containernetworking-plugins",
    "docker-registry": "docker-registry",
    "busybox": "busybox-static",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mount": "mount",
    "sysctl": "procps",
    "hostname": "hostname",
}
_FOR_OTHER_TESTS: Final = {"/usr/lib/postgresql": "postgresql", "skopeo": "skopeo"}
"""Clusters run without them, the hub's tests do not."""

_INSTANCES: Final = Path("/proc/sys/fs/inotify/max_user_instances")
_MOST_INSTANCES: Final = 1024
_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def missing_packages(needed: Mapping[str, str] = _NEEDED) -> list[str]:
    """Return the Debian packages that are not there, by name."""
    found = {name: shutil.which(name, path=_PATH) or (name.startswith("/") and Path(name).exists()) for name in needed}
    return sorted(part for name, package in needed.items() if not found[name] for part in package.split())


def missing(folder: Path) -> list[str]:
    """Return what keeps clusters with nodes from running here, one sentence each; none: they can run.

    Args:
        folder: where their state is to stand.
    """
    if sys.platform != "linux":
        return [f"clusters with nodes need Linux, this is {sys.platform}"]
    found = []
    if os.geteuid():
        found.append("clusters with nodes need root")
    if not Path("/dev/net/tun").exists():
        found.append("the kernel has no /dev/net/tun")
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        found.append("the kernel has no overlayfs")
    if _stands_on_overlay(folder):
        found.append(f"{folder} stands on overlayfs, which images cannot be unpacked on: give another --folder")
    if packages := missing_packages():
        found.append(f"run `python -m tests.cluster packages` as root: it installs {', '.join(packages)}")
    return found


def allow_watches(say: Callable[[str], None]) -> None:
    """Let root have enough inotify instances: a node takes a dozen, and where none is left nothing watches any more."""
    allowed = int(_INSTANCES.read_text())
    if allowed < _MOST_INSTANCES and not os.geteuid():
        _INSTANCES.write_text(str(_MOST_INSTANCES))
        say(f"fs.inotify.max_user_instances is {_MOST_INSTANCES} now, it was {allowed}")


def install(say: Callable[[str], None]) -> None:
    """Install the Debian packages that are not there.

    Raises:
        RuntimeError: not Debian, not root, or apt refused; the text says what to install.
    """
    packages = missing_packages({**_NEEDED, **_FOR_OTHER_TESTS})
    if not packages:
        say("every package is there")
        return
    words = " ".join(packages)
    if os.geteuid() or shutil.which("apt-get") is None:
        raise RuntimeError(f"install these yourself, by their names in Debian: {words}")
    say(f"installing {words}: about a minute")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    commands = (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages])
    for command in commands:
        # Another apt-get may be at work.
        done = subprocess.run(
            ["apt-get", "-o", "DPkg::Lock::Timeout=300", *command],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"`apt-get {' '.join(command)}` failed:\n{done.stderr.strip()}")


def _stands_on_overlay(folder: Path) -> bool:
    while not folder.exists():
        folder = folder.parent
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(" - overlay " in line for line in lines if line.split()[2] == number)
