"""From a git push to a real Kubernetes API server: hub, agent with a kubeconfig, and objects as kubectl sees them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitops.demo.documents import cluster, document, placement
from gitops.demo.fleet import Fleet
from gitops.demo.processes import run
from tests.cluster import binary
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fixtures import skip

pytestmark = pytest.mark.cluster


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(tmp_path / "fleet")
    found.open()
    try:
        yield found
    finally:
        found.close()


def image(number: str) -> dict[str, str]:
    digest = "sha256:" + number[0] * 64
    spec = {"image": {"ref": "registry.example/models/vision", "digest": digest}}
    text = json.loads(document("ModelVersion", "vision", spec))
    text["metadata"] = {"name": "vision", "version": number}
    return {f"models/vision/versions/{number}/version.yaml": json.dumps(text)}


def test_a_container_model_travels_from_git_to_the_api_server_and_back(
    fleet: Fleet, api_server: ControlPlane, namespace: str
) -> None:
    kubectl = [
        str(api_server.binary.parent / "kubectl"),
        "--kubeconfig",
        str(api_server.kubeconfig),
        "--namespace",
        namespace,
    ]

    def get(kind: str, name: str = "vision") -> dict[str, Any] | None:
        out = run([*kubectl, "get", kind, name, "--ignore-not-found", "--output", "json"])
        found: dict[str, Any] | None = json.loads(out) if out.strip() else None
        return found

    def served() -> str:
        found = get("deployment")
        return "" if found is None else str(found["spec"]["template"]["spec"]["containers"][0]["image"])

    fleet.init(empty=True)
    spec = {"delivery": "container", "port": 8080, "namespace": namespace}
    files: dict[str, str | bytes | None] = {"models/vision/model.yaml": document("Model", "vision", spec)}
    files |= {**image("1.0.0"), **cluster("edge-07", line="welding"), **placement("vision", model="vision")}
    fleet.commit("A container model", files)
    fleet.start_hub()
    fleet.join("edge-07", "--platform", "kubernetes", "--kubeconfig", str(api_server.kubeconfig))
    fleet.until("version 1.0.0 is applied", lambda: served().endswith("1" * 64), 60)
    service, deployment = get("service"), get("deployment")
    assert service is not None and deployment is not None
    assert service["spec"]["ports"][0]["port"] == 8080
    assert deployment["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "edgeferry"
    assert deployment["metadata"]["labels"]["edgeferry.dev/placement"] == "vision"

    run([*kubectl, "delete", "service", "vision"])
    fleet.until("the deleted service is back", lambda: get("service") is not None, 30)

    fleet.commit("Version 2.0.0", dict(image("2.0.0")))
    fleet.until("version 2.0.0 is asked for", lambda: _wanted(fleet) == "2.0.0", 60)

    agent = fleet.host("edge-07").agent
    assert agent is not None
    agent.stop(how=signal.SIGKILL)
    run([*kubectl, "create", "configmap", "foreign"])
    fleet.start_agent("edge-07")
    fleet.commit("Not there any more", {"placements/vision.yaml": None})
    fleet.until("our objects are gone", lambda: get("deployment") is None and get("service") is None, 60)
    assert get("configmap", "foreign") is not None


def _wanted(fleet: Fleet) -> str:
    found = [one for one in fleet.status()["clusters"] if one["name"] == "edge-07"]
    return next((str(one["version"]) for one in found[0]["entries"]), "") if found else ""


def test_a_chart_with_a_model_travels_from_git_to_a_release_and_back(
    fleet: Fleet, api_server: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S5, chart: two services and a model; installed, updated by values and by version, removed."""
    try:
        helm = binary.find(binary.helm("amd64" if os.uname().machine == "x86_64" else "arm64"))
    except binary.Unavailable as reason:
        skip(f"needs Helm: {reason}")
    monkeypatch.setenv("PATH", f"{helm.parent}{os.pathsep}{os.environ['PATH']}")
    options = ["--kubeconfig", str(api_server.kubeconfig), "--namespace", namespace]
    kubectl = [str(api_server.binary.parent / "kubectl"), *options]

    def names(kind: str) -> set[str]:
        return set(run([*kubectl, "get", kind, "--output", "name"]).split())

    def model() -> dict[str, Any]:
        out = run([*kubectl, "get", "configmap", "reader-model", "--ignore-not-found", "--output", "json"])
        found: dict[str, Any] = json.loads(out)["data"] if out.strip() else {}
        return found

    def version(number: str, weights: bytes) -> dict[str, str | bytes | None]:
        folder = f"models/reader/versions/{number}"
        service = "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {ports: [{port: {{ .Values.port }}}]}\n"
        told = (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: reader-model}\n"
            "data: {file: {{ .Values.edgeferry.model.hostPath }}/{{ .Values.edgeferry.model.file }}, "
            'version: "{{ .Values.edgeferry.model.version }}", port: {{ .Values.port | quote }}}\n'
        )
        return {
            f"{folder}/chart/Chart.yaml": f"apiVersion: v2\nname: reader\nversion: {number}\n",
            f"{folder}/chart/values.yaml": "port: 80\n",
            f"{folder}/chart/templates/services.yaml": "---\n".join(service % name for name in ("front", "back")),
            f"{folder}/chart/templates/model.yaml": told,
            f"{folder}/reader.onnx": weights,
        }

    def spec(port: str) -> dict[str, str | bytes | None]:
        values = {"delivery": "chart", "namespace": namespace, "values": {"port": port}}
        return {"models/reader/model.yaml": document("Model", "reader", values)}

    fleet.init(empty=True)
    files = {**spec("8080"), **version("1.0.0", b"one"), **cluster("edge-07"), **placement("reader", model="reader")}
    fleet.commit("A chart", files)
    fleet.start_hub()
    fleet.join("edge-07", "--platform", "kubernetes", "--kubeconfig", str(api_server.kubeconfig))
    fleet.until("version 1.0.0 is installed", lambda: model().get("version") == "1.0.0", 60)
    assert {"service/front", "service/back"} <= names("service")
    assert Path(model()["file"]).read_bytes() == b"one"
    listed = json.loads(run([str(helm), "list", *options, "--output", "json"]))
    assert [(one["name"], one["status"], one["chart"]) for one in listed] == [("reader", "deployed", "reader-1.0.0")]

    fleet.commit("Another port", spec("9090"))
    fleet.until("the new values are there", lambda: model().get("port") == "9090", 60)
    fleet.commit("Version 2.0.0", version("2.0.0", b"two"))
    fleet.until("version 2.0.0 is installed", lambda: model().get("version") == "2.0.0", 60)
    assert Path(model()["file"]).read_bytes() == b"two"

    run([*kubectl, "delete", "service", "back"])
    fleet.until("the deleted service is back", lambda: "service/back" in names("service"), 30)
    fleet.commit("Not there any more", {"placements/reader.yaml": None})
    fleet.until("nothing is left", lambda: not model() and "service/front" not in names("service"), 60)
    fleet.until("the release is gone", lambda: not any("sh.helm" in one for one in names("secret")), 30)
