"""``edgeferry trust``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import click

from agent.wire.signature import fingerprint
from agent.wire.trust import Trust, decode_trust, paths
from gitops.cli.output import as_json, output_option, table
from gitops.state_dir import StateDir

F = TypeVar("F", bound=Callable[..., Any])


def fleet_options(command: F) -> F:
    """Add ``--state``, ``--keys`` and ``--fleet`` to a command."""
    for option in (
        click.option(
            "--state",
            type=click.Path(file_okay=False, path_type=Path),
            default="hub-state",
            show_default=True,
            envvar="EDGEFERRY_HUB_STATE",
            help="State directory of the hub, with its keys and its fleet repository.",
        ),
        click.option(
            "--keys",
            type=click.Path(file_okay=False, path_type=Path),
            help="Directory of the publisher's keys.  [default: keys in --state]",
        ),
        click.option(
            "--fleet", metavar="URL", help="Fleet repository: a path or a Git URL.  [default: fleet.git in --state]"
        ),
    ):
        command = option(command)
    return command


@click.group()
def trust() -> None:
    """Show and exchange the keys that sites trust."""


@trust.command()
@fleet_options
@output_option
def show(state: Path, keys: Path | None, fleet: str | None, output: str) -> None:
    """Show the trust in force: fleet id, root keys, release keys and model keys, and how the fleet came to it.

    \b
    Examples:
      edgeferry trust show --state hub-state
      edgeferry trust show --fleet https://git.example/fleet.git -o json
    """
    from gitops.keys import Keyring
    from gitops.provenance import current_trust

    directory = keys or StateDir(state).keys
    here: set[str] = set()
    if (directory / "fleet-id").exists():
        keyring = Keyring.open(directory)
        here = {key.public for key in (keyring.release, keyring.root) if key is not None}
    with _repository(fleet or str(StateDir(state).fleet)) as repository:
        found, files = current_trust(repository, None)
    past = [decode_trust(files[paths(n)[0]], paths(n)[0]) for n in range(1, found.number + 1)]
    rows = [(kind, fingerprint(key), "yes" if key in here else "", _since(past, key)) for kind, key in _keys(found)]
    if output == "json":
        shown = [
            {"kind": kind, "fingerprint": mark, "publicKey": key, "here": bool(yes), "since": since}
            for (kind, mark, yes, since), (_, key) in zip(rows, _keys(found), strict=True)
        ]
        click.echo(as_json({"fleet": found.fleet, "number": found.number, "keys": shown}))
        return
    click.echo(f"fleet {found.fleet}, trust {found.number}")
    click.echo(table(("KEY", "FINGERPRINT", "HERE", "SINCE TRUST"), rows))


@trust.command()
@fleet_options
@click.option("--release", is_flag=True, help="Make a new release key; the old one signs nothing any more.")
@click.option("--root", is_flag=True, help="Make a new root key, in place of the root key file.")
@click.option(
    "--root-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the root key.  [default: root.key among the keys]",
)
@click.option(
    "--model-key",
    "model_keys",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Public key file (.pub) of somebody who may sign models from now on.",
)
@click.option("--drop-model-key", "dropped", multiple=True, metavar="SHA256:…", help="Fingerprint of one who may not.")
@output_option
def rotate(
    state: Path,
    keys: Path | None,
    fleet: str | None,
    release: bool,
    root: bool,
    root_key: Path | None,
    model_keys: tuple[Path, ...],
    dropped: tuple[str, ...],
    output: str,
) -> None:
    """Publish the next trust document, signed by the root key; sites follow by themselves, also those asleep now.

    A hub that runs takes up a new release key by itself, and signs every release anew under it. See docs/security.md
    for what to do when a key was stolen.

    \b
    Examples:
      edgeferry trust rotate --release --root-key /media/usb/root.key
      edgeferry trust rotate --root --root-key /media/usb/root.key
      edgeferry trust rotate --model-key ada.pub
    """
    from gitops.keys import ROOT, Keyring
    from gitops.rotation import Wish, rotate

    directory = keys or StateDir(state).keys
    keyring = Keyring.open(directory)
    wish = Wish(release, root, [path.read_text() for path in model_keys], dropped)
    now = datetime.now(UTC).replace(microsecond=0)
    with _repository(fleet or str(StateDir(state).fleet)) as repository:
        following = rotate(repository, keyring, root_key or directory / ROOT, wish, now)
    if output == "json":
        click.echo(as_json({"fleet": following.fleet, "number": following.number}))
    else:
        click.echo(f"trust {following.number} is published; the hub signs every release anew under it")


@contextmanager
def _repository(url: str) -> Iterator[Any]:
    from gitops.opening import FleetHome, open_repository

    with TemporaryDirectory(prefix="edgeferry-trust-") as work:
        yield open_repository(FleetHome(url), Path(work, "fleet.git"), create=False)


def _keys(found: Trust) -> list[tuple[str, str]]:
    kinds = (("root", found.root_keys), ("release", found.release_keys), ("model", found.model_keys))
    return [(kind, key) for kind, keys in kinds for key in keys]


def _since(past: list[Trust], key: str) -> int:
    """Return the number of the trust since which a key counts without a break."""
    since = past[-1].number
    for one in reversed(past):
        if key not in (*one.root_keys, *one.release_keys, *one.model_keys):
            break
        since = one.number
    return since
