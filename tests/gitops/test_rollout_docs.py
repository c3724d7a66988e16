"""The operator's guide is true: its documents parse, its commands exist, its table is what a run gives."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from bench.bad_versions import PAGE, with_table
from gitops.cli.main import edgeferry
from gitops.documents import parse
from gitops.tree import File

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "rollouts.md").read_text()
DOCUMENTS = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
COMMANDS = re.findall(r"^ *(edgeferry .*)$", TEXT, re.M)


@pytest.mark.parametrize("text", DOCUMENTS, ids=lambda text: re.findall(r"kind: (\w+)", text)[0])
def test_a_document_of_the_guide_is_faultless(text: str) -> None:
    found = parse(File("clusters/x.yaml", "0" * 40, len(text)), text.encode(), "main")
    assert not found.faults and len(found.documents) == 1


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_guide_is_one(line: str) -> None:
    command: click.Command = edgeferry
    words = shlex.split(line)[1:]
    context = click.Context(edgeferry)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
    options = {name for one in command.params for name in one.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_the_table_of_bad_versions_is_what_a_run_gives() -> None:
    assert PAGE.read_text() == with_table(PAGE.read_text()), "run `python -m bench.bad_versions --write`"
