"""Control groups of a node: one below the test bed's own in every hierarchy, found again and removed by name."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """Return the mounted hierarchies: one for cgroup v2, for v1 one per controller and maybe an empty v2 beside."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return sorted(path for path in ROOT.iterdir() if path.is_dir())


def make(name: str) -> None:
    """Make the group ``a/b/c`` in every hierarchy, with the processors and memory of its parent."""
    for hierarchy in hierarchies():
        place = hierarchy
        for part in name.split("/"):
            _hand_down(place)
            place = place / part
            place.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):
                with suppress(OSError):
                    if not (place / file).read_text().strip():
                        (place / file).write_text((place.parent / file).read_text())


def limit_memory(name: str, mib: int) -> None:
    """Let the group's processes have so many MiB together, and no more."""
    for hierarchy in hierarchies():
        for file in ("memory.limit_in_bytes", "memory.max"):
            with suppress(FileNotFoundError):
                if (hierarchy / name / file).exists():
                    (hierarchy / name / file).write_text(str(mib << 20))


def move_here(name: str) -> None:
    """Put this process into the group, in every hierarchy."""
    for hierarchy in hierarchies():
        (hierarchy / name / "cgroup.procs").write_text("0")


def processes(name: str) -> set[int]:
    """Return every process of the group and of those below it."""
    found: set[int] = set()
    for hierarchy in hierarchies():
        for file in (hierarchy / name).rglob("cgroup.procs"):
            with suppress(OSError):
                found.update(map(int, file.read_text().split()))
    return found


def remove(name: str, limit_s: float = 20.0) -> None:
    """Kill what is in the group and remove it, in every hierarchy.

    Raises:
        TimeoutError: something in it does not end.
    """
    deadline = time.monotonic() + limit_s
    while left := _remove(name):
        for number in processes(name):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"cannot remove {left}: processes {sorted(processes(name))}")
        time.sleep(0.02)


def _remove(name: str) -> Path | None:
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            try:
                Path(folder).rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return Path(folder)
    return None


def _hand_down(place: Path) -> None:
    with suppress(OSError):
        offered = (place / "cgroup.controllers").read_text().split()
        (place / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in offered))
