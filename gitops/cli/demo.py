"""``edgeferry demo``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from agent.wire.errors import Stop
from gitops.cli.output import as_json, output_option

_DEFAULT = ("S1", "S2", "S4")


class DemoFailed(Stop):
    """Something that the demo looked at was not as it should be, or a part of the demo is not installed."""

    code = "EF3900"


@click.command()
@click.option(
    "--scenario",
    "-s",
    "names",
    multiple=True,
    metavar="NAME",
    help="S1, S2, S3, S4, S5, S7, S8, S9 or S10; may be given several times.  [default: S1, S2, S4]",
)
@click.option("--once", is_flag=True, help="Play unattended: check every answer, wait for nobody.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep repositories, states and logs in this directory.",
)
@output_option
def demo(names: tuple[str, ...], once: bool, keep: Path | None, output: str) -> None:
    """Watch real models travel from a git push to edge sites on this machine.

    Starts a hub and host sites in processes of their own, plays the scenarios, and asks every site a real inference
    question after each step. It exits with 1 when an answer is wrong, and leaves nothing running.

    \b
    Examples:
      edgeferry demo
      edgeferry demo --once
      edgeferry demo --scenario S2
    """
    try:
        from rich.console import Console

        from gitops.demo.fleet import Wrong
        from gitops.demo.play import play
        from gitops.demo.scenarios import SCENARIOS
    except ModuleNotFoundError as error:
        raise DemoFailed(f"{error.name} is not installed", do='pip install "edgeferry[hub,agent,demo]"') from None
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise click.UsageError(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    console = Console(stderr=output == "json", highlight=False)
    try:
        played = play(names or _DEFAULT, once=once, keep=keep, console=console)
    except Wrong as error:
        raise DemoFailed(str(error)) from None
    if output == "json":
        click.echo(as_json(asdict(played)))
    else:
        console.print(
            f"{played.steps} steps, every answer as it should be; push to serving on three sites in "
            f"{played.push_to_serving_s:.2f} s; {played.seconds:.0f} s in all."
        )
