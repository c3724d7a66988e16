"""Cluster documents: what is written reads back, and what a person wrote around it stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gitops.cli.cluster import cluster
from gitops.cluster_documents import DocumentUnclear, new_document, with_labels

AWKWARD = ["", "1", "1.0", "true", "no", "null", "0x1", "1e3", "x_y", "a.b", "12:30:45"]
VALUES = st.sampled_from(AWKWARD) | st.text("aZ1-_.", min_size=1, max_size=20).map(lambda text: f"x{text}x")
KEYS = st.sampled_from(["country", "line", "edgeferry.dev/site", "on", "y", "1"])


@given(labels=st.dictionaries(KEYS, VALUES), changes=st.dictionaries(KEYS, st.none() | VALUES))
def test_labels_read_back_as_text(labels: dict[str, str], changes: dict[str, str | None]) -> None:
    text = new_document("milan-01", labels)
    wanted = {key: value for key, value in {**labels, **changes}.items() if value is not None}
    found = yaml.safe_load(with_labels(text, changes, "x"))
    assert found["metadata"]["name"] == "milan-01"
    assert (found["metadata"].get("labels") or {}) == wanted


BLOCK = """\
# welding hall
kind: Cluster
metadata:
  name: milan-01   # the first
  labels:
    country: it
    line: welding

spec:
  paused: false    # for now
"""


@pytest.mark.parametrize(
    "text",
    [
        BLOCK,
        BLOCK.replace("  labels:\n    country: it\n    line: welding\n", ""),
        "kind: Cluster\nmetadata: {name: milan-01}\n",
    ],
    ids=["block", "none", "flow"],
)
def test_everything_but_the_labels_stays(text: str) -> None:
    changed = with_labels(text, {"line": "packing", "country": None}, "x")
    assert yaml.safe_load(changed)["metadata"]["labels"] == {"line": "packing"}
    for line in text.splitlines():
        if "#" in line or "spec" in line:
            assert line in changed.splitlines()


def test_labels_that_are_no_mapping_are_left_alone() -> None:
    with pytest.raises(DocumentUnclear):
        with_labels("kind: Cluster\nmetadata: {name: a, labels: [x]}\n", {"a": "b"}, "x")


def test_add_label_and_detach_change_the_working_tree(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        return CliRunner().invoke(cluster, [*arguments, "-C", str(tmp_path)], catch_exceptions=False).output

    path = tmp_path / "clusters" / "milan-01.yaml"
    assert str(path) in run("add", "milan-01", "--label", "country=it")
    run("label", "milan-01", "tier=canary", "country-")
    assert yaml.safe_load(path.read_text())["metadata"] == {"name": "milan-01", "labels": {"tier": "canary"}}
    run("detach", "milan-01")
    assert not path.exists()
