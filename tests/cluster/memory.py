"""How much memory a test bed uses."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tests.cluster import cgroups, processes
from tests.cluster.testbed import Testbed


def of_testbed(bed: Testbed) -> int:
    """Return the proportional set size of all its processes, pods too, in MiB."""
    numbers = cgroups.processes(bed.cgroup)
    for folder in bed.places:
        numbers.update(processes.pid(folder, name) for name in processes.names(folder))
    return sum(_kib(number) for number in numbers) >> 10


def _kib(number: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{number}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
