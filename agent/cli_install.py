"""``edgeferry-agent install`` and ``edgeferry-agent leave``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from agent.cli_output import as_json, output_option, state_option
from agent.config import load_config
from agent.unit import DIRECTORY, uninstall, unit
from agent.unit import install as install_unit


@click.command(short_help="Run the agent by systemd, from now on.")
@state_option
@click.option(
    "--unit-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DIRECTORY,
    show_default=True,
    help="Where units stand.",
)
@click.option("--no-start", is_flag=True, help="Only write the unit, as in an image of a machine.")
@click.option("--print", "only_print", is_flag=True, help="Print the unit; change nothing.")
@output_option
def install(state: Path, unit_dir: Path, no_start: bool, only_print: bool, output: str) -> None:
    """Have systemd run the agent now and after every boot; what it started outlives it.

    \b
    Examples:
      edgeferry-agent install
      edgeferry-agent install --state /srv/edgeferry
      edgeferry-agent install --print
    """
    program = _program()
    if only_print:
        click.echo(unit(program, state), nl=False)
        return
    load_config(state)
    path = install_unit(program, state, unit_dir, start=not no_start)
    if output == "json":
        click.echo(as_json({"unit": str(path), "started": not no_start}))
    else:
        click.echo(f"{path} is written" + ("" if no_start else "; the agent runs, and will after every boot"))


@click.command(short_help="End this site's membership of its fleet.")
@state_option
@click.option("--delete", "remove", is_flag=True, help="Stop and remove what runs here. Without it, it goes on.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
def leave(state: Path, remove: bool, yes: bool, output: str) -> None:
    """Leave the fleet: the key, the credential and the settings go; what runs goes on unless --delete is given.

    Afterwards `edgeferry cluster revoke NAME` at the hub makes it forget this site, and the Cluster document is to be
    deleted in Git. To come back, join again.

    \b
    Examples:
      edgeferry-agent leave
      edgeferry-agent leave --delete --yes
    """
    from agent.leaving import leave as leave_fleet

    config = load_config(state)
    if not yes:
        what = "stop and remove everything that runs here" if remove else "leave running what runs here, unmanaged"
        click.confirm(f"{config.cluster} leaves fleet {config.fleet}: {what}?", abort=True, err=True)
    if uninstall():
        click.echo("the service is stopped and its unit removed", err=True)
    removed = leave_fleet(state, remove=remove)
    if output == "json":
        click.echo(as_json({"cluster": config.cluster, "fleet": config.fleet, "removed": list(removed)}))
    else:
        click.echo(f"{config.cluster} has left; next, at the hub: edgeferry cluster revoke {config.cluster}")


def _program() -> Path:
    """Return where this command stands."""
    beside = Path(sys.executable).parent / "edgeferry-agent"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("edgeferry-agent") or sys.argv[0]
    return Path(found).resolve() if not os.access(beside, os.X_OK) else beside
