"""``edgeferry explain``."""

from __future__ import annotations

from dataclasses import asdict

import click

from gitops.cli.output import as_json, output_option
from gitops.explaining import explain as explain_


@click.command()
@click.argument("name")
@click.argument("cluster", required=False)
@click.option(
    "--source",
    default=".",
    show_default=True,
    metavar="PATH",
    help="Model repository; a bare one or a URL is read at --revision.",
)
@click.option("--revision", metavar="REF", help="Branch, tag or commit instead of the working folder.")
@click.option(
    "--fleet", metavar="URL", help="Fleet repository: clusters that it has chosen keep their place under `count`."
)
@output_option
def explain(name: str, cluster: str | None, source: str, revision: str | None, fleet: str | None, output: str) -> None:
    """Tell why the model or workload NAME runs where it does; for one CLUSTER, what would change that.

    \b
    Examples:
      edgeferry explain digits
      edgeferry explain digits turin-01
      edgeferry explain digits --revision my-branch --output json
    """
    explained = explain_(source, revision, fleet, name, cluster)
    if output == "json":
        click.echo(as_json([asdict(part) for part in explained.parts]))
        return
    for part in explained.parts:
        click.echo(part.text())
