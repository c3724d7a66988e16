"""Network namespaces without a name: each lives as long as the process that holds it, so a killed run leaves none."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.cluster import processes

_HOLDER: Final = "net"
_CLONE_NEWNET: Final = 0x40000000


def hold(folder: Path, *, dies_with_us: bool) -> None:
    """Make a network namespace, held by the process ``net`` of a folder; one that is there already stays."""
    if processes.pid(folder, _HOLDER):
        return
    number = processes.start(folder, _HOLDER, ["unshare", "--net", "sleep", "infinity"], dies_with_us=dies_with_us)
    ours = Path("/proc/self/ns/net").readlink()
    theirs = Path(f"/proc/{number}/ns/net")
    processes.until(lambda: theirs.readlink() != ours, "a network namespace of its own", folder, _HOLDER)
    configure(folder, "link set lo up")


def path(folder: Path) -> str:
    """Return the path of the namespace that a folder's process holds.

    Raises:
        LookupError: no process holds one.
    """
    number = processes.pid(folder, _HOLDER)
    if not number:
        raise LookupError(f"{folder} holds no network namespace: its test bed is down")
    return f"/proc/{number}/ns/net"


def enter(folder: Path) -> list[str]:
    """Return the words to put before a command that is to run in the namespace."""
    return ["nsenter", f"--net={path(folder)}"]


def configure(folder: Path, *commands: str) -> None:
    """Run ``ip`` commands in the namespace, all or up to the first that fails.

    Raises:
        RuntimeError: one failed; what ``ip`` said is in the text.
    """
    done = subprocess.run(
        [*enter(folder), "ip", "-batch", "-"], input="\n".join(commands), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"ip in {folder.name}: {done.stderr.strip()}\n" + "\n".join(commands))


@contextmanager
def entered(folder: Path) -> Iterator[None]:
    """Let this thread's new sockets stand in the namespace; sockets that it has already stay where they are."""
    libc = ctypes.CDLL(None, use_errno=True)
    ours, theirs = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(path(folder), os.O_RDONLY)
    try:
        _set(libc, theirs)
        try:
            yield
        finally:
            _set(libc, ours)
    finally:
        os.close(ours)
        os.close(theirs)


def run(folder: Path, command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in the namespace, as `subprocess.run` does; output is text and captured.

    Raises:
        subprocess.CalledProcessError: it failed, unless ``check=False``.
    """
    words = [*enter(folder), *map(str, command)]
    return subprocess.run(words, **{"capture_output": True, "text": True, "check": True, **options})


def _set(libc: ctypes.CDLL, file: int) -> None:
    if libc.setns(file, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
