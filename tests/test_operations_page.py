"""What docs/operations.md tells people to type and to look up is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from agent.cli import agent
from agent.unit import unit
from gitops.cli.main import edgeferry

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "operations.md").read_text()


def commands() -> list[str]:
    """Return every command line of ours in the page, continued lines joined, comments left out."""
    joined = TEXT.replace("\\\n", " ")
    blocks = re.findall(r"```\w*\n(.*?)```", joined, re.S)
    found = [
        re.sub(r"^\s*(?:- |ExecStart=)?(?:\S*/)?(?=edgeferry)", "", line)
        for block in blocks
        for line in block.splitlines()
    ]
    inline = re.findall(r"`(edgeferry[^`]*)`", joined)
    lines = [line.partition(" #")[0] for line in (*found, *inline)]
    return sorted({line for line in lines if re.match(r"edgeferry(-agent)? [a-z]", line)})


@pytest.mark.parametrize("line", commands())
def test_a_command_and_its_options_are_there(line: str) -> None:
    program, *words = shlex.split(line)
    command: click.Command = edgeferry if program == "edgeferry" else agent
    while isinstance(command, click.Group) and words:
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"no command {name}"
        command = found
    known = {one for parameter in command.params for one in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


def test_codes_and_pages_that_it_names_are_there() -> None:
    sections = dict(re.findall(r"^## (EF\d{4}) (\w+)$", (DOCS / "errors.md").read_text(), re.M))
    assert set(re.findall(r"EF\d{4}", TEXT)) <= set(sections)
    assert all(sections[code] == name for code, name in re.findall(r"(EF\d{4}) ([A-Z]\w+)", TEXT))
    assert all((DOCS / page).exists() for page in re.findall(r"\]\(([\w./-]+)\)", TEXT))


def test_what_it_says_of_the_agents_unit_holds() -> None:
    made = unit(Path("/usr/bin/edgeferry-agent"), Path("/var/lib/edgeferry"))
    assert "KillMode=process" in made and "network-online" not in made
