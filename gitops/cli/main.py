"""``edgeferry``: commands are loaded when they are called, so that ``--help`` is quick."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import click

from agent.wire.errors import EdgeferryError

_COMMANDS: Final = {
    "init": "gitops.cli.init:init",
    "validate": "gitops.cli.validate:validate",
    "plan": "gitops.cli.plan:plan",
    "explain": "gitops.cli.explain:explain",
    "facts": "gitops.cli.facts:facts",
    "publish": "gitops.cli.publish:publish",
    "status": "gitops.cli.status:status",
    "rollout": "gitops.cli.rollout:rollout",
    "freeze": "gitops.cli.rollout:freeze",
    "events": "gitops.cli.events:events",
    "simulate": "gitops.cli.simulate:simulate",
    "hub": "gitops.cli.hub:hub",
    "model": "gitops.cli.model:model",
    "cluster": "gitops.cli.cluster:cluster",
    "trust": "gitops.cli.trust:trust",
    "login": "gitops.cli.login:login",
    "logout": "gitops.cli.login:logout",
    "export": "gitops.cli.carry:export",
    "import-report": "gitops.cli.carry:import_report",
    "demo": "gitops.cli.demo:demo",
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
@click.version_option(package_name="edgeferry", prog_name="edgeferry")
def edgeferry() -> None:
    """Carry machine-learning models from Git to edge clusters.

    Tab completion: eval "$(_EDGEFERRY_COMPLETE=bash_source edgeferry)"
    """


def main() -> None:
    """Run the command line; a fault prints one line (faulty documents one each) and exits 1, a usage error exits 2."""
    try:
        edgeferry(prog_name="edgeferry")
    except EdgeferryError as error:
        for fault in getattr(error, "faults", ()):
            click.echo(str(fault), err=True)
        click.echo(f"edgeferry: {error}", err=True)
        sys.exit(1)
