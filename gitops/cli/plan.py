"""``edgeferry plan``."""

from __future__ import annotations

from pathlib import Path

import click

from gitops.cli.facts_option import facts_option, snapshot_of
from gitops.cli.output import as_json, table
from gitops.hubless import full_plan_of
from gitops.plan_text import plan_lines, plan_markdown, plan_rows, plan_total


@click.command()
@click.argument("repository", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--fleet", required=True, metavar="URL", help="Fleet repository: a path or anything `git fetch` takes.")
@click.option("--revision", metavar="REF", help="Branch, tag or commit instead of the working folder.")
@click.option(
    "--reports", default="", metavar="URL", help="Report repository of a fleet without a hub: facts and sequences."
)
@facts_option
@click.option("--diff", is_flag=True, help="Show what differs in every entry that changes.")
@click.option(
    "--output",
    "-o",
    type=click.Choice(["table", "json", "markdown"]),
    default="table",
    show_default=True,
    help="Format of the result; `markdown` is a comment for a pull request.",
)
def plan(
    repository: Path, fleet: str, revision: str | None, reports: str, facts: str | None, diff: bool, output: str
) -> None:
    """Print what publishing the model REPOSITORY would change on which cluster; change nothing.

    It shows where the change ends, whatever waves it goes by: who gains, loses and changes what, and why; how many
    bytes each has to fetch; and whether it waits for approval.

    \b
    Examples:
      edgeferry plan --fleet ../fleet.git
      edgeferry plan --fleet ssh://git@git.example/fleet.git --revision my-branch
      edgeferry plan --fleet ../fleet.git --facts facts.json --output markdown > comment.md
    """
    known = snapshot_of(facts)
    found = full_plan_of(repository, fleet, revision, reports, known.at, known)
    if output == "json":
        click.echo(as_json({**found.as_json(), **known.as_json()}))
        return
    if output == "markdown":
        click.echo(plan_markdown(found), nl=False)
        return
    for line in known.lines():
        click.echo(line)
    rows = plan_rows(found)
    if len(rows) > 1:
        click.echo(table(rows[0], rows[1:]))
    for line in plan_lines(found):
        click.echo(line)
    for one in found.batches if diff else ():
        if one.diff:
            click.echo(f"\n{one.kind} {one.name} on {len(one.clusters)} clusters:\n{one.diff}")
    click.echo(plan_total(found))
