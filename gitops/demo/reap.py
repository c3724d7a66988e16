"""``python -m gitops.demo.reap DIRECTORY``: wait for the end of standard input, then end what runs below DIRECTORY."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def belonging(root: Path) -> list[int]:
    """Return the processes of our user whose environment or command line names ``root``."""
    mark = str(root).encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes() or mark in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def reap(root: Path, parent: int) -> None:
    """End every process that belongs to ``root``, but not ``parent``; first gently, then by force."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 3.0
        while (pids := [pid for pid in belonging(root) if pid != parent]) and time.monotonic() < deadline:
            for pid in pids:
                try:
                    os.kill(pid, how)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    above = os.getppid()
    sys.stdin.buffer.read()
    reap(Path(sys.argv[1]), above)
