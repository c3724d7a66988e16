"""``edgeferry-agent plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.apply import describe
from agent.assembly import foreseen
from agent.cli_output import as_json, output_option, state_option, table
from agent.steps import Plan


@click.command(short_help="Print what the next cycle would do.")
@state_option
@click.option("--offline", is_flag=True, help="Plan for the release in force; ask nobody for a newer one.")
@output_option
def plan(state: Path, offline: bool, output: str) -> None:
    """Print what the next cycle would do; change nothing.

    While an agent runs here, the release that it has is planned for.

    \b
    Examples:
      edgeferry-agent plan
      edgeferry-agent plan --offline --output json
    """
    found, note = foreseen(state, offline=offline)
    if note:
        click.echo(f"edgeferry-agent: {note}", err=True)
    click.echo(as_json(_value(found)) if output == "json" else _text(found))


def _value(found: Plan) -> dict[str, Any]:
    actions = [dict(zip(("action", "object", "detail"), describe(one), strict=True)) for one in found.actions]
    waits = [
        {"object": "/".join(wait.key), "code": wait.fault.code, "message": wait.fault.what}
        for wait in found.waits
        if wait.fault is not None
    ]
    return {"actions": actions, "waits": waits}


def _text(found: Plan) -> str:
    rows = [describe(one) for one in found.actions]
    rows += [("wait", "/".join(one.key), str(one.fault)) for one in found.waits if one.fault is not None]
    return table(("ACTION", "OBJECT", "DETAIL"), rows) if rows else "nothing to do"
