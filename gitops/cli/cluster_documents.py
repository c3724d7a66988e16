"""``edgeferry cluster add|label|adopt|detach``: documents in the working tree, for a person to review and push."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from gitops.cluster_documents import FOLDER, NoSuchDocument, check_label, find, new_document, with_labels

F = TypeVar("F", bound=Callable[..., Any])


def repository_option(command: F) -> F:
    """Add ``--repository`` to a command."""
    option = click.option(
        "--repository",
        "-C",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default=".",
        show_default=True,
        help="Working tree of the model repository.",
    )
    return option(command)


def label_pair(text: str, hint: str) -> tuple[str, str]:
    """Return key and value of ``KEY=VALUE``, or say what is wrong with it."""
    key, equals, value = text.partition("=")
    try:
        if not equals:
            raise ValueError(f"{text!r} is not KEY=VALUE")
        check_label(key, value)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=hint) from None
    return key, value


@click.command()
@click.argument("name")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Of the cluster; give it again for more.")
@repository_option
def add(name: str, labels: tuple[str, ...], repository: Path) -> None:
    """Write the document of a new cluster NAME into the working tree.

    \b
    Examples:
      edgeferry cluster add milan-01 --label country=it --label line=welding
    """
    click.echo(f"{write(repository, name, dict(label_pair(one, '--label') for one in labels))}: commit and push it")


@click.command()
@click.argument("name")
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
@repository_option
def label(name: str, changes: tuple[str, ...], repository: Path) -> None:
    """Set labels of cluster NAME in the working tree; KEY- takes one away.

    \b
    Examples:
      edgeferry cluster label milan-01 line=packing
      edgeferry cluster label milan-01 tier=canary line-
    """
    wanted: dict[str, str | None] = {}
    for one in changes:
        if one.endswith("-") and "=" not in one:
            wanted[one[:-1]] = None
        else:
            wanted.update([label_pair(one, "KEY=VALUE")])
    path = _document(repository, name)
    path.write_text(with_labels(path.read_text(), wanted, str(path)))
    click.echo(f"{path}: commit and push it")


@click.command()
@click.argument("name")
@repository_option
def detach(name: str, repository: Path) -> None:
    """Take cluster NAME out of the working tree.

    Once that is pushed, a last release is published for it: what runs there stays and is its own. `edgeferry cluster
    revoke` then ends its registration.

    \b
    Examples:
      edgeferry cluster detach milan-01
    """
    path = _document(repository, name)
    path.unlink()
    click.echo(f"{path} is removed: commit and push that; what runs on {name} goes on")


def write(repository: Path, name: str, labels: dict[str, str]) -> Path:
    """Write the document of a new cluster and return where.

    Raises:
        NoSuchDocument: there is one already.
    """
    known = find(repository, name)
    if known is not None:
        raise NoSuchDocument(f"{name} has its document already", where=str(known), do="change it by `cluster label`")
    path = repository / FOLDER / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(new_document(name, labels))
    return path


def _document(repository: Path, name: str) -> Path:
    path = find(repository, name)
    if path is None:
        do = "write it by `cluster add`, or by `cluster adopt` where it has joined; or give --repository"
        raise NoSuchDocument(f"no document of cluster {name!r}", where=str(repository / FOLDER), do=do)
    return path
