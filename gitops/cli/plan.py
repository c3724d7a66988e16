"""``edgeferry plan``."""

from __future__ import annotations

from pathlib import Path

import click

from gitops.cli.output import as_json, output_option, table
from gitops.opening import plan_of
from gitops.plan_text import plan_held, plan_json, plan_rows, plan_summary


@click.command()
@click.argument("repository", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--fleet", required=True, metavar="URL", help="Fleet repository: a path or anything `git fetch` takes.")
@click.option("--revision", metavar="REF", help="Branch, tag or commit instead of the working folder.")
@click.option(
    "--reports", default="", metavar="URL", help="Report repository of a fleet without a hub: facts and sequences."
)
@output_option
def plan(repository: Path, fleet: str, revision: str | None, reports: str, output: str) -> None:
    """Print what publishing the model REPOSITORY would change on which cluster; change nothing.

    \b
    Examples:
      edgeferry plan --fleet ../fleet.git
      edgeferry plan --fleet ssh://git@git.example/fleet.git --revision my-branch
    """
    step = plan_of(repository, fleet, revision, reports)
    if output == "json":
        click.echo(as_json(plan_json(step)))
        return
    if step.moves:
        click.echo(table(("CLUSTER", "WHAT", "FROM", "TO"), plan_rows(step.moves)))
    for line in plan_held(step):
        click.echo(line)
    click.echo(plan_summary(step))
