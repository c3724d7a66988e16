"""``edgeferry explain``."""

from __future__ import annotations

from dataclasses import asdict

import click

from agent.wire.fields import write_time
from gitops.cli.facts_option import facts_option, snapshot_of
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
@facts_option
@output_option
def explain(
    name: str,
    cluster: str | None,
    source: str,
    revision: str | None,
    fleet: str | None,
    facts: str | None,
    output: str,
) -> None:
    """Tell why the model or workload NAME runs where it does; for one CLUSTER, what would change that.

    \b
    Examples:
      edgeferry explain digits
      edgeferry explain digits turin-01
      edgeferry explain digits turin-01 --facts facts.json
      edgeferry explain digits --revision my-branch --facts https://hub.example:8443 --output json
    """
    explained = explain_(source, revision, fleet, name, cluster, snapshot_of(facts))
    if output == "json":
        at = "" if explained.facts_at is None else write_time(explained.facts_at)
        parts = [asdict(part) for part in explained.parts]
        click.echo(
            as_json(
                {
                    "factsAt": at,
                    "factsRefused": list(explained.facts_refused),
                    "parts": parts,
                    "published": dict(explained.published),
                }
            )
        )
        return
    if explained.facts_at is not None:
        click.echo(f"facts of {write_time(explained.facts_at)}")
    for fault in explained.facts_refused:
        click.echo(f"not counted: {fault}")
    for part in explained.parts:
        click.echo(part.text())
        published = explained.published.get(part.placement)
        if published is not None and published != part.version:
            click.echo(f"  published to it so far: {published or 'nothing'}; its rollout has not come to it yet")
