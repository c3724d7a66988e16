"""``edgeferry events``."""

from __future__ import annotations

import time
from typing import Any, Final

import click

from gitops.cli.hub_options import hub_options
from gitops.cli.output import as_json, output_option, table
from gitops.hub_client import HubClient

_FOLLOW_S: Final = 2.0


@click.command()
@click.argument("cluster", required=False)
@click.option("--limit", "-n", default=50, show_default=True, type=click.IntRange(1, 1000), help="So many, the newest.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens, until interrupted.")
@hub_options
@output_option
def events(cluster: str | None, limit: int, follow: bool, hub: HubClient, output: str) -> None:
    """Show what happened at the edges, or at one CLUSTER: switches, failures, returns, repairs.

    Every event comes once, in order, however long its site was cut off; repeated ones are folded, with a count.

    \b
    Examples:
      edgeferry events
      edgeferry events milan-01 --limit 200
      edgeferry events --follow
    """
    asked = {"limit": str(limit)} | ({"cluster": cluster} if cluster else {})
    found = hub.get("/v1/events", asked)["events"]
    if output == "json" and not follow:
        click.echo(as_json(found))
        return
    _print(found, output)
    last = found[-1]["id"] if found else 0
    while follow:
        time.sleep(_FOLLOW_S)
        found = hub.get("/v1/events", {**asked, "after": str(last)})["events"]
        _print(found, output)
        last = found[-1]["id"] if found else last


def _print(found: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        for one in found:
            click.echo(as_json(one))
        return
    rows = [
        (
            one["at"],
            one["cluster"],
            one["kind"] + (f" ×{one['count']}" if one["count"] > 1 else ""),
            one["object"] or "–",
            one["version"] or "–",
            f"{one['code']} {one['message']}".strip(),
        )
        for one in found
    ]
    if rows:
        click.echo(table(("AT", "CLUSTER", "WHAT", "OBJECT", "VERSION", "MESSAGE"), rows))
