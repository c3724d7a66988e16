"""``edgeferry export`` and ``edgeferry import-report``: for sites that no network reaches."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from agent.wire.fields import write_time
from gitops.cli.cluster import NoHubState, state_option
from gitops.cli.output import as_json, output_option
from gitops.state_dir import StateDir


@click.command(short_help="Write a file to carry to a site that no network reaches.")
@click.argument("cluster")
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The file, on a disk to carry."
)
@state_option
@click.option("--everything", is_flag=True, help="Also the artifacts that the site has by its last report.")
@click.option("--without-elsewhere", is_flag=True, help="Leave out artifacts that only other registries have.")
@output_option
def export(cluster: str, out: Path, state: Path, everything: bool, without_elsewhere: bool, output: str) -> None:
    """Write what CLUSTER is to run into one file: its signed overlay, the trust, and the artifacts that it lacks.

    At the site: edgeferry-agent import FILE; then carry its report back (edgeferry-agent export-report) and take it in
    by edgeferry import-report, so that the next file holds only what is still lacking.

    \b
    Examples:
      edgeferry export milan-01 --out /media/stick/milan-01.tar
      edgeferry export milan-01 --out milan-01.tar --everything --state /var/lib/edgeferry-hub
    """
    from gitops.artifacts import ArtifactStore
    from gitops.carrying import ArtifactElsewhere, cargo, known_events, write_cargo
    from gitops.fleet import FleetRepository
    from gitops.keys import Keyring
    from gitops.store.sqlite import SqliteStore

    hub = _hub(state)
    store = SqliteStore(hub.database)
    try:
        stored = store.report(cluster)
        report = None if stored is None else stored.report
        known = known_events(store, report)
    finally:
        store.close()
    artifacts = ArtifactStore.open(hub.artifacts)
    what = cargo(cluster, FleetRepository.open(hub.fleet), artifacts, None if everything else report)
    if what.elsewhere and not without_elsewhere:
        raise ArtifactElsewhere(
            f"{len(what.elsewhere)} artifacts are not in this hub's store: {', '.join(what.elsewhere[:3])}",
            do="copy them into it (`skopeo copy`), or --without-elsewhere where the site reaches them itself",
        )
    key = Keyring.open(hub.keys).release
    shown = sys.stderr.isatty()
    with click.progressbar(length=what.size_bytes, label=str(out), file=sys.stderr, hidden=not shown) as bar:
        size = write_cargo(what, artifacts, key, out, known, datetime.now(UTC), bar.update)
    found: dict[str, Any] = {
        "cluster": cluster,
        "file": str(out),
        "size": size,
        "sequence": what.release.sequence,
        "blobs": len(what.blobs),
        "alreadyThere": what.present,
        "elsewhere": list(what.elsewhere),
    }
    if output == "json":
        click.echo(as_json(found))
        return
    has = f"; {what.present} artifacts are at the site already" if what.present else ""
    click.echo(f"{out}: release {what.release.sequence} for {cluster}, {size >> 10} KiB{has}")
    click.echo(f"next, at the site: edgeferry-agent import {out.name}")


@click.command(name="import-report", short_help="Take in a report that was carried here from a site.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@state_option
@output_option
def import_report(file: Path, state: Path, output: str) -> None:
    """Take in what `edgeferry-agent export-report` wrote: what runs there, and its events, each once.

    A running hub sees it at its next look at the sources. A site that never joined is known by the `key` in its Cluster
    document.

    \b
    Examples:
      edgeferry import-report /media/stick/milan-01.report
      edgeferry import-report milan-01.report --state /var/lib/edgeferry-hub -o json
    """
    from gitops.carrying import take_report
    from gitops.fleet import FleetRepository
    from gitops.store.sqlite import SqliteStore

    hub = _hub(state)
    store = SqliteStore(hub.database)
    try:
        report = take_report(file.read_bytes(), FleetRepository.open(hub.fleet), store, datetime.now(UTC), str(file))
    finally:
        store.close()
    asof = write_time(report.sent_at)
    if output == "json":
        found = {"cluster": report.cluster, "asOf": asof, "sequence": report.sequence, "events": len(report.events)}
        click.echo(as_json(found))
    else:
        click.echo(f"{report.cluster} as of {asof}: release {report.sequence}, {len(report.events)} events")


def _hub(state: Path) -> StateDir:
    hub = StateDir(state)
    if not hub.database.exists() or not hub.fleet.exists():
        raise NoHubState("no hub's state there", where=str(state), do="name the hub's directory with --state")
    return hub
