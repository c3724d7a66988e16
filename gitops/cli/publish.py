"""``edgeferry publish``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from gitops.cli.facts_option import facts_option, snapshot_of
from gitops.cli.output import as_json, output_option
from gitops.hubless import publish_once
from gitops.opening import FleetHome, MainSource
from gitops.plan_text import plan_held, plan_json, plan_summary


@click.command()
@click.argument("repository", default=".", metavar="REPOSITORY")
@click.option(
    "--fleet",
    required=True,
    metavar="URL",
    help="Fleet repository: a path (made where absent) or anything `git push` takes.",
)
@click.option("--fleet-branches", is_flag=True, help="Keep a branch for every cluster on a Git host, too.")
@click.option(
    "--keys",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory with release.key and fleet-id; made on the first publication, with a root.key to take offline.",
)
@click.option(
    "--store",
    "artifacts",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for the artifacts of models in Git (OCI layout).  [default: artifacts beside the keys]",
)
@click.option(
    "--reports", default="", metavar="URL", help="Report repository that the agents push to: facts and sequences."
)
@facts_option
@click.option("--branch", default="main", show_default=True, help="Branch of the model repository.")
@click.option(
    "--now",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ"]),
    help="Time of the step; the same inputs at the same time give the same commit.  [default: the clock]",
)
@output_option
def publish(
    repository: str,
    fleet: str,
    fleet_branches: bool,
    keys: Path,
    artifacts: Path | None,
    reports: str,
    facts: str | None,
    branch: str,
    now: datetime | None,
    output: str,
) -> None:
    """Decide once and publish, without a hub: as a CI job on push and on a schedule.

    REPOSITORY is the model repository: a path or anything `git clone` takes. A rerun publishes nothing.

    \b
    Examples:
      edgeferry publish . --fleet ../fleet.git --keys ../keys
      edgeferry publish . --fleet ssh://git@git.example/fleet.git --keys /run/secrets/edgeferry
      edgeferry publish . --fleet $FLEET --keys $KEYS --reports ssh://git@git.example/reports.git
    """
    at = datetime.now(UTC).replace(microsecond=0) if now is None else now.replace(tzinfo=UTC)
    source = MainSource(repository, branch)
    known, home, store = snapshot_of(facts), FleetHome(fleet, fleet_branches), artifacts or keys.parent / "artifacts"
    done = publish_once(source, home, keys, store, at, reports, known)
    if output == "json":
        refused = [str(fault) for fault in done.heard.refused]
        whole = {**plan_json(done.step), **known.as_json(), "head": done.head or "", "refusedReports": refused}
        click.echo(as_json(whole))
        return
    for line in (*known.lines(), *map(str, done.heard.refused), *plan_held(done.step)):
        click.echo(line, err=True)
    click.echo("Nothing to publish." if done.head is None else f"Published {done.head[:12]}. {plan_summary(done.step)}")
