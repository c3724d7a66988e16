"""``edgeferry-agent hold`` and ``edgeferry-agent rollback``: what a person at the site decides, over the release."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from agent.cli_output import as_json, output_option, state_option
from agent.config import load_config
from agent.entries import read_entry, read_release
from agent.journal import EntryState, Key, read_journal
from agent.orders import Hold, NoSuchEntry, Orders, read_orders, with_rollback, write_orders
from agent.state import State

_EVERYTHING = "*"


@click.command(short_help="Keep what runs here as it is.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@state_option
@click.option("--why", default="", help="For who looks at the status, here and at the hub.")
@click.option("--off", is_flag=True, help="Let it go on.")
@output_option
def hold(names: tuple[str, ...], state: Path, why: str, off: bool, output: str) -> None:
    """Keep the named models and workloads, or all without a name, at what runs now.

    New versions are still fetched, and wait; what runs is kept up and repaired. A name that stands for a model and a
    workload is written model/NAME or workload/NAME. The agent takes it up at its next look.

    \b
    Examples:
      edgeferry-agent hold
      edgeferry-agent hold defect-detector --why "line 3 is being calibrated"
      edgeferry-agent hold --off
    """
    load_config(state)
    orders, now = read_orders(state), datetime.now(UTC)
    states, wanted = _known(state)
    keys = ["/".join(_key(name, {*states, *wanted})) for name in names] or [_EVERYTHING]
    held = dict(orders.held)
    for key in keys:
        if off:
            held.pop(key, None)
        else:
            held[key] = Hold(why, now)
    after = replace(orders, held={} if off and not names else held)
    write_orders(state, after)
    _show(after, output)


@click.command(short_help="Go back to the version that ran before.")
@click.argument("name")
@state_option
@click.option("--why", default="", help="For who looks at the status, here and at the hub.")
@click.option("--undo", is_flag=True, help="Go to what the release asks for again.")
@output_option
def rollback(name: str, state: Path, why: str, undo: bool, output: str) -> None:
    """Go back to the version of NAME that ran here before, from the disk: it needs no hub.

    It holds until the release asks for another version, or until --undo. The bytes of the version before are always
    kept. The switch is made as every other: tested first, without losing a request.

    \b
    Examples:
      edgeferry-agent rollback defect-detector --why "misses scratches on the left"
      edgeferry-agent rollback defect-detector --undo
    """
    load_config(state)
    orders = read_orders(state)
    states, wanted = _known(state)
    key = _key(name, {*states, *wanted})
    if undo:
        kept = {one: order for one, order in orders.rollbacks.items() if one != "/".join(key)}
        after = replace(orders, rollbacks=kept)
    else:
        journal = states.get(key) or EntryState(*key)
        after = with_rollback(orders, journal, wanted.get(key, journal.running), why, datetime.now(UTC))
    write_orders(state, after)
    _show(after, output, state)


def _known(root: Path) -> tuple[dict[Key, EntryState], dict[Key, str]]:
    """Return the journal, and the entry digests that the release in force asks for."""
    with closing(State.read(root)) as state:
        name = state.setting("release")
        release = read_release(root, name) if name else None
        entries = release.entries if release is not None else ()
        return read_journal(state), {(one.kind, one.name): one.digest for one in entries}


def _key(name: str, known: set[Key]) -> Key:
    found = [key for key in sorted(known) if name in (key[1], "/".join(key))]
    if len(found) != 1:
        text = ", ".join("/".join(key) for key in (found or sorted(known))) or "nothing"
        do = f"write one of {text}" if found else f"there is {text}"
        raise NoSuchEntry(f"{name[:80]!r} is {'more than one' if found else 'not here'}", do=do)
    return found[0]


def _show(orders: Orders, output: str, root: Path | None = None) -> None:
    if output == "json":
        shown = {
            "held": {name: one.why for name, one in orders.held.items()},
            "rollbacks": {name: {"from": one.away, "to": one.to} for name, one in orders.rollbacks.items()},
        }
        click.echo(as_json(shown))
        return
    for name, one in sorted(orders.held.items()):
        click.echo(f"held: {'everything' if name == _EVERYTHING else name}{f', {one.why}' if one.why else ''}")
    for name, order in sorted(orders.rollbacks.items()):
        entry = read_entry(root, order.to) if root is not None else None
        click.echo(f"goes back: {name} to {entry[0].version if entry else order.to}")
    if not orders.held and not orders.rollbacks:
        click.echo("nothing is held or rolled back here")
