"""``edgeferry status``."""

from __future__ import annotations

import click

from gitops import status_text
from gitops.cli.hub_options import hub_options
from gitops.cli.output import as_json, output_option, table
from gitops.hub_client import HubClient


@click.command(short_help="Show what runs where, as the running hub knows it.")
@click.argument("name", required=False, metavar="[APPLICATION|MODEL|CLUSTER]")
@hub_options
@click.option("--all", "everything", is_flag=True, help="Show more than a hundred rows, too.")
@output_option
def status(name: str | None, hub: HubClient, everything: bool, output: str) -> None:
    """Show what runs where, as the running hub knows it: sources held back, ages of reports, health by entry.

    With a name, only that cluster, or that model, workload or application (the label app.kubernetes.io/part-of). A
    cluster that was not heard of for ten minutes is unknown, whatever it said last.

    \b
    Examples:
      edgeferry status
      edgeferry status digits --hub https://hub.example:8443 --token-file operator.token
      edgeferry status milan-01 -o json
    """
    shown = hub.get("/v1/status", {} if name is None else {"about": name})
    if output == "json":
        click.echo(as_json(shown))
        return
    look = status_text.overview if name is None else status_text.about
    above, rows, below = look(shown, everything=everything)
    click.echo("\n".join(above))
    if len(rows) > 1:
        click.echo("\n" + table(rows[0], rows[1:]))
    if below:
        click.echo("\n" + "\n".join(below))
