"""``edgeferry-agent import`` and ``edgeferry-agent export-report``: for a site that no network reaches."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from agent import durable
from agent.carried import report_file, take_in
from agent.cli_output import as_json, output_option, state_option
from agent.wire.errors import Retry


class ReportNotWritten(Retry):
    """The report could not be written where it was asked for."""

    code = "EF4444"


@click.command(name="import", short_help="Take what was carried here in a file.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path))
@state_option
@output_option
def import_(file: Path, state: Path, output: str) -> None:
    """Verify what `edgeferry export` wrote, and put it where the agent of this site takes it up.

    Every byte is checked against the fleet's keys before it counts. An interrupted import goes on where it was. The
    agent that runs here stages and switches by itself; without one, use `edgeferry-agent once --until-current`.

    \b
    Examples:
      edgeferry-agent import /media/stick/milan-01.tar
      edgeferry-agent import milan-01.tar && edgeferry-agent once --until-current
    """
    shown = sys.stderr.isatty()
    with click.progressbar(length=file.stat().st_size, label=file.name, file=sys.stderr, hidden=not shown) as bar:
        found = take_in(state, file, bar.update)
    if output == "json":
        click.echo(as_json(asdict(found)))
        return
    what = "is taken" if found.news else "is not newer than what is in force"
    click.echo(f"release {found.sequence} {what}; {found.blobs} blobs were brought, {found.present} were here")


@click.command(short_help="Write this site's report into a file, to carry it to the hub.")
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, resolve_path=True, path_type=Path), help="The file."
)
@state_option
@output_option
def export_report(out: Path, state: Path, output: str) -> None:
    """Write how this site stands, and what happened since the hub heard of it last, signed with this agent's key.

    At the hub: edgeferry import-report FILE. It may be carried there twice, or not at all: the next one has the rest.

    \b
    Examples:
      edgeferry-agent export-report --out /media/stick/milan-01.report
    """
    data = report_file(state, datetime.now(UTC))
    try:
        durable.write(out, data, 0o644)
    except OSError as error:
        raise ReportNotWritten(error.strerror or str(error), where=str(out), do="give another place") from None
    if output == "json":
        click.echo(as_json({"file": str(out), "size": len(data)}))
    else:
        click.echo(f"{out}: {len(data)} bytes; next, at the hub: edgeferry import-report {out.name}")
