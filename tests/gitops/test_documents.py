"""Documents as people write them: every fault, at its place, and nothing else."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gitops.documents import parse, position
from gitops.review import review
from gitops.tree import File
from gitops.yaml_scalars import core, kubernetes
from gitops.yaml_text import MAX_BYTES, read

CASES = Path(__file__).parents[1] / "cases" / "documents"
NOW = datetime(2026, 11, 24, tzinfo=UTC)
HEAD = "apiVersion: edgeferry.dev/v1alpha1\nkind: "


@pytest.mark.parametrize("law", sorted(path.name for path in CASES.iterdir()))
def test_documents(law: str, tmp_path: Path) -> None:
    """Every folder of tests/cases/documents: `given` has exactly the faults of expected.txt."""
    shutil.copytree(CASES / law / "given", tmp_path / "given")
    found = review(tmp_path / "given", None, False, NOW)
    assert "".join(f"{fault}\n" for fault in found.faults) == (CASES / law / "expected.txt").read_text()


def faults_of(data: bytes, path: str = "clusters/c.yaml") -> list[str]:
    return [str(fault) for fault in parse(File(path, "0" * 40, len(data)), data, "main").faults]


def test_a_document_of_100_mb_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "clusters").mkdir()
    with (tmp_path / "clusters" / "huge.yaml").open("wb") as file:
        file.write(b"apiVersion: edgeferry.dev/v1alpha1\n")
        file.truncate(100 << 20)
    found = review(tmp_path, None, False, NOW)
    assert [fault.code for fault in found.faults] == ["EF1006"]


def test_too_many_documents_in_one_file_are_refused() -> None:
    documents = "".join(f"---\n{HEAD}Cluster\nmetadata: {{name: c-{n}}}\n" for n in range(1001))
    (fault,) = faults_of(documents.encode())
    assert "EF1006 TooLarge: more than 1000 documents" in fault


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "? [", "{? "], ids=repr)
def test_deep_nesting_neither_ends_the_process_nor_passes(opening: str) -> None:
    (fault,) = faults_of((opening * 100_000).encode())
    assert "EF1006 TooLarge: nested deeper" in fault


def test_every_fault_has_a_line_and_column_that_exist() -> None:
    for case in CASES.iterdir():
        for path in (case / "given").rglob("*.yaml"):
            data = path.read_bytes()
            name = path.relative_to(case / "given").as_posix()
            for fault in parse(File(name, "0" * 40, len(data)), data, "main").faults:
                lines = data.decode(errors="replace").split("\n")
                assert 1 <= fault.line <= len(lines)
                assert 1 <= fault.column <= len(lines[fault.line - 1]) + 1


def test_the_position_of_a_field_is_that_of_its_value() -> None:
    data = b"a: 1\n---\nspec:\n  clusters:\n    - {names: [x, y]}\n"
    assert position(data, 1, ("spec", "clusters", 0, "names", 1)) == (5, 19)
    assert position(data, 1, ("spec", "clusters"), key=True) == (4, 3)
    assert position(data, 1, ("spec", "model")) == (3, 1), "what is not there: the mapping that it is not in"
    assert position(data, 7, ()) == (0, 0)


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=300)
def test_random_bytes_never_raise(data: bytes) -> None:
    faults_of(data)
    faults_of(HEAD.encode() + data)


PIECES = """apiVersion kind metadata spec name labels clusters names model version - : { } [ ] , & * ! !!str | > ' " # ?
--- ... edgeferry.dev/v1alpha1 Cluster Placement Model null ~ 1.0 2024-01-01 << a b \\0 é"""
WORDS = st.sampled_from([*PIECES.split(), "\t", "\n", "\n  ", "\n    ", "&a ", "*a ", ": ", "- ", " "])


@given(st.lists(WORDS, max_size=60), st.sampled_from(["Cluster", "Placement", "Model", "ModelVersion", "Source"]))
@settings(deadline=None, max_examples=400)
def test_random_yaml_never_raises(words: list[str], kind: str) -> None:
    for text in ("".join(words), f"{HEAD}{kind}\n" + "".join(words)):
        faults_of(text.encode())
        read(text.encode(), "m.yaml", "main", kubernetes, merge_keys=True, marks=True)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(
    st.dictionaries(st.sampled_from(["metadata", "spec", "kind", "name"]), VALUES),
    st.sampled_from(["Cluster", "Model"]),
)
@settings(deadline=None, max_examples=200)
def test_any_value_in_any_field_is_a_fault_and_no_crash(value: dict[str, object], kind: str) -> None:
    text = json.dumps({"apiVersion": "edgeferry.dev/v1alpha1", **value, "kind": kind})
    parsed = parse(File("clusters/c.yaml", "0" * 40, len(text)), text.encode(), "main")
    assert parsed.documents or parsed.faults


def plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return tuple(plain(one) for one in value) if isinstance(value, list) else value


@given(st.dictionaries(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1), VALUES))
@settings(deadline=None, max_examples=200)
def test_json_reads_as_itself(value: dict[str, object]) -> None:
    text = json.dumps(value, ensure_ascii=True)
    if "\\u0000" in text or "\\ud" in text:
        return
    documents, faults = read(text.encode(), "x", "main")
    assert (documents[0].value if documents else {}) == plain(value)
    assert not faults


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("2024-01-01", "2024-01-01"),
        ("12:30:45", "12:30:45"),
        ("1e-4", 0.0001),
        ("0o17", 15),
        ("017", 17),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("2.1.0", "2.1.0"),
        ("True", True),
        ("tRUE", "tRUE"),
        ("~", None),
        ("", None),
        (".inf", float("inf")),
        ("+.5", 0.5),
        ("-", "-"),
        ("1.", 1.0),
        (".", "."),
        ("9" * 5000, "9" * 5000),
    ],
    ids=lambda one: repr(one)[:20],
)
def test_plain_scalars_follow_the_core_rules(text: str, value: object) -> None:
    assert core(text) == value and type(core(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("no", False), ("0644", 420), ("22:30", "22:30"), ("2024-01-01", "2024-01-01"), ("1_000", 1000), ("0x1F", 31)],
)
def test_plain_scalars_of_manifests_follow_kubernetes(text: str, value: object) -> None:
    assert kubernetes(text) == value and type(kubernetes(text)) is type(value)


def test_what_pyyaml_reads_as_the_same_plain_values_we_do_too() -> None:
    for path in CASES.glob("documents-may-stand-anywhere/given/**/*.y*ml"):
        ours = [one.value for one in read(path.read_bytes(), path.name, "main")[0]]
        theirs = [plain(one) for one in yaml.safe_load_all(path.read_bytes()) if one is not None]
        assert ours == theirs


def test_a_file_at_the_limit_is_read() -> None:
    start = f"{HEAD}Cluster\nmetadata: {{name: c}}\n#"
    data = (start + "x" * (MAX_BYTES - len(start))).encode()
    assert not faults_of(data)
    assert [fault for fault in faults_of(data + b"x") if "EF1006" in fault]


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "Cluster\nmetadata: {name: c, " + ", ".join(f"a{n}: b" for n in range(40_000)) + "}\n",
        HEAD + "Cluster\nmetadata: {name: c, labels: {" + ", ".join(f"-a{n}: -b" for n in range(40_000)) + "}}\n",
        HEAD + "Cluster\nmetadata: {" + "name: c, " * 40_000 + "}\n",
        f"---\n{HEAD}Placement\nmetadata: {{name: 5}}\nspec: {{modle: x}}\n" * 999,
    ],
    ids=["unknown-fields", "bad-labels", "duplicate-keys", "documents"],
)
def test_of_very_many_faults_the_first_are_told(text: str) -> None:
    found = faults_of(text.encode(), "placements/p.yaml")
    assert len(found) == 100
    assert "(and more faults below)" in found[-1]
