"""docs/placement.md: every example is faultless, and every command answers what stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from gitops.cli.main import edgeferry
from placement.fact_names import DEFINITIONS

PAGE = (Path(__file__).parents[2] / "docs" / "placement.md").read_text()
INTRODUCTION, *SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)
EXAMPLES = [section for section in SECTIONS if "```yaml" in section]


def blocks(section: str, form: str) -> list[str]:
    return re.findall(rf"^```{form}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "facts.json").write_text(blocks(INTRODUCTION, "json")[0])
    return tmp_path


def put(repository: Path, section: str) -> None:
    """Write an example beside the clusters of the introduction; a model without a ModelVersion gets a version."""
    documents = "---\n".join([*blocks(INTRODUCTION, "yaml"), *blocks(section, "yaml")]).split("---\n")
    registered = {_name(one) for one in documents if "kind: ModelVersion" in one}
    others = []
    for one in documents:
        kind = re.search(r"^kind: (Model|Workload)$", one, re.MULTILINE)
        if kind is None:
            others.append(one)
            continue
        folder = repository / f"{kind[1].lower()}s" / _name(one)
        folder.mkdir(parents=True)
        (folder / f"{kind[1].lower()}.yaml").write_text(one)
        if _name(one) not in registered:
            (folder / "versions" / "1.0.0").mkdir(parents=True)
            (folder / "versions" / "1.0.0" / "file").write_text("x")
    (repository / "example.yaml").write_text("---\n".join(others))


def _name(document: str) -> str:
    return re.findall(r"^metadata: \{name: ([^,}]+)", document, re.MULTILINE)[0]


def answers(section: str) -> list[tuple[str, str]]:
    found = []
    for block in blocks(section, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, answer = part.partition("\n")
            found.append((command, answer))
    return found


def run(command: str) -> str:
    return CliRunner().invoke(edgeferry, command.split()[1:], catch_exceptions=False).output


@pytest.mark.parametrize("section", EXAMPLES, ids=lambda section: section.split("\n")[0])
def test_an_example_is_faultless_and_its_commands_answer_what_stands_there(section: str, repository: Path) -> None:
    put(repository, section)
    assert "no faults" in run("edgeferry validate"), run("edgeferry validate")
    assert answers(section)
    for command, answer in answers(section):
        assert run(command) == answer, command


def test_every_fact_that_agents_measure_is_listed() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \| (\w*) ?\| (\w+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [(one.name, one.kind, one.unit, one.fold, one.meaning) for one in DEFINITIONS]
