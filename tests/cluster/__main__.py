"""``python -m tests.cluster``: real control planes from the command line."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import click

from tests.cluster import binary, control_plane, processes

_FOLDER = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp") / f"edgeferry-cluster-{os.getuid()}",
    show_default=True,
    help="Where the clusters' state stands.",
)
_NAME = click.option("--name", default="default", show_default=True, help="Of the cluster.")


@click.group()
def main() -> None:
    """Real Kubernetes for tests, from source, on this machine.

    \b
    Examples:
      python -m tests.cluster build
      python -m tests.cluster up
      python -m tests.cluster kubectl -- get namespaces
      python -m tests.cluster down
    """


@main.command()
def build() -> None:
    """Build the components, unless they are built already."""
    try:
        click.echo(binary.build(lambda line: click.echo(line, err=True)))
    except binary.Unavailable as reason:
        raise click.ClickException(str(reason)) from None


@main.command()
@_FOLDER
@_NAME
@click.option(
    "--kind", type=click.Choice(["api"]), default="api", show_default=True, help="api: control plane, no nodes."
)
@click.option("--controllers/--no-controllers", default=True, show_default=True, help="Run a controller manager too.")
def up(folder: Path, name: str, kind: str, controllers: bool) -> None:
    """Start a cluster that outlives this command; print how to reach it."""
    began = time.monotonic()
    place = folder / name
    try:
        components = binary.build(lambda line: click.echo(line, err=True))
        if (place / "cluster.json").exists():
            cluster = control_plane.load(place)
            control_plane.start(cluster)
        else:
            cluster = control_plane.create(place, components, controllers=controllers, dies_with_us=False)
    except (binary.Unavailable, processes.NotUp) as reason:
        raise click.ClickException(str(reason)) from None
    click.echo(f"{name} ({kind}) is ready after {time.monotonic() - began:.1f} s")
    click.echo(f"export KUBECONFIG={cluster.kubeconfig}")


@main.command()
@_FOLDER
@click.option("--name", default="", help="Of the cluster; without it all of them.")
def down(folder: Path, name: str) -> None:
    """End clusters and remove their state."""
    for place in [folder / name] if name else sorted(folder.glob("*/")):
        if (place / "cluster.json").exists():
            control_plane.destroy(control_plane.load(place))
            click.echo(f"{place.name} is gone")
        elif name:
            raise click.ClickException(f"there is no cluster {name} in {folder}")


@main.command()
@_FOLDER
def status(folder: Path) -> None:
    """Say which clusters there are and what of them runs."""
    for place in sorted(folder.glob("*/")):
        if (place / "cluster.json").exists():
            cluster = control_plane.load(place)
            parts = ", ".join(f"{part} {pid or 'ended'}" for part, pid in control_plane.running(cluster).items())
            click.echo(f"{place.name}\t{cluster.url}\t{parts}")


@main.command(context_settings={"ignore_unknown_options": True})
@_FOLDER
@_NAME
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kubectl(folder: Path, name: str, arguments: tuple[str, ...]) -> None:
    """Run kubectl as administrator of a cluster."""
    try:
        cluster = control_plane.load(folder / name)
    except FileNotFoundError:
        raise click.ClickException(
            f"there is no cluster {name} in {folder}: run `python -m tests.cluster up`"
        ) from None
    command = [str(cluster.binary.parent / "kubectl"), f"--kubeconfig={cluster.kubeconfig}", *arguments]
    raise SystemExit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
