"""``edgeferry login`` and ``edgeferry logout``."""

from __future__ import annotations

from pathlib import Path

import click

from gitops.cli.output import as_json, output_option
from gitops.hub_client import HubClient
from gitops.logins import Login, drop_login, keep_login, newest_login


@click.command()
@click.argument("url")
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
    help="Authorities that the hub's certificate is checked against, PEM.",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the token; without it, it is asked for.",
)
@output_option
def login(url: str, ca: Path | None, token_file: Path | None, output: str) -> None:
    """Sign in to the hub at URL with a token, for all commands that ask a hub.

    An administrator makes the token: `edgeferry hub token ann --role operator`.

    \b
    Examples:
      edgeferry login https://hub.example:8443
      edgeferry login https://hub.example:8443 --ca hub-ca.pem --token-file token
    """
    if not url.startswith(("https://", "http://")):
        raise click.BadParameter("write it like https://hub.example:8443", param_hint="URL")
    url = url.rstrip("/")
    token = token_file.read_text().strip() if token_file else click.prompt("Token", hide_input=True, err=True).strip()
    person = HubClient(url, token, ca).get("/v1/whoami")
    keep_login(Login(url, token, "" if ca is None else str(ca)))
    if output == "json":
        click.echo(as_json({"hub": url, **person}))
    else:
        click.echo(f"signed in to {url} as {person['name']}, {person['role']}")


@click.command()
@click.argument("url", required=False)
def logout(url: str | None) -> None:
    """Forget the token for the hub at URL, or for the one where you signed in last.

    \b
    Examples:
      edgeferry logout
    """
    newest = newest_login()
    where = url.rstrip("/") if url else "" if newest is None else newest.url
    click.echo(f"signed out of {where}" if drop_login(where) else "you are not signed in there")
