"""``edgeferry facts``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gitops.cli.hub_options import hub_options
from gitops.cli.output import as_json, output_option, table
from gitops.hub_client import HubClient
from gitops.snapshot import decode_snapshot
from placement.fact_names import DEFINITIONS


@click.group(short_help="Look at what the agents measured.")
def facts() -> None:
    """Look at what the agents measured, and take it along."""


@facts.command()
@hub_options
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write instead of the terminal.")
def export(hub: HubClient, out: Path | None) -> None:
    """Write the newest facts of every cluster as one file, for `explain`, `validate` and `plan` without the hub.

    \b
    Examples:
      edgeferry facts export --out facts.json
      edgeferry facts export --hub https://hub.example:8443 --token-file operator.token > facts.json
    """
    found = hub.get("/v1/facts")
    decode_snapshot(found, hub.url)
    text = json.dumps(found, sort_keys=True, ensure_ascii=False, separators=(",", ":")) + "\n"
    if out is None:
        click.echo(text, nl=False)
        return
    out.write_text(text)
    click.echo(f"{out}: facts of {len(found['clusters'])} clusters at {found['at']}", err=True)


@facts.command(name="list")
@click.argument("name", required=False, metavar="[FACT]")
@hub_options
@output_option
def list_(name: str | None, hub: HubClient, output: str) -> None:
    """List the facts of every cluster, or one of them, with the times they were measured at.

    \b
    Examples:
      edgeferry facts list memory.capacity
      edgeferry facts list -o json
    """
    found = hub.get("/v1/facts")
    rows = [
        (cluster, one["name"], one["value"], one["measuredAt"])
        for cluster, known in found["clusters"].items()
        for one in known
        if name is None or one["name"] == name
    ]
    if output == "json":
        click.echo(as_json([dict(zip(("cluster", "name", "value", "measuredAt"), row, strict=True)) for row in rows]))
    else:
        click.echo(table(("CLUSTER", "FACT", "VALUE", "MEASURED"), rows))


@facts.command()
@output_option
def names(output: str) -> None:
    """List the facts that every agent measures, with their units, and how those of several nodes become one.

    \b
    Examples:
      edgeferry facts names
    """
    rows = [(one.name, one.kind, one.unit, one.fold, one.meaning) for one in DEFINITIONS]
    if output == "json":
        click.echo(as_json([dict(zip(("name", "kind", "unit", "fold", "meaning"), row, strict=True)) for row in rows]))
    else:
        click.echo(table(("NAME", "KIND", "UNIT", "NODES", "MEANING"), rows))
