"""Rendering: one entry for all that share it, digests that move only with what runs, overlays Kustomize builds."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.wire.canonical import digest
from agent.wire.release import Artifact, decode_release
from agent.wire.signature import RELEASE, SigningKey, verify
from gitops import kinds
from gitops.catalog_types import Catalog, CatalogModel, CatalogVersion, CatalogWorkload, Content, WorkloadVersion
from gitops.render.entries import Rendered, Wanted, render
from gitops.render.overlay import ObjectClash, Stamp, draft, signed
from gitops.tree import File
from tests.cluster.fixtures import kubectl_or_skip

IMAGE = "registry.example/onnx@sha256:" + "a" * 64
ARTIFACT = Artifact("sha256:" + "1" * 64, 10, "application/vnd.oci.image.manifest.v1+json", "hub://models/digits")
STAMP = Stamp("f-1", 1, datetime(2026, 1, 1, tzinfo=UTC), {"main": "0" * 40})
MANIFEST = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: b}\n"


def document(kind: str, name: str, spec: dict[str, Any]) -> Any:
    whole = {"apiVersion": kinds.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
    return kinds.KINDS[kind].model_validate(whole, strict=False)


def catalog(**spec: Any) -> Catalog:
    model = document(
        "Model", "digits", {"delivery": "server", "runtime": "onnx", "values": {"threshold": "0.6"}, **spec}
    )
    content = Content(
        "main", "models/digits/versions/1.0.0", (File("models/digits/versions/1.0.0/digits.onnx", "0" * 40, 10),)
    )
    version = CatalogVersion("1.0.0", "identity", content, kinds.ModelVersionSpec())
    image = kinds.ModelVersionSpec(image=kinds.ImageSpec(ref="registry.example/m", digest="sha256:" + "b" * 64))
    other = CatalogVersion("2.0.0", "other", None, image)
    files = {"in.json": b"{}", "out.json": b"{}"}
    workload = document("Workload", "reader", {"models": [{"name": "digits", "version": ">=1"}]})
    return Catalog(
        revisions={"main": "0" * 40},
        fleet=kinds.FleetSpec(),
        sources={},
        clusters={},
        models={"digits": CatalogModel("digits", "main", model, {"1.0.0": version, "2.0.0": other}, files)},
        workloads={
            name: CatalogWorkload(
                name, "main", workload, {"1.0.0": WorkloadVersion("1.0.0", "i", {"config.yaml": MANIFEST})}
            )
            for name in ("reader", "writer")
        },
        runtimes={
            "onnx": document("Runtime", "onnx", {"image": IMAGE, "args": ["--model", "{model}", "--port", "{port}"]})
        },
        placements={},
    )


def digits(found: Catalog, version: str = "1.0.0", placement: str = "p", **values: str) -> Rendered:
    wanted = Wanted("model", "digits", version, "", placement, values)
    return render(found, wanted, (ARTIFACT,) if version == "1.0.0" else ())


def test_a_renamed_placement_restarts_nothing() -> None:
    one, other = digits(catalog(), placement="p"), digits(catalog(), placement="q")
    assert one.entry.digest == other.entry.digest
    pods = [yaml.safe_load(each.files["models/digits/deployment.yaml"])["spec"]["template"] for each in (one, other)]
    assert pods[0] == pods[1]


@pytest.mark.parametrize(
    "other",
    [
        digits(catalog(), threshold="0.7"),
        digits(catalog(switch="replace")),
        digits(catalog(namespace="elsewhere")),
        digits(catalog(selfTest={"input": "in.json", "output": "out.json"})),
    ],
    ids=["values", "switch", "namespace", "self-test"],
)
def test_whatever_makes_it_run_moves_the_entry_digest(other: Rendered) -> None:
    assert other.entry.digest != digits(catalog()).entry.digest


def test_rendering_twice_gives_the_same_bytes() -> None:
    assert digits(catalog()).files == digits(catalog()).files


def test_the_model_is_mounted_read_only_by_digest() -> None:
    pod = yaml.safe_load(digits(catalog()).files["models/digits/deployment.yaml"])["spec"]["template"]["spec"]
    assert pod["volumes"][0]["hostPath"]["path"].endswith("1" * 64)
    assert pod["containers"][0]["volumeMounts"][0]["readOnly"]
    assert pod["containers"][0]["args"] == ["--model", "/models/digits/digits.onnx", "--port", "8080"]


def test_a_container_model_is_an_image_by_digest() -> None:
    one = digits(catalog(delivery="container", port=9000), "2.0.0")
    assert one.entry.images == ("registry.example/m@sha256:" + "b" * 64,)
    service = yaml.safe_load(one.files["models/digits/service.yaml"])
    assert service["spec"]["ports"] == [{"name": "http", "port": 9000, "targetPort": 9000}]


def test_two_entries_that_declare_the_same_object_are_refused() -> None:
    found = catalog()
    both = [render(found, Wanted("workload", name, "1.0.0", "", "p", {}), ()) for name in ("reader", "writer")]
    with pytest.raises(ObjectClash, match="settings"):
        draft("milan-01", both, STAMP, 1)


def test_every_file_of_an_overlay_is_listed_with_its_digest_and_the_release_is_signed() -> None:
    key = SigningKey.generate()
    found = catalog(selfTest={"input": "in.json", "output": "out.json", "tolerance": 0.001})
    entries = [digits(found), render(found, Wanted("workload", "reader", "1.0.0", "", "p", {}), ())]
    overlay = signed(draft("milan-01", entries, STAMP, 7, "SHA256:x"), key)
    verify(overlay["release.json"], overlay["release.json.sig"], RELEASE, {key.public}, "x")
    release = decode_release(overlay["release.json"])
    listed = {path: digest(data) for path, data in overlay.items() if not path.startswith("release.json")}
    assert release.files == listed
    assert [entry.name for entry in release.entries] == ["digits", "reader"]
    assert release.entries[0].self_test is not None and release.entries[0].self_test.tolerance == "0.001"


def test_content_is_equal_where_only_time_and_source_differ() -> None:
    later = replace(STAMP, published_at=datetime(2027, 1, 1, tzinfo=UTC), source_revision={"main": "1" * 40})
    one, other = draft("a", [digits(catalog())], STAMP, 1), draft("a", [digits(catalog())], later, 2)
    assert one.content == other.content


@pytest.mark.cluster
@pytest.mark.parametrize("which", ["nothing", "a model", "a model and a workload"])
def test_kubectl_kustomize_builds_the_overlay(tmp_path: Path, which: str) -> None:
    kubectl = kubectl_or_skip()
    found = catalog()
    entries = [digits(found), render(found, Wanted("workload", "reader", "1.0.0", "", "p", {}), ())]
    entries = entries[: ["nothing", "a model", "a model and a workload"].index(which)]
    for path, data in signed(draft("a", entries, STAMP, 1), SigningKey.generate()).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    done = subprocess.run([kubectl, "kustomize", str(tmp_path)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    built = [one for one in yaml.safe_load_all(done.stdout) if one]
    assert len(built) == [0, 2, 3][["nothing", "a model", "a model and a workload"].index(which)]
    assert all(one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "edgeferry" for one in built)
