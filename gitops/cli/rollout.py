"""``edgeferry rollout`` and ``edgeferry freeze``: see rollouts, and order about them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from gitops.cli.hub_options import hub_options
from gitops.cli.output import as_json, output_option, table
from gitops.commands import Verb
from gitops.hub_client import HubClient
from gitops.ordering import Desk, FleetDesk, HubDesk, NoRollout, find
from gitops.rollout_view import about, table_rows

_HASH: Final = re.compile(r"[0-9a-f]{16}\Z")


def desk_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the hub's options, and ``--fleet`` and ``--keys`` for fleets without one; they arrive as ``desk``."""

    @click.option("--fleet", metavar="URL", help="Fleet repository, where no hub runs.")
    @click.option(
        "--keys",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Directory of the publisher's keys, to order without a hub.",
    )
    @functools.wraps(command)
    def with_desk(fleet: str | None, keys: Path | None, **others: Any) -> Any:
        if fleet is not None:
            for name in ("url", "ca", "state", "token_file"):
                others.pop(name, None)
            return command(desk=FleetDesk(fleet, keys), **others)

        def asked(hub: HubClient, **rest: Any) -> Any:
            return command(desk=HubDesk(hub), **rest)

        return hub_options(asked)(**others)

    hub = hub_options(lambda hub: hub)
    with_desk.__click_params__ = [  # type: ignore[attr-defined]  # where click keeps a command's options
        *getattr(hub, "__click_params__", []),
        *getattr(with_desk, "__click_params__", []),
    ]
    return with_desk


def _why(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--why", required=True, prompt="Why", metavar="TEXT", help="Stands with the order in the fleet repository."
    )(command)


@click.group()
def rollout() -> None:
    """See how changes go over the fleet, and order about them.

    Every order is a commit in the fleet repository that says who gave it, when and why.
    """


@rollout.command(name="list")
@desk_options
@output_option
def list_(desk: Desk, output: str) -> None:
    """List the rollouts and where they stand.

    \b
    Examples:
      edgeferry rollout list
      edgeferry rollout list --fleet ../fleet.git -o json
    """
    look = desk.look()
    if output == "json":
        click.echo(as_json(look))
        return
    for line in _top(look):
        click.echo(line)
    rows = table_rows(look["rollouts"], look["at"])
    click.echo(table(rows[0], rows[1:]) if len(rows) > 1 else "no placement has a rollout")


@rollout.command()
@click.argument("name")
@click.option("--all", "everything", is_flag=True, help="Show the clusters that are done, too.")
@desk_options
@output_option
def show(name: str, desk: Desk, everything: bool, output: str) -> None:
    """Show the rollout of placement NAME: its wave, who is on the way, who failed and why, and what to do.

    \b
    Examples:
      edgeferry rollout show digits
      edgeferry rollout show digits --all -o json
    """
    look = desk.look()
    one = find(look, name)
    if output == "json":
        click.echo(as_json(one))
        return
    lines, rows = about(one, look["at"], everything=everything)
    click.echo("\n".join(lines))
    if rows:
        click.echo("\n" + table(rows[0], rows[1:]))


@rollout.command()
@click.argument("name")
@click.option("--placement", is_flag=True, help="Also the rollouts that come after this one, until it is resumed.")
@click.option("--cluster", is_flag=True, help="NAME is a cluster: its release stays as it is.")
@_why
@desk_options
def pause(name: str, placement: bool, cluster: bool, why: str, desk: Desk) -> None:
    """Start nobody else in the rollout of NAME; who was started goes on.

    \b
    Examples:
      edgeferry rollout pause digits --why "line 3 has an audit"
      edgeferry rollout pause digits --placement --why "no changes this week"
      edgeferry rollout pause milan-01 --cluster --why "on loan to the lab"
    """
    _order(desk, "pause", name, why, placement=placement, cluster=cluster)


@rollout.command()
@click.argument("name")
@click.option("--placement", is_flag=True, help="Undo `pause --placement`.")
@click.option("--cluster", is_flag=True, help="Undo `pause --cluster`.")
@_why
@desk_options
def resume(name: str, placement: bool, cluster: bool, why: str, desk: Desk) -> None:
    """Let the rollout of NAME go on; failures that paused it are passed over.

    \b
    Examples:
      edgeferry rollout resume digits --why "the two sites had no power"
    """
    _order(desk, "resume", name, why, placement=placement, cluster=cluster)


@rollout.command()
@click.argument("name")
@_why
@desk_options
def abort(name: str, why: str, desk: Desk) -> None:
    """Give every cluster of the rollout of NAME back what it had, and hold the new version.

    \b
    Examples:
      edgeferry rollout abort digits --why "wrong labels in the training set"
    """
    one = find(desk.look(), name)
    if one["phase"] not in ("rolling", "paused"):
        raise NoRollout(f"the rollout of {name} is {one['phase']}", do="put another version into the placement")
    _say(desk.order("abort", f"rollout/{name}", why, str(one["number"])))


@rollout.command()
@click.argument("name", metavar="NAME|HASH")
@_why
@desk_options
def approve(name: str, why: str, desk: Desk) -> None:
    """Begin the wave of the rollout of NAME that waits for it; or let a change beyond the blast radius go.

    HASH is the one that `edgeferry plan` and `edgeferry status` show. The commit may carry it instead, as a line
    `Edgeferry-Approve: HASH` of its message.

    \b
    Examples:
      edgeferry rollout approve digits --why "canaries looked at"
      edgeferry rollout approve 3f1c09ab77d2e451 --why "plant closed for good"
    """
    if _HASH.match(name):
        _say(desk.order("approve", "fleet", why, name))
        return
    one = find(desk.look(), name)
    _say(desk.order("approve", f"rollout/{name}", why, f"{one['number']}/{one['wave']}"))


@rollout.command()
@click.argument("name")
@_why
@desk_options
def retry(name: str, why: str, desk: Desk) -> None:
    """Try again what was taken back or paused in the rollout of NAME, from the first wave; also at the edges.

    \b
    Examples:
      edgeferry rollout retry digits --why "the registry was down"
    """
    one = find(desk.look(), name)
    if one["phase"] not in ("reverted", "paused"):
        raise NoRollout(f"the rollout of {name} is {one['phase']}", do="only a reverted or paused one is tried again")
    _say(desk.order("retry", f"rollout/{name}", why, str(one["number"])))


@click.command()
@click.option("--off", is_flag=True, help="Let everything go on.")
@_why
@desk_options
def freeze(off: bool, why: str, desk: Desk) -> None:
    """Stop everything: no cluster gets anything new, but for returns from bad versions.

    \b
    Examples:
      edgeferry freeze --why "inventory week"
      edgeferry freeze --off --why "inventory done"
    """
    _say(desk.order("thaw" if off else "freeze", "fleet", why))


def _order(desk: Desk, verb: Verb, name: str, why: str, *, placement: bool, cluster: bool) -> None:
    if placement and cluster:
        raise click.UsageError("--placement and --cluster exclude each other")
    if placement or cluster:
        _say(desk.order(verb, f"{'placement' if placement else 'cluster'}/{name}", why))
        return
    _say(desk.order(verb, f"rollout/{name}", why, str(find(desk.look(), name)["number"])))


def _say(head: str) -> None:
    click.echo(f"recorded in {head[:12]}")


def _top(look: dict[str, Any]) -> list[str]:
    lines = ["everything is frozen: `edgeferry freeze --off` lets it go on"] if look["frozen"] else []
    return lines + ([look["pending"]] if look["pending"] else [])
