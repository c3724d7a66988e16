"""``edgeferry-agent doctor``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from agent.cli_output import as_json, output_option, state_option
from agent.doctor import examine
from agent.wire.errors import Stop

_MARKS = {"ok": "ok", "warning": "!!", "wrong": "NO"}


class Unwell(Stop):
    """Something that this site needs is missing or broken."""

    code = "EF4426"


@click.command(short_help="Find what keeps this site from its work.")
@state_option
@output_option
def doctor(state: Path, output: str) -> None:
    """Check settings, disk, state, keys, certificate, clock, hub and platform, and say what to do.

    It changes nothing, works while the agent runs and while it does not, and ends with 1 where something is wrong.

    \b
    Examples:
      edgeferry-agent doctor
      edgeferry-agent doctor --output json
    """
    checks = []
    for one in examine(state):
        checks.append(one)
        if output != "json":
            click.echo(f"{_MARKS[one.verdict]}  {one.name}: {one.said}")
            if one.do and one.verdict != "ok":
                click.echo(f"    → {one.do}")
    if output == "json":
        click.echo(as_json([asdict(one) for one in checks]))
    wrong = [one.name for one in checks if one.verdict == "wrong"]
    if wrong:
        raise Unwell(", ".join(wrong), where=str(state), do="see above, from the top")
