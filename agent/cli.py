"""``edgeferry-agent``: commands are loaded when they are called, so that ``--help`` is quick."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import click

from agent.wire.errors import EdgeferryError

_COMMANDS: Final = {
    "join": "agent.cli_join:join",
    "run": "agent.cli_run:run",
    "once": "agent.cli_run:once",
    "plan": "agent.cli_plan:plan",
    "status": "agent.cli_status:status",
    "import": "agent.cli_carried:import_",
    "export-report": "agent.cli_carried:export_report",
    "hold": "agent.cli_orders:hold",
    "rollback": "agent.cli_orders:rollback",
    "doctor": "agent.cli_doctor:doctor",
    "install": "agent.cli_install:install",
    "leave": "agent.cli_install:leave",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: Any = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgeferry", prog_name="edgeferry-agent")
def agent() -> None:
    """Run what one edge cluster is to run, and report back.

    Tab completion: eval "$(_EDGEFERRY_AGENT_COMPLETE=bash_source edgeferry-agent)"
    """


def main() -> None:
    """Run the command line; a fault prints one line and exits 1, a usage error exits 2."""
    try:
        agent(prog_name="edgeferry-agent")
    except EdgeferryError as error:
        click.echo(f"edgeferry-agent: {error}", err=True)
        sys.exit(1)
