"""``edgeferry simulate``."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from agent.wire.errors import Stop
from gitops.cli.output import as_json, output_option, table
from gitops.documents import parse
from gitops.kinds import Fleet, Placement
from gitops.rolling import to_rollout
from gitops.rollout_spec import RolloutSpec, WaveSpec
from gitops.simulated import BEHAVIOURS, Course, Setting
from gitops.simulating import Simulation, bad_versions
from gitops.simulation_text import bad_rows, course_rows, summary
from gitops.tree import File

STANDARD = RolloutSpec(
    waves=(WaveSpec(name="canary", match_labels={"tier": "canary"}), WaveSpec(percent=25), WaveSpec(percent=100)),
    max_concurrent="20%",
    soak="30m",
)


class NothingToSimulate(Stop):
    """A file has no rollout that could be simulated."""

    code = "EF3205"


class _Share(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click
    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read ``10%`` or ``0.1``."""
        if isinstance(value, float):
            return value
        try:
            share = float(value[:-1]) / 100 if value.endswith("%") else float(value)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is no share: write 10%", param, ctx)
        return share


@click.command()
@click.option("--clusters", default=1000, show_default=True, type=click.IntRange(1, 200_000), help="Size of the fleet.")
@click.option("--canary", default=10, show_default=True, help="Clusters that the first wave's labels select.")
@click.option("--offline", default=0.0, type=_Share(), help="Share that is cut off at first, back within a day.  [0%]")
@click.option("--fail", default=0.0, type=_Share(), help="Share on which any version fails.  [0%]")
@click.option("--lost", default=0.0, type=_Share(), help="Share of the reports that are lost at first.  [0%]")
@click.option("--windows", default=0.0, type=_Share(), help="Share that switches on Saturday nights only.  [0%]")
@click.option(
    "--version",
    default="good",
    show_default=True,
    type=click.Choice(["good", *BEHAVIOURS]),
    help="What the new version does.",
)
@click.option("--bad-versions", is_flag=True, help="Simulate every sort of bad version, and print one table.")
@click.option(
    "--rollout",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Placement or fleet.yaml whose rollout is simulated.  [canary, 25 %, 100 %; 20 % at once; 30 min soak]",
)
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same course.")
@output_option
def simulate(
    clusters: int,
    canary: int,
    offline: float,
    fail: float,
    lost: float,
    windows: float,
    version: Any,
    bad_versions: bool,
    file: Path | None,
    seed: int,
    output: str,
) -> None:
    """Play a rollout on a fleet that is only thought of, on a virtual clock, and print its course.

    It is the engine of the hub that decides; what the clusters do is a model: links of different speed, outages, lost
    reports, windows, and versions that are bad in different ways.

    \b
    Examples:
      edgeferry simulate --clusters 10000 --offline 10% --fail 2% --seed 7
      edgeferry simulate --rollout placements/digits.yaml --version "cuts off"
      edgeferry simulate --clusters 1000 --canary 10 --bad-versions
    """
    policy = to_rollout(STANDARD if file is None else _read(file))
    setting = Setting(
        policy,
        clusters=clusters,
        seed=seed,
        version=version,
        offline=offline,
        fail=fail,
        lost=lost,
        windowed=windows,
        canary=min(canary, clusters),
        tick_s=10.0 if clusters <= 2000 else 60.0,
    )
    if bad_versions:
        _bad(setting, output)
        return
    course = Simulation(setting).run()
    if output == "json":
        click.echo(as_json(_json(course)))
        return
    rows = course_rows(course, policy)
    click.echo(table(rows[0], rows[1:]))
    click.echo("\n" + summary(course, clusters))


def _bad(setting: Setting, output: str) -> None:
    found = bad_versions(replace(setting, version="good"))
    if output == "json":
        click.echo(as_json({name: _json(course) for name, course in found.items()}))
        return
    rows = bad_rows(found)
    click.echo(table(rows[0], rows[1:]))


def _json(course: Course) -> dict[str, Any]:
    return {
        "phase": course.state.phase,
        "why": course.state.why,
        "everRan": len(course.started),
        "everServed": len(course.served),
        "mostInFlight": course.most_in_flight,
        "endedS": course.ended_s,
        "backS": course.back_s,
        "commits": course.commits,
        "course": [asdict(row) for row in course.rows],
    }


def _read(file: Path) -> RolloutSpec:
    data = file.read_bytes()
    found = parse(File(file.name, "0" * 40, len(data)), data, "main")
    if found.faults:
        raise NothingToSimulate(str(found.faults[0]), where=str(file), do="run `edgeferry validate`")
    for one in found.documents:
        document = one.document
        spec = None
        if isinstance(document, Placement):
            spec = document.spec.rollout
        elif isinstance(document, Fleet):
            spec = document.spec.default_rollout
        if spec is not None:
            return spec
    raise NothingToSimulate("no placement with `rollout`, no fleet with `defaultRollout`", where=str(file))
