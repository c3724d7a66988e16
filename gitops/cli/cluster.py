"""``edgeferry cluster``: tokens and registrations on the hub's machine, documents in the working tree."""

from __future__ import annotations

import getpass
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from agent.wire.errors import Stop
from agent.wire.fields import write_time
from gitops.cli.cluster_documents import add, detach, label, label_pair, repository_option, write
from gitops.cli.output import as_json, output_option, table
from gitops.cluster_view import cluster_shown
from gitops.fact_checks import admitted
from gitops.state_dir import StateDir
from gitops.store import JoinToken, Store

F = TypeVar("F", bound=Callable[..., Any])

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?\Z")
_TTL: Final = re.compile(r"(\d{1,5})([mhd])\Z")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


class UnknownCluster(Stop):
    """No cluster of this name is registered."""

    code = "EF3115"


class NoHubState(Stop):
    """The directory is not the state of a hub."""

    code = "EF3116"


def state_option(command: F) -> F:
    """Add ``--state`` to a command."""
    option = click.option(
        "--state",
        type=click.Path(file_okay=False, path_type=Path),
        default="hub-state",
        show_default=True,
        envvar="EDGEFERRY_HUB_STATE",
        help="State directory of the hub; its database, too, unless EDGEFERRY_DATABASE names another.",
    )
    return option(command)


@click.group()
def cluster() -> None:
    """Register clusters, look at them, and write their documents."""


@cluster.command()
@click.argument("name")
@state_option
@click.option("--hub-url", required=True, help="Address at which the cluster reaches the hub.")
@click.option("--ttl", default="24h", show_default=True, help="How long the token is good: 30m, 24h, 7d.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="For the document that `adopt` writes.")
@click.option("--replace", is_flag=True, help="Take the place of a machine that is registered under this name.")
@output_option
def token(name: str, state: Path, hub_url: str, ttl: str, labels: tuple[str, ...], replace: bool, output: str) -> None:
    """Print the line that joins cluster NAME: paste it on the cluster.

    The token in it is good for one machine, as this cluster alone. Where the hub serves by a certificate of its own
    authority, the line pins that authority by its hash.

    \b
    Examples:
      edgeferry cluster token milan-01 --hub-url https://hub.example:8443 --label country=it
      edgeferry cluster token milan-01 --hub-url https://hub.example:8443 --replace
      edgeferry cluster token milan-01 --state hub-state --hub-url https://hub.example:8443
      edgeferry cluster token milan-01 --hub-url https://hub.example:8443 --ttl 7d -o json
    """
    if not _NAME.match(name):
        raise click.BadParameter("at most 53 of a-z 0-9 -, beginning and ending with a letter or digit")
    if not hub_url.startswith(("https://", "http://")):
        raise click.BadParameter("begins with https:// (or http:// on this machine)", param_hint="--hub-url")
    now = datetime.now(UTC)
    secret, expires = secrets.token_urlsafe(32), now + _duration(ttl)
    StateDir(state).make()
    with _store(state, create=True) as store:
        from gitops.serve.identity import hash_secret

        wanted = dict(label_pair(one, "--label") for one in labels)
        store.add_token(JoinToken(hash_secret(secret), name, expires, wanted, replace), _user(), now)
    command = f"edgeferry-agent join --hub {hub_url} --cluster {name}"
    if hub_url.startswith("https://") and StateDir(state).own_certificate.exists():
        from gitops.authority import Authority

        command += f" --ca-hash {Authority.open(StateDir(state).keys).hash}"
    if output == "json":
        shown = {"cluster": name, "hub": hub_url, "token": secret, "expires": write_time(expires), "command": command}
        click.echo(as_json(shown))
    else:
        click.echo(f"EDGEFERRY_TOKEN={secret} {command}")


@cluster.command(name="list")
@state_option
@output_option
def list_(state: Path, output: str) -> None:
    """List the registered clusters and when they were heard of.

    \b
    Examples:
      edgeferry cluster list --state hub-state
      edgeferry cluster list -o json
    """
    with _store(state) as store:
        reports = store.latest_reports()
        shown = [cluster_shown(one, reports.get(one.name)) for one in store.registrations()]
    if output == "json":
        click.echo(as_json(shown))
    else:
        heads = ("NAME", "JOINED", "SEEN", "SEQUENCE", "HEALTH", "AGENT")
        rows = [
            (one["name"], one["joinedAt"], one["seenAt"] or "never", one["sequence"], one["lastHealth"], one["agent"])
            for one in shown
        ]
        click.echo(table(heads, rows))


@cluster.command()
@click.argument("name")
@state_option
@click.option("--events", default=10, show_default=True, help="How many of the newest events to show.")
@output_option
def show(name: str, state: Path, events: int, output: str) -> None:
    """Show one cluster: its registration, its last report, its newest events.

    \b
    Examples:
      edgeferry cluster show milan-01 --state hub-state
      edgeferry cluster show milan-01 --events 50 -o json
    """
    with _store(state) as store:
        registration = store.registration(name)
        if registration is None:
            raise _unknown(name)
        stored = store.latest_reports().get(name)
        newest = store.newest_events(name, events)
        facts = store.facts().get(name, ())
    shown = cluster_shown(registration, stored)
    shown["facts"] = {fact.name: fact.value for fact in facts}
    shown["factsMeasuredAt"] = {fact.name: write_time(fact.measured_at) for fact in facts}
    refused = () if stored is None else admitted(stored.report.facts, stored.received_at, stored.report.unread)[1]
    shown["factsRefused"] = [{"code": one.code, "why": one.what} for one in refused]
    shown["entries"] = (
        []
        if stored is None
        else [
            {"kind": one.kind, "name": one.name, "version": one.version, "health": one.health, "message": one.message}
            for one in stored.report.entries
        ]
    )
    shown["events"] = [
        {
            "number": one.event.number,
            "at": write_time(one.event.at),
            "kind": one.event.kind,
            "object": one.event.object,
            "version": one.event.version,
            "count": one.event.count,
            "message": one.event.message,
        }
        for one in newest
    ]
    if output == "json":
        click.echo(as_json(shown))
        return
    for head, value in shown.items():
        if head == "facts":
            click.echo(f"facts: {', '.join(f'{fact}={text}' for fact, text in value.items()) or 'none'}")
            if facts:
                click.echo(f"facts measured: {write_time(min(fact.measured_at for fact in facts))} or later")
        elif head == "factsMeasuredAt":
            continue
        elif not isinstance(value, list):
            click.echo(f"{head}: {value}")
    for part in ("factsRefused", "entries", "events"):
        if shown[part]:
            click.echo(f"\n{table([one.upper() for one in shown[part][0]], [row.values() for row in shown[part]])}")


@cluster.command()
@click.argument("name")
@state_option
def revoke(name: str, state: Path) -> None:
    """End the registration of cluster NAME, and its open tokens.

    The hub refuses it from then on; what it runs goes on. It may join again with a new token.

    \b
    Examples:
      edgeferry cluster revoke milan-01 --state hub-state
    """
    with _store(state) as store:
        if not store.revoke(name, _user(), datetime.now(UTC)):
            raise _unknown(name)
    click.echo(f"{name} is revoked; what it runs goes on")


@cluster.command()
@click.argument("name")
@state_option
@repository_option
def adopt(name: str, state: Path, repository: Path) -> None:
    """Write the document of cluster NAME, which has joined, into the working tree, with the labels of its token.

    \b
    Examples:
      edgeferry cluster adopt milan-01 --state /var/lib/edgeferry-hub --repository ~/models
    """
    with _store(state) as store:
        registration = store.registration(name)
    if registration is None:
        raise _unknown(name)
    click.echo(f"{write(repository, name, dict(registration.labels))}: commit and push it")


for _command in (add, label, detach):
    cluster.add_command(_command)


@contextmanager
def _store(state: Path, *, create: bool = False) -> Iterator[Store]:
    from gitops.store.opening import is_url, open_store

    path = os.environ.get("EDGEFERRY_DATABASE") or str(StateDir(state).database)
    if not create and not is_url(path) and not Path(path).exists():
        raise NoHubState("no hub.sqlite there", where=str(state), do="name the hub's directory with --state")
    store = open_store(path)
    try:
        yield store
    finally:
        store.close()


def _duration(text: str) -> timedelta:
    found = _TTL.match(text)
    if found is None or int(found[1]) == 0:
        raise click.BadParameter("write it like 30m, 24h or 7d", param_hint="--ttl")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _unknown(name: str) -> UnknownCluster:
    return UnknownCluster(f"{name!r} is not registered", do="see `edgeferry cluster list`")


def _user() -> str:
    try:
        return f"user/{getpass.getuser()}"
    except (KeyError, OSError):
        return "user/unknown"
