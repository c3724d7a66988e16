"""``--output table|json`` for every command that prints results."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def output_option(command: F) -> F:
    """Add ``--output`` to a command; it arrives as ``output``."""
    option = click.option(
        "--output",
        "-o",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="Format of the result.",
    )
    return option(command)


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows under heads, in columns as wide as their widest cell."""
    cells = [[str(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def as_json(value: Any) -> str:
    """Return indented JSON for people's tools."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
