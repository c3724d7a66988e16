"""``edgeferry hub``."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from gitops.opening import FleetHome, MainSource
from gitops.state_dir import StateDir


@click.group()
def hub() -> None:
    """Run the hub."""


@hub.command()
@click.option("--source", required=True, metavar="URL", help="Model repository: a path or anything `git clone` takes.")
@click.option("--branch", default="main", show_default=True, help="Branch that is watched.")
@click.option("--path", default=".", show_default=True, help="Directory within the repository that is read.")
@click.option(
    "--state",
    default="hub-state",
    show_default=True,
    envvar="EDGEFERRY_HUB_STATE",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for keys, database, fleet repository and artifacts.",
)
@click.option(
    "--fleet",
    default="",
    metavar="URL",
    help="Fleet repository: a path, or a URL on a Git host, which is mirrored.  [default: fleet.git in the state]",
)
@click.option("--fleet-branches", is_flag=True, help="Keep a branch for every cluster on the Git host, too.")
@click.option(
    "--listen",
    default="127.0.0.1:8460",
    show_default=True,
    metavar="HOST:PORT",
    help="Address to serve on; port 0 takes a free one.",
)
@click.option(
    "--poll",
    "poll_s",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="Seconds between looks at the sources.",
)
@click.option(
    "--watch/--no-watch", default=True, show_default=True, help="Watch a repository on this machine for commits."
)
@click.option(
    "--tls-cert", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Certificate chain, PEM."
)
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Private key, PEM.")
@click.option(
    "--tls-name",
    "tls_names",
    multiple=True,
    metavar="HOST",
    help="Serve TLS by a certificate of the hub's own authority for this name or address, in place of --tls-cert.",
)
@click.option(
    "--client-ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take agents' certificates signed by this authority as their identity.",
)
@click.option(
    "--hook-secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the secret of the push webhook.",
)
@click.option(
    "--database",
    default="",
    envvar="EDGEFERRY_DATABASE",
    metavar="URL",
    help="postgresql://… in place of the file in --state; several hubs on one database take turns in deciding.",
)
@click.option("--verbose", "-v", is_flag=True, help="Say more.")
def serve(
    source: str,
    branch: str,
    path: str,
    state: Path,
    fleet: str,
    fleet_branches: bool,
    listen: str,
    poll_s: float,
    watch: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_names: tuple[str, ...],
    client_ca: Path | None,
    hook_secret_file: Path | None,
    database: str,
    verbose: bool,
) -> None:
    """Watch the model repository, decide, publish, and serve the agents, until stopped.

    \b
    Examples:
      edgeferry hub serve --source .
      edgeferry hub serve --source https://git.example/models.git --listen 0.0.0.0:8443 --tls-name hub.example
      edgeferry hub serve --source ssh://git@git.example/models.git --state /var/lib/edgeferry-hub --listen 0.0.0.0:8460
      edgeferry hub serve --source . --fleet ssh://git@git.example/fleet.git
    """
    from gitops.running import Listening, serve_hub

    host, _, port = listen.rpartition(":")
    if not port.isdigit() or not host:
        raise click.BadParameter("write it like 127.0.0.1:8460", param_hint="--listen")
    if (tls_cert is None) != (tls_key is None) or (tls_cert is not None and tls_names):
        raise click.UsageError("--tls-cert and --tls-key go together, or --tls-name in place of both")
    if client_ca is not None and tls_cert is None and not tls_names:
        raise click.UsageError("--client-ca needs TLS: --tls-name, or --tls-cert and --tls-key")
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.DEBUG if verbose else logging.WARNING)
    secret = "" if hook_secret_file is None else hook_secret_file.read_text().strip()
    listening = Listening(host, int(port), tls_cert, tls_key, tls_names, client_ca, secret)
    home = FleetHome(fleet, fleet_branches)
    main_source = MainSource(source, branch, path)
    serve_hub(StateDir(state), main_source, home, listening, poll_s=poll_s, watch=watch, database=database)


_database = click.option(
    "--database",
    default="",
    envvar="EDGEFERRY_DATABASE",
    metavar="URL",
    help="postgresql://… in place of the file in --state.",
)
_state = click.option(
    "--state",
    default="hub-state",
    show_default=True,
    envvar="EDGEFERRY_HUB_STATE",
    type=click.Path(file_okay=False, path_type=Path),
    help="State directory of the hub.",
)


@hub.command()
@_state
@_database
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write; it holds secrets."
)
def backup(state: Path, database: str, out: Path) -> None:
    """Write keys, database and the hub's own fleet repository into one file, while the hub runs or not.

    \b
    Examples:
      edgeferry hub backup --state /var/lib/edgeferry-hub --out /backup/hub-$(date +%F).tar.gz
    """
    from gitops.backup import backup as back_up

    click.echo(f"{out}: {back_up(StateDir(state), database, out)} bytes; keep it as safe as the keys in it")


@hub.command()
@_state
@_database
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def restore(state: Path, database: str, file: Path) -> None:
    """Bring a backup into an empty state directory, and into an empty or another database.

    What happened since the backup is told again by the sites; those that are ahead get their release anew, under a
    higher sequence. Sites that joined since have to join again.

    \b
    Examples:
      edgeferry hub restore /backup/hub-2026-03-04.tar.gz --state /var/lib/edgeferry-hub
      edgeferry hub restore hub.tar.gz --database postgresql://edgeferry@db/edgeferry
    """
    from gitops.backup import restore as bring_back

    rows = bring_back(StateDir(state), database, file)
    click.echo(f"{state} is restored, {rows} rows; start it with `edgeferry hub serve --state {state}`")


@hub.command()
@_state
@_database
@click.argument("person")
@click.option(
    "--role",
    required=True,
    type=click.Choice(["viewer", "engineer", "operator", "resource-allocator", "administrator"]),
    help="What the token may do: see docs/security.md.",
)
@click.option("--days", default=90, show_default=True, type=click.IntRange(1, 366), help="How long it is good.")
def token(state: Path, database: str, person: str, role: str, days: int) -> None:
    """Make a token for PERSON, or for a program, and print it this once.

    \b
    Examples:
      edgeferry hub token ann --role operator
      edgeferry hub token ci --role engineer --days 30
    """
    from datetime import UTC, datetime

    from gitops.people_tokens import new_person
    from gitops.store import Audit
    from gitops.store.opening import open_store

    StateDir(state).make()
    store = open_store(database or StateDir(state).database)
    now = datetime.now(UTC).replace(microsecond=0)
    secret, kept = new_person(person, role, days * 86400, now)
    try:
        store.add_person(kept, Audit(now, "local", "token", f"person/{person} {role}"))
    finally:
        store.close()
    click.echo(secret)
