"""What `edgeferry validate` notes of placements, and how `explain` reads facts: by command, on a folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.wire.facts import Fact
from gitops.cli.main import edgeferry
from gitops.snapshot import encode_snapshot
from tests.gitops.trees import document, model

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GIB = 1 << 30
CLUSTERS = {
    f"clusters/{name}.yaml": document("Cluster", name, labels=f"country: {country}")
    for name, country in (("milan-01", "it"), ("turin-01", "it"), ("lyon-01", "fr"))
}


def repository(root: Path, spec: str, model_spec: str = "delivery: file", more: dict[str, str] | None = None) -> Path:
    files = model("digits", "1.0.0", spec=model_spec) | CLUSTERS
    files |= {"placements/p.yaml": document("Placement", "p", f"{{model: digits, {spec}}}"), **(more or {})}
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    facts = {name.split("/")[1].removesuffix(".yaml"): (Fact("memory.capacity", str(GIB), NOW),) for name in CLUSTERS}
    (root / "facts.json").write_text(json.dumps(encode_snapshot("f", NOW, facts)))
    return root


def run(*arguments: str) -> str:
    return CliRunner().invoke(edgeferry, list(arguments), catch_exceptions=False).output


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ("clusters: [{matchLabels: {country: de}}]", "EF1120", "selects none of the 3 clusters"),
        ("clusters: [{matchLabels: {country: it}, matchExpressions: [{key: country, operator: NotIn, values: [it]}]}]",
         "EF1123", "label country must be it and must not be it"),
        ("clusters: [{names: [milan-01], facts: [{name: cpu.capacity, operator: '>', value: 4},"
         " {name: cpu.capacity, operator: '<', value: 2}]}]", "EF1123", "cpu.capacity > 4 and cpu.capacity < 2"),
        ("clusters: [{matchLabels: {country: it}}, {names: [turin-01]}]", "EF1122", "the terms before it do not"),
        ("spread: [{key: region}]", "EF1124", "has the label region"),
        ("clusters: [{matchLabels: {country: it}, facts: [{name: memory.capacity, operator: '>=', value: 2Gi}]}]",
         "EF1121", "no cluster that it selects has memory.capacity >= 2Gi"),
    ],
    ids=["selects nothing", "labels", "facts", "shadowed term", "spread", "never met"],
)  # fmt: skip
def test_what_is_most_likely_not_meant_is_noted(spec: str, code: str, words: str, tmp_path: Path) -> None:
    shown = run("validate", str(repository(tmp_path, spec)), "--facts", str(tmp_path / "facts.json"))
    notes = [line for line in shown.splitlines() if line.startswith("note: placements/p.yaml:")]
    assert len(notes) == 1 and code in notes[0] and words in notes[0], shown
    assert "facts of 2026-03-01T12:00:00Z" in shown and "no faults" in shown


def test_needs_that_no_cluster_meets_are_noted_only_where_facts_are_known(tmp_path: Path) -> None:
    root = repository(tmp_path, "version: '*'", "delivery: file, needs: {memory: 4Gi}")
    assert "EF1121" not in run("validate", str(root))
    shown = run("validate", str(root), "--facts", str(root / "facts.json"))
    assert "EF1121 NeverMet: no cluster that it selects can have digits 1.0.0: memory.capacity < 4Gi" in shown


def test_a_placement_whose_clusters_others_hold_is_noted(tmp_path: Path) -> None:
    more = {"placements/q.yaml": document("Placement", "q", "{model: digits, priority: 5}")}
    shown = run("validate", str(repository(tmp_path, "clusters: [{names: [lyon-01]}]", more=more)))
    assert "EF1122 Shadowed: everything that it would choose is held by others: placement q has it" in shown


def test_explain_decides_with_the_facts_of_a_file_and_prints_their_time(tmp_path: Path) -> None:
    root = repository(tmp_path, "clusters: [{facts: [{name: memory.capacity, operator: '>=', value: 2Gi}]}]")
    shown = run("explain", "digits", "milan-01", "--source", str(root), "--facts", str(root / "facts.json"))
    assert shown == (
        "facts of 2026-03-01T12:00:00Z\n"
        "milan-01: not chosen by p: fact memory.capacity is 1Gi, wanted >= 2Gi\n"
    )  # fmt: skip
    facts = str(root / "facts.json")
    told = json.loads(run("explain", "digits", "milan-01", "--source", str(root), "--facts", facts, "-o", "json"))
    assert told["factsAt"] == "2026-03-01T12:00:00Z"
    (change,) = told["parts"][0]["changes"]
    assert (change["what"], change["key"], change["value"]) == ("fact", "memory.capacity", str(2 * GIB))


def test_a_label_outranks_the_fact_of_its_name(tmp_path: Path) -> None:
    more = {"clusters/milan-01.yaml": document("Cluster", "milan-01", labels="memory.capacity: 16Gi")}
    spec = "clusters: [{facts: [{name: memory.capacity, operator: '>=', value: 2Gi}]}]"
    root = repository(tmp_path, spec, more=more)
    shown = run("explain", "digits", "--source", str(root), "--facts", str(root / "facts.json"))
    assert "1 chosen; 2 refused: 2 facts (memory.capacity 1Gi < 2Gi)" in shown


def test_one_placement_for_many_models_by_their_labels(tmp_path: Path) -> None:
    both = model("arms", "1.0.0", spec="delivery: file") | model("legs", "1.0.0", spec="delivery: file")
    for name in ("arms", "legs"):
        both[f"models/{name}/model.yaml"] = document("Model", name, "{delivery: file}", labels="task: parts")
    both["placements/q.yaml"] = document("Placement", "q", "{models: {matchLabels: {task: parts}}, count: 1}")
    root = repository(tmp_path, "count: 1", more=both)
    assert run("explain", "legs", "--source", str(root)).startswith("q.models.legs: legs 1.0.0: 1 chosen")
