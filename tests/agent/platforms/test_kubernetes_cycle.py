"""The agent's whole cycle on a real API server; a stand-in for the kubelet says which images come up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agent.actions import Staged
from agent.config import Config
from agent.fetch import Received
from agent.platforms.kubernetes import KubernetesPlatform
from agent.reconcile import Outcome
from agent.wire.release import Entry, ModelUse
from tests.agent.platforms.kubernetes_site import Site, config_map, deployment, service, site, staged
from tests.agent.simulated_site import FLEET, Edge
from tests.cluster.control_plane import ControlPlane

pytestmark = pytest.mark.cluster


@dataclass
class Cluster(Edge):
    """A site whose platform is the real one, on a namespace of the real API server."""

    kubeconfig: str = ""
    person: Site | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.config = replace(self.config, platform="kubernetes", kubeconfig=self.kubeconfig)
        self.platform: Any = KubernetesPlatform(self.root, Config("milan-01", FLEET, kubeconfig=self.kubeconfig))

    def look(self, received: Received | None = None) -> Outcome:
        """One cycle, after every Deployment has come as far as its image lets it."""
        assert self.person is not None
        deployments = self.person.person.resource("apps/v1", "Deployment")
        for live in self.person.person.list(deployments, self.person.namespace)["items"]:
            image = live["spec"]["template"]["spec"]["containers"][0]["image"]
            generation = live["metadata"]["generation"]
            status = {"observedGeneration": generation, "replicas": 1, "updatedReplicas": 1}
            if "bad" in image:
                failed = {
                    "type": "Progressing",
                    "status": "False",
                    "reason": "ProgressDeadlineExceeded",
                    "message": "late",
                }
                status |= {"conditions": [failed], "readyReplicas": 0, "availableReplicas": 0}
            else:
                up = {"type": "Available", "status": "True"}
                status |= {"conditions": [up], "readyReplicas": 1, "availableReplicas": 1}
            if {**(live.get("status") or {}), **status} != live.get("status"):
                self.person.edit("Deployment", live["metadata"]["name"], {"status": status}, "apps/v1", "/status")
        return super().look(received)

    def image(self, name: str = "defect-detector") -> str:
        assert self.person is not None
        live = self.person.get("Deployment", name, "apps/v1")
        return str(live["spec"]["template"]["spec"]["containers"][0]["image"]) if live else ""


@pytest.fixture
def edge(api_server: ControlPlane, tmp_path: Path, namespace: str) -> Iterator[Cluster]:
    with site(api_server, tmp_path / "person", namespace) as person:
        # Objects of two releases follow each other slower than a simulated site's.
        made = Cluster(tmp_path / "state", tick_ms=50, kubeconfig=str(api_server.kubeconfig), person=person)
        yield made
        made.platform.close()
        if made.site is not None:
            made.site.staging.close()
            made.site.state.close()


def entry(one: Staged) -> tuple[Entry, Mapping[str, bytes]]:
    return one.entry, one.files


def model(edge: Cluster, version: str, image: str = "", port: int = 8080) -> tuple[Entry, Mapping[str, bytes]]:
    assert edge.person is not None
    image = image or f"registry.example/model:{version}"
    return entry(staged(edge.person.namespace, deployment(image=image), service(port=port), version=version))


def workload(edge: Cluster) -> tuple[Entry, Mapping[str, bytes]]:
    assert edge.person is not None
    uses = (ModelUse("defect-detector"),)
    objects = (deployment("inspector"), config_map("inspector-settings", line="welding"))
    return entry(
        staged(edge.person.namespace, *objects, name="inspector", version="1.0.0", kind="workload", models=uses)
    )


def test_a_model_and_its_workload_come_up_are_updated_and_go(edge: Cluster) -> None:
    assert edge.person is not None
    edge.settle(edge.release(model(edge, "1.0.0"), workload(edge)))
    reports = edge.reports()
    assert {(one.version, one.health) for one in reports.values()} == {("1.0.0", "current")}
    assert reports["model/defect-detector"].url == f"http://defect-detector.{edge.person.namespace}.svc:8080"
    told = edge.person.get("ConfigMap", "edgeferry-models")
    assert told and told["data"]["DEFECT_DETECTOR_VERSION"] == "1.0.0"
    before = edge.person.get("Deployment", "inspector", "apps/v1")

    edge.settle(edge.release(model(edge, "2.0.0"), workload(edge)))
    assert edge.image() == "registry.example/model:2.0.0"
    told = edge.person.get("ConfigMap", "edgeferry-models")
    assert told and told["data"]["DEFECT_DETECTOR_VERSION"] == "2.0.0"
    after = edge.person.get("Deployment", "inspector", "apps/v1")
    assert before and after and before["metadata"]["generation"] + 1 == after["metadata"]["generation"], (
        "restarted once"
    )
    assert [kind for kind, _, version in edge.events() if version == "2.0.0"] == ["staged", "switched", "committed"]

    edge.settle(edge.release())
    assert edge.image() == "" and edge.image("inspector") == ""
    assert edge.person.get("ConfigMap", "edgeferry-models") is None


def test_a_version_that_does_not_come_up_returns_to_the_one_before(edge: Cluster) -> None:
    edge.settle(edge.release(model(edge, "1.0.0")))
    edge.settle(edge.release(model(edge, "2.0.0", "registry.example/model:bad")))
    assert edge.image() == "registry.example/model:1.0.0"
    report = edge.reports()["model/defect-detector"]
    assert (report.version, report.health) == ("1.0.0", "current")
    assert "ProgressDeadlineExceeded" in report.message and report.code


def test_what_the_cluster_refuses_leaves_the_version_before_alone(edge: Cluster) -> None:
    assert edge.person is not None
    edge.settle(edge.release(model(edge, "1.0.0")))
    live = edge.person.get("Deployment", "defect-detector", "apps/v1")
    edge.settle(edge.release(model(edge, "2.0.0", port=99999)))
    after = edge.person.get("Deployment", "defect-detector", "apps/v1")
    assert live and after and live["metadata"]["generation"] == after["metadata"]["generation"]
    assert edge.reports()["model/defect-detector"].code == "EF4206"


def test_drift_is_put_right_by_the_next_cycles_and_told(edge: Cluster) -> None:
    assert edge.person is not None
    edge.settle(edge.release(model(edge, "1.0.0"), workload(edge)))
    edge.person.delete("ConfigMap", "inspector-settings")
    edge.person.edit("Deployment", "defect-detector", {"spec": {"replicas": 5}}, "apps/v1")
    edge.person.until(lambda _: bool(edge.look()) and _repaired(edge))
    assert {"repaired"} <= {kind for kind, _, _ in edge.events()}


def test_an_agent_started_anew_carries_on_and_writes_nothing(edge: Cluster) -> None:
    assert edge.person is not None
    edge.settle(edge.release(model(edge, "1.0.0"), workload(edge)))
    names = (("Deployment", "defect-detector", "apps/v1"), ("Service", "defect-detector", "v1"))
    names += (("ConfigMap", "edgeferry-models", "v1"), ("ConfigMap", "inspector-settings", "v1"))
    before = [edge.person.get(*name) for name in names]
    edge.platform.close()
    edge.reboot()
    edge.settle()
    assert [edge.person.get(*name) for name in names] == before
    assert edge.reports()["model/defect-detector"].health == "current"


def _repaired(edge: Cluster) -> bool:
    assert edge.person is not None
    live = edge.person.get("Deployment", "defect-detector", "apps/v1")
    return bool(edge.person.get("ConfigMap", "inspector-settings")) and bool(live and live["spec"]["replicas"] == 1)
