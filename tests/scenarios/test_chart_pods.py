"""S5, chart, on a real cluster: two services and a model in a Helm chart, answering through its Services."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitops.demo.documents import cluster, document, placement
from gitops.demo.fleet import Fleet
from gitops.demo.pods import MODELS, PodSite
from tests.cluster.fixtures import take
from tests.cluster.testbed import Testbed
from tests.scenarios.pods import Images, pod_fleet

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SECOND = """\
apiVersion: v1
kind: Service
metadata:
  name: {{ .Release.Name }}-inside
spec:
  selector: {app.kubernetes.io/instance: {{ .Release.Name }}}
  ports:
    - {name: http, port: 80, targetPort: http}
"""


def version(number: str) -> dict[str, str | bytes | None]:
    """Return the folder of a version: the shipped chart with a second Service, and a model beside it."""
    folder = f"models/digits/versions/{number}"
    chart = ROOT / "charts" / "model"
    files: dict[str, str | bytes | None] = {
        f"{folder}/chart/{path.relative_to(chart)}": path.read_bytes() for path in chart.rglob("*") if path.is_file()
    }
    files[f"{folder}/chart/templates/inside.yaml"] = SECOND
    return {**files, f"{folder}/digits.onnx": (ROOT / "examples" / "digits" / f"digits-{number}.onnx").read_bytes()}


def model(images: Images, **values: str) -> dict[str, str | bytes | None]:
    spec = {"delivery": "chart", "values": {"image": images.runtime, **values}}
    return {"models/digits/model.yaml": document("Model", "digits", spec)}


def test_a_chart_with_two_services_and_a_model_serves_is_updated_mended_and_removed(
    tmp_path: Path, bed: Testbed, images: Images
) -> None:
    (site,) = take(bed, 1, "kubernetes")
    with pod_fleet(tmp_path, bed, images, [site]) as fleet:
        fleet.init(empty=True)
        fleet.commit(
            "A chart",
            {**model(images), **version("1.0.0"), **cluster("milan"), **placement("digits", model="digits")},
        )
        fleet.start_hub()
        fleet.join("milan")
        fleet.expect({"milan": "1.0.0"}, within_s=120)
        seen = fleet.sites["milan"]
        assert isinstance(seen, PodSite)
        inside = seen.get("service", "digits-inside", f"--namespace={MODELS}")
        assert inside[0]["spec"]["selector"] == {"app.kubernetes.io/instance": "digits"}
        until_pods(fleet, seen, 1)
        release = seen.get("secrets", f"--namespace={MODELS}", "--selector=owner=helm,name=digits")
        assert [one["metadata"]["labels"]["status"] for one in release] == ["deployed"]

        fleet.commit("Two pods", model(images, replicas="2"))
        until_pods(fleet, seen, 2)
        seen.run("scale", "deployment", "digits", "--replicas=0", f"--namespace={MODELS}")
        until_pods(fleet, seen, 2)
        seen.run("delete", "deployment", "digits", f"--namespace={MODELS}")
        until_pods(fleet, seen, 2)

        fleet.commit("Version 2.0.0", version("2.0.0"))
        fleet.until(
            "version 2.0.0 answers, and no question stays without an answer", lambda: answered(fleet) == "2.0.0"
        )
        fleet.commit("Not there any more", {"placements/digits.yaml": None})
        fleet.until("nothing is left", lambda: not left(seen), 90, lambda: str(left(seen)))


def answered(fleet: Fleet) -> str:
    """Ask the model once and return the version that answered."""
    answer = fleet.ask("milan")
    assert answer is not None, "a request failed during the update"
    return answer.version


def until_pods(fleet: Fleet, seen: PodSite, count: int) -> None:
    """Wait until so many pods of the chart are ready, and as many are wanted."""

    def ready() -> bool:
        found = seen.get("deployment", "digits", f"--namespace={MODELS}")
        status = found[0].get("status", {}) if found else {}
        return bool(found) and found[0]["spec"]["replicas"] == count == status.get("readyReplicas", 0)

    fleet.until(f"{count} pods are ready", ready, 90)


def left(seen: PodSite) -> list[str]:
    """Return what of the chart is still there."""
    kinds = "deployments,services,secrets,pods"
    found = seen.get(kinds, f"--namespace={MODELS}")
    return [f"{one['kind']}/{one['metadata']['name']}" for one in found if one["kind"] != "Pod" or "digits" in str(one)]
