"""``--output table|json`` of the agent's commands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_STATE: Final = "/var/lib/edgeferry"


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


def state_option(command: F) -> F:
    """Add ``--state`` to a command; it arrives as ``state``, a path."""
    option = click.option(
        "--state",
        type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
        default=lambda: os.environ.get("EDGEFERRY_STATE", DEFAULT_STATE),
        show_default=f"$EDGEFERRY_STATE or {DEFAULT_STATE}",
        help="Directory of this agent's state.",
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
