"""The JSON Schemas and reference pages: current, and of one mind with the parser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gitops.documents import parse
from gitops.kinds import KINDS
from gitops.schema import PAGES, SCHEMAS, files
from gitops.tree import File
from gitops.yaml_text import read

ROOT = Path(__file__).parents[2]


def schema(kind: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((SCHEMAS / f"{kind.lower()}.json").read_text()))


def as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_json(one) for key, one in value.items()}
    return [as_json(one) for one in value] if isinstance(value, tuple) else value


def test_what_is_committed_is_current() -> None:
    stale = [path.name for path, text in files().items() if not path.exists() or path.read_text() != text]
    assert not stale, "run `python -m gitops.schema` and commit what it writes"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_schema_is_a_schema(kind: str) -> None:
    Draft202012Validator.check_schema(schema(kind).schema)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_example_of_a_page_is_faultless_and_fits_the_schema(kind: str) -> None:
    data = (PAGES / f"{kind.lower()}.example.yaml").read_bytes()
    parsed = parse(File("clusters/example.yaml", "0" * 40, len(data)), data, "main")
    assert not parsed.faults and [one.document.kind for one in parsed.documents] == [kind]
    schema(kind).validate(as_json(read(data, "x", "main")[0][0].value))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_field_says_what_it_means(kind: str) -> None:
    rows = [line for line in (PAGES / f"{kind.lower()}.md").read_text().splitlines() if line.startswith("| `")]
    assert rows and not [row for row in rows if row.endswith("|  |")]


@pytest.mark.parametrize("path", sorted((ROOT / "repo-template").rglob("*.yaml")), ids=lambda path: path.name)
def test_the_templates_documents_fit_the_schemas(path: Path) -> None:
    for one in read(path.read_bytes(), path.name, "main")[0]:
        if str(one.value.get("apiVersion", "")).startswith("edgeferry.dev/"):
            schema(one.value["kind"]).validate(as_json(one.value))


def test_what_the_parser_refuses_by_type_the_schema_refuses_too() -> None:
    given = ROOT / "tests" / "cases" / "documents" / "wrong-types" / "given"
    for path in (given / "clusters" / "c.yaml", given / "placements" / "p.yaml"):
        (one,) = read(path.read_bytes(), path.name, "main")[0]
        assert list(schema(one.value["kind"]).iter_errors(as_json(one.value)))
