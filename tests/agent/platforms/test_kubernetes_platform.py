"""The platform on a real API server. No kubelet runs: a test says itself that pods are ready."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.actions import Announce, ModelPoint, Refresh, Remove, Retire, Switch
from agent.platforms.kubernetes_errors import ForeignObject, ObjectInvalid, ObjectShared, OutOfScope
from agent.wire.release import ModelUse
from tests.agent.platforms.kubernetes_site import Object, Site, config_map, deployment, service, site, staged
from tests.cluster.control_plane import ControlPlane

pytestmark = pytest.mark.cluster


@pytest.fixture
def edge(api_server: ControlPlane, tmp_path: Path, namespace: str) -> Iterator[Site]:
    with site(api_server, tmp_path, namespace) as made:
        yield made


def versions(edge: Site, *objects: tuple[str, str, str]) -> list[str]:
    found = [edge.get(kind, name, api_version) for kind, name, api_version in objects]
    assert all(found)
    return [str(one["metadata"]["resourceVersion"]) for one in found if one]


def test_a_switch_brings_namespace_and_objects_and_is_current_once_its_pods_are(edge: Site) -> None:
    entry = staged(edge.namespace, deployment(), service(), config_map("settings", threshold="0.6"))
    edge.switch(entry)
    before = edge.seen(entry)
    edge.ready("defect-detector")
    after = edge.until_health("current", entry)
    assert (before.health, before.serving, before.drift, before.digest) == ("progressing", True, "", entry.digest)
    assert "no controller has seen it yet" in before.message
    assert (after.message, after.url) == ("", f"http://defect-detector.{edge.namespace}.svc:8080")


def test_the_same_again_writes_nothing(edge: Site) -> None:
    entry = staged(edge.namespace, deployment(), service())
    edge.switch(entry)
    objects = (("Deployment", "defect-detector", "apps/v1"), ("Service", "defect-detector", "v1"))
    before = versions(edge, *objects)
    edge.switch(entry)
    edge.restart()
    edge.switch(entry)
    edge.repair(entry)
    assert versions(edge, *objects) == before


def test_values_that_the_server_writes_otherwise_are_no_drift(edge: Site) -> None:
    entry = staged(edge.namespace, deployment())
    edge.switch(entry)
    edge.ready("defect-detector")
    assert edge.until_health("current", entry).drift == ""
    edge.restart()
    assert edge.seen(entry).drift == ""


def test_a_changed_field_is_named_with_who_changed_it_and_put_back(edge: Site) -> None:
    entry = staged(edge.namespace, deployment(), service())
    edge.switch(entry)
    edge.edit("Deployment", "defect-detector", {"spec": {"replicas": 3}}, "apps/v1")
    drift = edge.until_drift(entry)
    assert "spec.replicas by kubectl-edit" in drift
    edge.repair(entry)
    live = edge.get("Deployment", "defect-detector", "apps/v1")
    assert live and live["spec"]["replicas"] == 1
    assert edge.seen(entry).drift == ""


def test_a_removed_field_is_put_back(edge: Site) -> None:
    entry = staged(edge.namespace, config_map("settings", a="1", b="2"))
    edge.switch(entry)
    edge.edit("ConfigMap", "settings", {"data": {"a": None}})
    edge.until_drift(entry)
    edge.repair(entry)
    live = edge.get("ConfigMap", "settings")
    assert live and live["data"] == {"a": "1", "b": "2"}


def test_a_removed_label_of_ours_is_put_back(edge: Site) -> None:
    entry = staged(edge.namespace, config_map("settings", a="1"))
    edge.switch(entry)
    edge.seen(entry)
    edge.edit("ConfigMap", "settings", {"metadata": {"labels": {"app.kubernetes.io/managed-by": "someone"}}})
    edge.until_drift(entry)
    edge.repair(entry)
    live = edge.get("ConfigMap", "settings")
    assert live and live["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "edgeferry"


def test_what_others_add_is_theirs(edge: Site) -> None:
    entry = staged(edge.namespace, config_map("settings", a="1"))
    edge.switch(entry)
    edge.edit("ConfigMap", "settings", {"data": {"theirs": "x"}, "metadata": {"annotations": {"note": "y"}}})
    edge.repair(entry)
    assert edge.seen(entry).drift == ""
    live = edge.get("ConfigMap", "settings")
    assert live and live["data"] == {"a": "1", "theirs": "x"}


def test_a_deleted_object_comes_back(edge: Site) -> None:
    entry = staged(edge.namespace, config_map("settings", a="1"), service())
    edge.switch(entry)
    assert edge.seen(entry).health == "current"
    edge.delete("ConfigMap", "settings")
    assert "settings is missing" in edge.until_drift(entry)
    edge.repair(entry)
    assert edge.get("ConfigMap", "settings")
    assert (edge.seen(entry).health, edge.seen(entry).drift) == ("current", "")


def test_a_deleted_namespace_comes_back_with_everything(edge: Site) -> None:
    entry = staged(edge.namespace, config_map("settings", a="1"))
    edge.switch(entry)
    path = f"/api/v1/namespaces/{edge.namespace}"
    edge.delete("ConfigMap", "settings")
    edge.person.request("DELETE", path)
    edge.person.request(
        "PUT",
        f"{path}/finalize",
        body={
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": edge.namespace},
            "spec": {"finalizers": []},
        },
    )
    edge.until_drift(entry)
    edge.repair(entry)
    assert edge.get("ConfigMap", "settings")


def test_a_new_version_keeps_what_is_the_same_and_prunes_what_is_gone(edge: Site) -> None:
    old = staged(edge.namespace, deployment(), service(), config_map("old", a="1"), config_map("same", a="1"))
    new = staged(edge.namespace, deployment(image="registry.example/model:2"), service(), config_map("same", a="1"))
    edge.switch(old)
    uid = versions(edge, ("ConfigMap", "same", "v1"))
    edge.switch(new, old)
    assert edge.get("ConfigMap", "old") is None
    assert versions(edge, ("ConfigMap", "same", "v1")) == uid
    assert edge.seen(new, old).digest == new.digest


def test_the_version_before_comes_back_by_a_switch(edge: Site) -> None:
    old = staged(edge.namespace, deployment(), config_map("old", a="1"))
    new = staged(edge.namespace, deployment(image="registry.example/model:2"), version="2.2.0")
    edge.switch(old)
    edge.switch(new, old)
    edge.switch(old, new)
    edge.platform.execute(Retire(new))
    live = edge.get("Deployment", "defect-detector", "apps/v1")
    assert live and live["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/model:1"
    assert edge.get("ConfigMap", "old")
    assert edge.seen(old, new).digest == old.digest


def test_the_older_pods_stay_until_the_new_ones_are_ready(edge: Site) -> None:
    old = staged(edge.namespace, deployment())
    new = staged(edge.namespace, deployment(image="registry.example/model:2"))
    edge.switch(old)
    edge.ready("defect-detector")
    edge.until_health("current", old)
    edge.switch(new, old)
    assert edge.seen(new, old).health == "progressing", "the answer of the write counts, not an older event"


def test_removal_takes_our_objects_only(edge: Site) -> None:
    entry = staged(edge.namespace, deployment(), service(), config_map("settings", a="1"))
    edge.switch(entry)
    edge.write(config_map("theirs", a="1"))
    edge.platform.execute(Remove("model", "defect-detector"))
    edge.platform.execute(Remove("model", "defect-detector"))
    gone = [edge.get("Deployment", "defect-detector", "apps/v1"), edge.get("ConfigMap", "settings")]
    assert gone == [None, None]
    assert edge.get("ConfigMap", "theirs")
    assert edge.platform.observe([]).seen == ()


def test_removal_goes_against_the_order_of_creation(edge: Site) -> None:
    role: Object = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "r"},
        "rules": [],
    }
    entry = staged(edge.namespace, deployment(), service(), config_map("settings", a="1"), role, kind="workload")
    edge.switch(entry)
    made = [
        edge.get("Role", "r", "rbac.authorization.k8s.io/v1"),
        edge.get("ConfigMap", "settings"),
        edge.get("Service", "defect-detector"),
        edge.get("Deployment", "defect-detector", "apps/v1"),
    ]
    numbers = [int(one["metadata"]["resourceVersion"]) for one in made if one]
    assert numbers == sorted(numbers) and len(numbers) == 4
    since = edge.person.list(edge.person.resource("v1", "ConfigMap"), edge.namespace)["metadata"]["resourceVersion"]
    edge.platform.execute(Remove("workload", "defect-detector"))
    ends = []
    for api_version, kind in (
        ("apps/v1", "Deployment"),
        ("v1", "Service"),
        ("v1", "ConfigMap"),
        ("rbac.authorization.k8s.io/v1", "Role"),
    ):
        resource = edge.person.resource(api_version, kind)
        events = edge.person.watch(resource, edge.namespace, "edgeferry.dev/workload=defect-detector", since, 1)
        ends += [int(e["object"]["metadata"]["resourceVersion"]) for e in events if e["type"] == "DELETED"]
    assert ends == sorted(ends) and len(ends) == 4


def test_what_a_person_took_from_us_stays(edge: Site) -> None:
    entry = staged(
        edge.namespace, config_map("settings", a="1"), config_map("kept", {"edgeferry.dev/keep": "true"}, a="1")
    )
    edge.switch(entry)
    edge.edit("ConfigMap", "settings", {"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}})
    edge.platform.execute(Remove("model", "defect-detector"))
    assert edge.get("ConfigMap", "settings") and edge.get("ConfigMap", "kept")


def test_a_foreign_object_is_not_touched(edge: Site) -> None:
    edge.person.request("POST", "/api/v1/namespaces", body={"metadata": {"name": edge.namespace}})
    edge.write(config_map("settings", a="theirs"), "helm")
    entry = staged(edge.namespace, config_map("settings", a="ours"), config_map("another", a="1"))
    with pytest.raises(ForeignObject, match=r"made by helm.*edgeferry.dev/adopt"):
        edge.switch(entry)
    live = edge.get("ConfigMap", "settings")
    assert live and live["data"] == {"a": "theirs"}
    assert edge.get("ConfigMap", "another") is None, "nothing of an entry is applied when a part of it may not be"
    edge.platform.execute(Remove("model", "defect-detector"))
    assert edge.get("ConfigMap", "settings")


@pytest.mark.parametrize("who", ["manifest", "object"])
def test_a_foreign_object_is_taken_over_when_somebody_says_so(edge: Site, who: str) -> None:
    adopt = {"edgeferry.dev/adopt": "true"}
    edge.person.request("POST", "/api/v1/namespaces", body={"metadata": {"name": edge.namespace}})
    edge.write(config_map("settings", adopt if who == "object" else None, a="theirs"), "helm")
    entry = staged(edge.namespace, config_map("settings", adopt if who == "manifest" else None, a="ours"))
    edge.switch(entry)
    live = edge.get("ConfigMap", "settings")
    assert live and live["data"] == {"a": "ours"}
    assert edge.seen(entry).drift == ""


def test_an_object_that_somebody_made_anew_is_foreign(edge: Site) -> None:
    entry = staged(edge.namespace, config_map("settings", a="1"))
    edge.switch(entry)
    edge.delete("ConfigMap", "settings")
    edge.write(config_map("settings", a="theirs"), "helm")
    assert "settings" in edge.until_drift(entry)
    with pytest.raises(ForeignObject):
        edge.repair(entry)
    edge.platform.execute(Remove("model", "defect-detector"))
    assert edge.get("ConfigMap", "settings")


def test_cluster_scoped_and_other_namespaces_are_refused_before_anything_is_done(edge: Site) -> None:
    role: Object = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "x"}}
    other = config_map("settings", a="1")
    other["metadata"]["namespace"] = "default"
    for one in (role, other):
        with pytest.raises(OutOfScope, match=r"scope"):
            edge.switch(staged(edge.namespace, config_map("mine", a="1"), one))
    assert edge.get("ConfigMap", "mine") is None


def test_cluster_scope_may_both(api_server: ControlPlane, tmp_path: Path, namespace: str) -> None:
    with site(api_server, tmp_path, namespace, scope="cluster") as edge:
        role: Object = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": namespace},
            "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}],
        }
        other = config_map(namespace, a="1")
        other["metadata"]["namespace"] = "default"
        entry = staged(namespace, role, other, kind="workload")
        edge.switch(entry)
        assert edge.seen(entry).health == "current"
        edge.platform.execute(Remove("workload", "defect-detector"))
        assert edge.get("ClusterRole", namespace, "rbac.authorization.k8s.io/v1") is None
        assert edge.get("ConfigMap", namespace, namespace="default") is None


def test_an_entry_that_is_refused_in_part_is_not_applied_in_part(edge: Site) -> None:
    bad = deployment()
    bad["spec"]["template"]["spec"]["containers"][0]["port"] = 8080
    edge.switch(staged(edge.namespace, config_map("first", a="1")))
    with pytest.raises(ObjectInvalid, match=r"mend spec.template.spec.containers.*port"):
        edge.switch(staged(edge.namespace, config_map("first", a="2"), bad))
    live = edge.get("ConfigMap", "first")
    assert live and live["data"] == {"a": "1"}


def test_a_renamed_entry_takes_its_objects_along(edge: Site) -> None:
    old = staged(edge.namespace, config_map("settings", a="1"), name="before")
    new = staged(edge.namespace, config_map("settings", a="1"), name="after")
    edge.switch(old)
    edge.switch(new)
    with pytest.raises(ObjectShared, match="model/after"):
        edge.repair(old)
    edge.platform.execute(Remove("model", "before"))
    assert edge.get("ConfigMap", "settings")
    assert edge.seen(new).health == "current"


def test_models_are_announced_and_found_again(edge: Site) -> None:
    points = (
        ModelPoint("defect-detector", "2.1.0", "http://defect-detector.models.svc:8080"),
        ModelPoint("grip", "1.0.0", path="/var/lib/edgeferry/models/grip/current"),
    )
    edge.platform.execute(Announce(edge.namespace, points))
    live = edge.get("ConfigMap", "edgeferry-models")
    assert live and live["data"]["DEFECT_DETECTOR_URL"] == "http://defect-detector.models.svc:8080"
    assert live["data"]["GRIP_PATH"] == "/var/lib/edgeferry/models/grip/current"
    assert edge.platform.observe([]).announced == {edge.namespace: points}
    edge.edit("ConfigMap", "edgeferry-models", {"data": {"X_VERSION": "9", "GRIP_VERSION": "0.1.0"}})
    edge.until(lambda observed: observed.announced[edge.namespace] != points)
    edge.platform.execute(Announce(edge.namespace, points))
    edge.restart()
    assert edge.platform.observe([]).announced == {edge.namespace: points}
    edge.platform.execute(Announce(edge.namespace, ()))
    assert edge.get("ConfigMap", "edgeferry-models") is None
    assert edge.platform.observe([]).announced == {}


def test_a_workload_is_restarted_for_a_new_model_and_for_nothing_else(edge: Site) -> None:
    uses = (ModelUse("defect-detector", on_change="restart"), ModelUse("grip", on_change="reload"))
    entry = staged(edge.namespace, deployment("inspector"), name="inspector", kind="workload", models=uses)

    def template() -> str:
        live = edge.get("Deployment", "inspector", "apps/v1")
        assert live
        return str(live["spec"]["template"]["metadata"].get("annotations"))

    def points(detector: str, grip: str) -> tuple[ModelPoint, ...]:
        return ModelPoint("defect-detector", detector, "http://d"), ModelPoint("grip", grip, "http://g")

    edge.platform.execute(Switch(entry, None, points("1.0.0", "1.0.0")))
    first = template()
    edge.platform.execute(Refresh(entry, "reload", points("1.0.0", "2.0.0")))
    edge.repair(entry)
    assert template() == first != "None"
    edge.platform.execute(Refresh(entry, "restart", points("1.1.0", "2.0.0")))
    second = template()
    edge.repair(entry)
    edge.restart()
    edge.repair(entry)
    assert template() == second != first
    assert edge.seen(entry).drift == ""


def test_facts_need_no_right_but_to_ask_the_version(edge: Site) -> None:
    facts = edge.platform.facts()
    assert facts["platform"] == "kubernetes"
    assert facts["kubernetes.version"].startswith("v1.")
    assert facts["os"] == "linux" and facts["arch"] in ("amd64", "arm64")
