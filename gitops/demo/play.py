"""Playing scenarios for people to watch: after each step a table of what runs where, with a real answer per site."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gitops.demo.documents import cluster, placement, version
from gitops.demo.fleet import Fleet
from gitops.demo.scenarios import SCENARIOS, Scenario

TARGET_S = 3.0


@dataclass(frozen=True, slots=True)
class Played:
    """What a whole demo showed.

    Attributes:
        steps: how many steps were done and checked.
        push_to_serving_s: from `git push` to three sites serving the new version.
        seconds: wall time of all.
    """

    steps: int
    push_to_serving_s: float
    seconds: float


def play(names: Sequence[str], *, once: bool, keep: Path | None, console: Console) -> Played:
    """Play scenarios one after the other, each on a fleet of its own, then measure a push to three sites.

    Args:
        names: of the scenarios.
        once: do not wait for a key between the steps.
        keep: directory for everything, which stays; None for a temporary one.
        console: where to print.

    Raises:
        Wrong: something seen from outside is not what it should be.
    """
    began, steps = time.monotonic(), 0
    root = keep or Path(tempfile.mkdtemp(prefix="edgeferry-demo-"))
    try:
        for name in names:
            steps += _scenario(name, root / name, once, console)
        seconds = _push_to_serving(root / "speed", console)
    finally:
        if keep is None:
            shutil.rmtree(root, ignore_errors=True)
    return Played(steps, seconds, time.monotonic() - began)


def _scenario(name: str, root: Path, once: bool, console: Console) -> int:
    fleet = Fleet(root)
    fleet.open()
    try:
        return play_one(name, SCENARIOS[name], fleet, once=once, console=console)
    finally:
        fleet.close()


def play_one(name: str, scenario: Scenario, fleet: Fleet, *, once: bool, console: Console) -> int:
    """Play a scenario on a fleet that is open; return how many steps it had.

    Raises:
        Wrong: something seen from outside is not what it should be.
    """
    title = (scenario.__doc__ or "").strip().splitlines()[0]
    console.rule(f"[bold]{name}")
    console.print(title.partition(": ")[2])
    steps = 0
    for step in scenario(fleet):
        steps += 1
        console.print(f"[green]✓[/] {step}")
        console.print(_table(fleet))
        if not once and sys.stdin.isatty():
            console.input("[dim]Enter goes on …[/]")
    return steps


def _table(fleet: Fleet) -> Table:
    """Return what runs where, by the hub's word, beside what each site answers."""
    table = Table("cluster", "model or workload", "version", "health", "answer", box=None, pad_edge=False)
    status = {one["name"]: one for one in fleet.status()["clusters"]} if fleet.hub is not None else {}
    for name in sorted(fleet.sites):
        entries = status.get(name, {}).get("entries", [])
        if not entries:
            table.add_row(name, "–", "", "", "")
        for n, entry in enumerate(entries):
            answer = fleet.ask(name, entry["name"]) if entry["kind"] == "model" and entry["url"] else None
            colour = {"current": "green", "degraded": "red"}.get(entry["health"], "yellow")
            health = f"[{colour}]{entry['health']}[/]"
            said = "" if answer is None else answer.text
            table.add_row(name if n == 0 else "", entry["name"], entry["version"], health, said)
    return table


def _push_to_serving(root: Path, console: Console) -> float:
    fleet = Fleet(root)
    fleet.open()
    try:
        return push_to_serving(fleet, console)
    finally:
        fleet.close()


def push_to_serving(fleet: Fleet, console: Console) -> float:
    """Measure from `git push` to three sites that answer with the new version, on a fleet that is open; in s."""
    console.rule("[bold]From git push to three sites serving")
    fleet.init(empty=True)
    sites = ("milan-01", "turin-01", "lyon-01")
    files = {path: text for name in sites for path, text in cluster(name, line="welding").items()}
    fleet.commit("Three sites", files | placement("digits", model="digits"))
    fleet.start_hub()
    for name in sites:
        fleet.join(name)
    fleet.expect(dict.fromkeys(sites, "1.0.0"), within_s=120)
    began = time.monotonic()
    fleet.commit("digits 2.0.0", dict(version("digits", "2.0.0")))
    fleet.expect(dict.fromkeys(sites, "2.0.0"))
    seconds = time.monotonic() - began
    console.print(f"[green]✓[/] {seconds:.2f} s (on hosts the target is {TARGET_S:g} s)")
    return seconds
