"""Charts from Git to the embedded store: the form that Helm knows, and the same digest everywhere."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.stage import read_layers
from agent.wire.release import Artifact
from gitops.artifacts import ArtifactStore
from gitops.charts import pack_chart
from gitops.packing import PackFile
from gitops.review import review
from tests.cluster import binary
from tests.cluster.fixtures import skip

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "charts" / "model"
TEMPLATE = ROOT / "repo-template" / "models" / "digits-chart" / "versions" / "1.0.0"
IMAGE = "registry.example/runtime@sha256:" + "a" * 64


@pytest.fixture(scope="session")
def helm() -> Path:
    try:
        return binary.find(binary.helm("amd64" if os.uname().machine == "x86_64" else "arm64"))
    except binary.Unavailable as reason:
        skip(f"needs Helm: {reason}")


def files(folder: Path) -> list[PackFile]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return [
        PackFile(
            path.relative_to(folder).as_posix(), path.stat().st_size, lambda path=path: io.BytesIO(path.read_bytes())
        )
        for path in paths
    ]


def packed(store: ArtifactStore, order: int = 1) -> Artifact:
    return pack_chart(store, "charts/models/digits", files(MODEL)[::order], "1.0.0")


def test_the_same_chart_has_the_same_digest(tmp_path: Path) -> None:
    one, other = (packed(ArtifactStore.open(tmp_path / str(order)), order) for order in (1, -1))
    assert one == other
    assert one.ref == "hub://charts/models/digits"


def test_a_packed_chart_is_what_helm_pushes_and_what_the_agent_unpacks(tmp_path: Path, helm: Path) -> None:
    store = ArtifactStore.open(tmp_path)
    artifact = packed(store)
    (layer,) = read_layers(store.manifest_bytes(artifact.digest), "chart")
    assert layer.kind == "tar+gzip"
    with tarfile.open(store.path(layer.digest)) as tar:
        assert {"model/Chart.yaml", "model/values.schema.json"} <= set(tar.getnames())
    archive = tmp_path / "model-0.1.0.tgz"
    archive.write_bytes(store.path(layer.digest).read_bytes())
    shown = subprocess.run([helm, "show", "chart", archive], capture_output=True, text=True, check=True).stdout
    assert "name: model" in shown


def test_a_provenance_layer_is_nothing_to_unpack() -> None:
    manifest = (
        b'{"layers": [{"mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip", "size": 1, "digest": "%s"},'
        b'{"mediaType": "application/vnd.cncf.helm.chart.provenance.v1.prov", "size": 1, "digest": "%s"}]}'
    ) % (b"sha256:" + b"1" * 64, b"sha256:" + b"2" * 64)
    assert len(read_layers(manifest, "chart")) == 1


def test_the_template_s_chart_is_the_shipped_one(helm: Path) -> None:
    def read(folder: Path) -> dict[str, bytes]:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert read(TEMPLATE / "chart") == read(MODEL)
    subprocess.run([helm, "lint", "--strict", MODEL, "--set", f"image={IMAGE}"], check=True, capture_output=True)


def test_the_template_with_its_chart_has_no_faults() -> None:
    found = review(ROOT / "repo-template", None, False, datetime(2026, 1, 1, tzinfo=UTC))
    assert not found.faults


def test_a_chart_s_model_stands_where_the_agent_says(helm: Path) -> None:
    values = {
        "image": IMAGE,
        "edgeferry.model.hostPath": "/var/lib/edgeferry/content/trees/1",
        "edgeferry.model.file": "digits.onnx",
    }
    command = [
        helm,
        "template",
        "digits",
        MODEL,
        "--kube-version=1.34.0",
        *(f"--set={name}={value}" for name, value in values.items()),
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert '"/models/digits/digits.onnx"' in made
    assert "path: /var/lib/edgeferry/content/trees/1, type: Directory" in made
