"""``edgeferry validate``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from gitops.cli.output import as_json, output_option
from gitops.review import Review, review


@click.command()
@click.argument("path", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--base", metavar="REF", help="Commit, branch or tag whose versions count as published: they may not change."
)
@click.option("--partial", is_flag=True, help="PATH is a further source: what it refers to may stand in the main one.")
@output_option
def validate(path: Path, base: str | None, partial: bool, output: str) -> None:
    """Find every fault in a model repository, as the hub would, and change nothing.

    PATH is a folder as it stands now, committed or not. Exits with 1 when there are faults.

    \b
    Examples:
      edgeferry validate
      edgeferry validate --base origin/main
      edgeferry validate robotics --partial --output json
    """
    found = review(path, base, partial, datetime.now(UTC))
    click.echo(as_json(asdict(found)) if output == "json" else _text(found))
    if found.faults:
        sys.exit(1)


def _text(found: Review) -> str:
    lines = [*map(str, found.faults), *(f"note: {one}" for one in found.notes)]
    if found.elsewhere:
        count = len(found.elsewhere)
        lines.append(
            f"not checked, as other sources may hold them: {', '.join(found.elsewhere[:5])}{', …' if count > 5 else ''}"
        )
    counts = ", ".join(f"{n} {what[:-1] if n == 1 else what}" for what, n in found.counts.items() if n) or "nothing"
    wrong = len(found.faults)
    lines.append(f"{counts}: {'no faults' if not wrong else '1 fault' if wrong == 1 else f'{wrong} faults'}")
    return "\n".join(lines)
