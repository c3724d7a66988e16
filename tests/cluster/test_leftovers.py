"""Nothing is left behind: not by `down`, not by a run that was killed; and what is left is removed by the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import cgroups, processes, testbed
from tests.cluster.fixtures import nodes_or_skip
from tests.cluster.probe import until

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
# What a kubelet would set for the whole machine, and what a router would.
SETTINGS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of test beds that no other run looks into; its path is short, sockets have room for 107 bytes."""
    nodes_or_skip("kubernetes")
    with tempfile.TemporaryDirectory(prefix="ef-") as made:
        yield Path(made)
        for bed in testbed.find(Path(made)):
            bed.destroy()


def machine() -> dict[str, object]:
    """What stands on the machine outside namespaces of a test bed's own, and names of ours in it."""
    rules = [
        subprocess.run([command], capture_output=True, text=True, check=True).stdout.splitlines()
        for command in ("iptables-save", "ip6tables-save")
    ]
    return {
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "rules": [line for lines in rules for line in lines if not line.startswith(("#", ":"))],
        "named namespaces": sorted(path.name for path in Path("/run/netns").glob("*")),
        "settings": [Path("/proc/sys", name).read_text() for name in SETTINGS],
    }


def of(folder: Path, id: str) -> dict[str, list[str]]:
    """What there is of one test bed: processes, mounts, control groups."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    groups = [path for hierarchy in cgroups.hierarchies() for path in hierarchy.glob(f"{testbed.PREFIX}{id}")]
    return {
        "processes": [str(number) for number in processes.all_of(folder)],
        "in its groups": sorted(map(str, cgroups.processes(f"{testbed.PREFIX}{id}"))),
        "mounts": [line for line in mounts if str(folder) in line or id in line],
        "groups": sorted(map(str, groups)),
    }


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.cluster", words[0], "--folder", str(folder), *words[1:]],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


def test_after_down_the_machine_is_as_it_was(folder: Path) -> None:
    before = machine()
    up = command(folder, "up", "--kind", "kubernetes", "--nodes", "2")
    assert up.returncode == 0, up.stderr
    assert "a pod answered through its Service after" in up.stderr
    assert "memory of all: " in up.stderr
    [bed] = testbed.find(folder)
    there = of(bed.folder, bed.id)
    assert there["processes"] and there["in its groups"] and there["groups"]
    assert there["mounts"] == []
    assert command(folder, "down").returncode == 0
    assert of(bed.folder, bed.id) == {name: [] for name in there}
    assert machine() == before
    assert not bed.folder.exists()


def test_a_killed_run_leaves_what_the_next_one_removes(folder: Path) -> None:
    text = """
        import os, signal, sys
        from pathlib import Path
        from tests.cluster import probe, testbed
        bed = testbed.create(Path(sys.argv[1]) / "run", dies_with_us=True)
        [site] = bed.add_sites(1)
        site.add_node()
        probe.run(site, "default", probe.push(bed, "1"))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    before = machine()
    words = [sys.executable, "-c", textwrap.dedent(text), str(folder)]
    killed = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    [bed] = testbed.find(folder)
    until(lambda: not of(bed.folder, bed.id)["processes"])
    until(lambda: not of(bed.folder, bed.id)["in its groups"])
    assert testbed.remove_dead(folder) == ["run"]
    left = of(bed.folder, bed.id)
    assert left == {name: [] for name in left}
    assert machine() == before
    assert testbed.remove_dead(folder) == []


def test_up_works_after_an_up_that_was_killed(folder: Path) -> None:
    words = [sys.executable, "-m", "tests.cluster", "up", "--folder", str(folder), "--kind", "kubernetes"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        until(lambda: list(folder.glob("*/sites/*/nodes/*/node.json")))
        [killed] = testbed.find(folder)
        os.kill(first.pid, signal.SIGKILL)
    again = command(folder, "up", "--kind", "kubernetes")
    assert again.returncode == 0, again.stderr
    assert "default belonged to a run that is gone: removed" in again.stderr
    left = of(folder / "gone", killed.id)
    assert left == {name: [] for name in left}
    [bed] = testbed.find(folder)
    assert [site.name for site in bed.sites] == ["site-1"]
    assert bed.sites[0].nodes[0].is_ready


def test_up_starts_again_what_has_ended(folder: Path) -> None:
    assert command(folder, "up", "--kind", "kubernetes").returncode == 0
    [bed] = testbed.find(folder)
    processes.end_all_of(bed.folder)
    again = command(folder, "up", "--kind", "kubernetes")
    assert again.returncode == 0, again.stderr
    assert bed.sites[0].nodes[0].is_ready
