"""``edgeferry validate``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from agent.wire.fields import write_time
from gitops.cli.facts_option import facts_option, snapshot_of
from gitops.cli.output import as_json, output_option
from gitops.review import Review, review


@click.command()
@click.argument("path", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--base", metavar="REF", help="Commit, branch or tag whose versions count as published: they may not change."
)
@click.option("--partial", is_flag=True, help="PATH is a further source: what it refers to may stand in the main one.")
@facts_option
@output_option
def validate(path: Path, base: str | None, partial: bool, facts: str | None, output: str) -> None:
    """Find every fault in a model repository, as the hub would, and change nothing.

    PATH is a folder as it stands now, committed or not. Exits with 1 when there are faults. Notes are what is most
    likely not meant: placements that select nothing, contradict themselves, can never be met, or shadow each other.

    \b
    Examples:
      edgeferry validate
      edgeferry validate --base origin/main
      edgeferry validate --facts facts.json
      edgeferry validate robotics --partial --output json
    """
    snapshot = snapshot_of(facts)
    found = review(path, base, partial, datetime.now(UTC), snapshot)
    at = "" if snapshot.at is None else write_time(snapshot.at)
    if output == "json":
        click.echo(as_json({**asdict(found), "factsAt": at, "factsRefused": list(snapshot.faults)}))
    else:
        heads = [f"facts of {at}"] if at else []
        heads += [f"not counted: {fault}" for fault in snapshot.faults]
        click.echo("\n".join([*heads, _text(found)]))
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
