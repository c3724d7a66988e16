"""``edgeferry status``."""

from __future__ import annotations

import time
from typing import Final

import click

from gitops import status_text
from gitops.cli.hub_options import hub_options
from gitops.cli.output import as_json, output_option, table
from gitops.hub_client import HubClient
from gitops.rollout_view import table_rows

_WATCH_S: Final = 2.0


@click.command(short_help="Show what runs where, as the running hub knows it.")
@click.argument("name", required=False, metavar="[APPLICATION|MODEL|CLUSTER]")
@hub_options
@click.option("--watch", is_flag=True, help="Look again every two seconds, until interrupted.")
@click.option("--all", "everything", is_flag=True, help="Show more than a hundred rows, too.")
@output_option
def status(name: str | None, hub: HubClient, watch: bool, everything: bool, output: str) -> None:
    """Show what runs where, as the running hub knows it: sources held back, ages of reports, health by entry.

    With a name, only that cluster, or that model, workload or application (the label app.kubernetes.io/part-of). A
    cluster that was not heard of for ten minutes is unknown, whatever it said last.

    \b
    Examples:
      edgeferry status
      edgeferry status digits --hub https://hub.example:8443 --token-file operator.token
      edgeferry status milan-01 -o json
      edgeferry status --watch
    """
    if watch and output == "json":
        raise click.UsageError("--watch is for people; ask again for JSON")
    while True:
        if watch:
            click.clear()
        _show(name, hub, everything=everything, output=output)
        if not watch:
            return
        time.sleep(_WATCH_S)


def _show(name: str | None, hub: HubClient, *, everything: bool, output: str) -> None:
    shown = hub.get("/v1/status", {} if name is None else {"about": name})
    if output == "json":
        click.echo(as_json(shown))
        return
    words = status_text.overview if name is None else status_text.about
    above, rows, below = words(shown, everything=everything)
    look = hub.get("/v1/rollouts")
    rollouts = [one for one in look["rollouts"] if name in (None, one["name"], one["subject"])]
    above += ["everything is frozen"] if look["frozen"] else []
    above += [look["pending"]] if look["pending"] else []
    click.echo("\n".join(above))
    under_way = [one for one in rollouts if everything or name is not None or one["phase"] != "complete"]
    if under_way:
        moving = table_rows(under_way, look["at"])
        click.echo("\n" + table(moving[0], moving[1:]))
    if len(rows) > 1:
        click.echo("\n" + table(rows[0], rows[1:]))
    if below:
        click.echo("\n" + "\n".join(below))
