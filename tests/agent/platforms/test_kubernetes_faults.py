"""The platform on a real API server when something is missing, forbidden, away, or works against it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.actions import Remove, Switch
from agent.platforms.kubernetes_client import connect
from agent.platforms.kubernetes_errors import (
    AdmissionRefused,
    ApiUnreachable,
    ChangedMeanwhile,
    ClusterAccessUnknown,
    FieldImmutable,
    InventoryUnreadable,
    KindMissing,
    NamespaceEnding,
    NotAuthenticated,
    NothingToRun,
    ObjectInvalid,
    QuotaExceeded,
    RightMissing,
)
from agent.platforms.kubernetes_rights import check_rights
from tests.agent.platforms.kubernetes_site import Object, Site, config_map, deployment, service, site, staged
from tests.cluster import control_plane
from tests.cluster.control_plane import ControlPlane

pytestmark = pytest.mark.cluster
RBAC = "rbac.authorization.k8s.io/v1"


@pytest.fixture
def edge(api_server: ControlPlane, tmp_path: Path, namespace: str) -> Iterator[Site]:
    with site(api_server, tmp_path, namespace) as made:
        yield made


@pytest.fixture
def made_namespace(edge: Site) -> str:
    edge.person.request("POST", "/api/v1/namespaces", body={"metadata": {"name": edge.namespace}})
    return edge.namespace


def grant(edge: Site, user: str, *rules: Object) -> None:
    edge.write({"apiVersion": RBAC, "kind": "Role", "metadata": {"name": user}, "rules": list(rules)})
    edge.write(
        {
            "apiVersion": RBAC,
            "kind": "RoleBinding",
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }
    )


def test_a_missing_right_is_named_and_granting_it_helps(
    api_server: ControlPlane, tmp_path: Path, edge: Site, made_namespace: str
) -> None:
    kubeconfig = control_plane.certificate_kubeconfig(api_server, "bound", made_namespace)
    every = ["get", "list", "watch", "create", "patch", "update", "delete"]
    grant(edge, "bound", {"apiGroups": [""], "resources": ["configmaps"], "verbs": every})
    with site(api_server, tmp_path / "bound", made_namespace, kubeconfig=kubeconfig) as bound:
        bound.switch(staged(made_namespace, config_map("settings", a="1")))
        entry = staged(made_namespace, config_map("settings", a="1"), service())
        with pytest.raises(RightMissing, match=r"grant the agent's account `get` on `services` \(core\) in namespace"):
            bound.switch(entry)
        grant(edge, "bound", {"apiGroups": [""], "resources": ["configmaps", "services"], "verbs": every})
        bound.switch(entry)
        assert bound.seen(entry).health == "current"
        assert bound.platform.facts()["arch"] in ("amd64", "arm64")


def test_a_join_sees_beforehand_which_rights_are_missing(
    api_server: ControlPlane, tmp_path: Path, edge: Site, made_namespace: str
) -> None:
    kubeconfig = control_plane.certificate_kubeconfig(api_server, "joining", made_namespace)
    every = ["get", "list", "watch", "create", "patch", "delete"]
    rules = [{"apiGroups": [""], "resources": ["configmaps", "services"], "verbs": every}]
    grant(edge, "joining", *rules)
    api = connect(str(kubeconfig))
    with pytest.raises(RightMissing, match="deployments"):
        check_rights(api)
    grant(edge, "joining", *rules, {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": every})
    check_rights(api)
    api.close()


def test_a_right_that_is_taken_away_shows_at_the_next_look(
    api_server: ControlPlane, tmp_path: Path, edge: Site, made_namespace: str
) -> None:
    kubeconfig = control_plane.certificate_kubeconfig(api_server, "blind", made_namespace)
    grant(
        edge, "blind", {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get", "patch", "update"]}
    )
    with site(api_server, tmp_path / "blind", made_namespace, kubeconfig=kubeconfig) as blind:
        entry = staged(made_namespace, config_map("settings", a="1"))
        with pytest.raises(RightMissing, match=r"`list` on `configmaps`"):
            blind.seen(entry)


def test_unknown_credentials_are_told_from_missing_rights(
    api_server: ControlPlane, tmp_path: Path, namespace: str
) -> None:
    kubeconfig = control_plane.write_kubeconfig(api_server, "stranger", {"token": "not-a-token"}, namespace)
    with (
        site(api_server, tmp_path, namespace, kubeconfig=kubeconfig) as edge,
        pytest.raises(NotAuthenticated, match="kubeconfig") as caught,
    ):
        edge.platform.facts()
    assert "not-a-token" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "a: [", "kind: Config", '{"current-context": "x"}', "- 1"])
def test_an_unusable_kubeconfig_says_so(api_server: ControlPlane, tmp_path: Path, namespace: str, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with (
        site(api_server, tmp_path, namespace, kubeconfig=path) as edge,
        pytest.raises(ClusterAccessUnknown, match="kubeconfig"),
    ):
        edge.platform.observe([])


def definition(group: str) -> Object:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"lenses.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "lenses", "singular": "lens", "kind": "Lens"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def lens(group: str) -> Object:
    return {"apiVersion": f"{group}/v1", "kind": "Lens", "metadata": {"name": "wide"}, "spec": {"size": 3}}


def test_a_kind_that_is_missing_is_waited_for(edge: Site) -> None:
    group = f"{edge.namespace}.example.com"
    entry = staged(edge.namespace, config_map("settings", a="1"), lens(group), kind="workload")
    with pytest.raises(KindMissing, match=f"Lens.{group}/v1"):
        edge.switch(entry)
    assert edge.get("ConfigMap", "settings") is None
    edge.write(definition(group))
    edge.until(lambda _: _works(lambda: edge.switch(entry)))
    assert edge.get("Lens", "wide", f"{group}/v1")
    assert edge.seen(entry).health == "current"


def test_a_definition_that_is_deleted_takes_its_objects_out_of_sight_only(edge: Site) -> None:
    group = f"{edge.namespace}.example.com"
    edge.write(definition(group))
    entry = staged(edge.namespace, lens(group), config_map("settings", a="1"), kind="workload")
    edge.until(lambda _: _works(lambda: edge.switch(entry)))
    edge.seen(entry)
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/lenses.{group}"
    edge.person.request("DELETE", path)
    assert "Lens" in edge.until_drift(entry)
    definitions = edge.person.resource("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    edge.until(lambda _: edge.person.get(definitions, "", f"lenses.{group}") is None)
    edge.write(definition(group))
    edge.until(lambda _: _works(lambda: edge.repair(entry)))
    edge.until(lambda observed: observed.seen[0].drift == "", entry)


def test_definition_and_object_may_come_in_one_entry(api_server: ControlPlane, tmp_path: Path, namespace: str) -> None:
    group = f"{namespace}.example.com"
    with site(api_server, tmp_path, namespace, scope="cluster") as edge:
        entry = staged(namespace, lens(group), definition(group), kind="workload")
        edge.switch(entry)
        edge.until_health("current", entry)
        edge.platform.execute(Remove("workload", "defect-detector"))


def _works(attempt: object) -> bool:
    try:
        attempt()  # type: ignore[operator]  # a lambda
    except (KindMissing, ChangedMeanwhile):
        return False
    return True


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from agent.actions import Switch
    from agent.config import Config
    from agent.platforms.kubernetes import KubernetesPlatform
    from agent.platforms.kubernetes_client import Api
    from tests.agent.platforms.kubernetes_site import config_map, staged

    state, kubeconfig, namespace, number = sys.argv[1:]
    left = int(number)
    ask = Api.request

    def dies(self, method, path, query=None, body=None, **more):
        global left
        if method != "GET" and "dryRun" not in (query or {}):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return ask(self, method, path, query, body, **more)

    Api.request = dies
    platform = KubernetesPlatform(Path(state), Config(namespace, "fleet-1", "kubernetes", kubeconfig=kubeconfig))
    old = staged(namespace, config_map("a", x="1"), config_map("b", x="1"), config_map("gone", x="1"))
    new = staged(namespace, config_map("a", x="2"), config_map("b", x="1"), config_map("c", x="1"))
    platform.execute(Switch(new, old))
    print("done")
"""


@pytest.mark.parametrize("writes", range(7))
def test_killed_after_any_write_the_next_agent_brings_it_to_its_end(edge: Site, writes: int) -> None:
    old = staged(edge.namespace, config_map("a", x="1"), config_map("b", x="1"), config_map("gone", x="1"))
    new = staged(edge.namespace, config_map("a", x="2"), config_map("b", x="1"), config_map("c", x="1"))
    edge.switch(old)
    edge.platform.close()
    arguments = [str(edge.state), str(edge.cluster.kubeconfig), edge.namespace, str(writes)]
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        check=False,
    )
    assert ended.returncode == (-signal.SIGKILL if writes < 6 else 0), ended.stderr
    edge.restart()
    between = edge.seen(new, old)
    assert between.serving and between.digest == (old.digest if writes < 6 else new.digest)
    assert bool(between.drift) == (0 < writes < 6)
    edge.switch(new, old)
    assert (edge.seen(new, old).digest, edge.seen(new, old).drift) == (new.digest, "")
    assert edge.get("ConfigMap", "gone") is None
    edge.platform.execute(Remove("model", "defect-detector"))
    assert [edge.get("ConfigMap", name) for name in ("a", "b", "c", "gone")] == [None] * 4


def test_an_agent_that_lost_its_disk_and_its_inventory_takes_up_what_it_made(edge: Site) -> None:
    entry = staged(edge.namespace, config_map("settings", a="1"))
    edge.switch(entry)
    listed = edge.person.list(edge.person.resource("v1", "ConfigMap"), "default", "edgeferry.dev/inventory")
    for one in listed["items"]:
        if edge.namespace in one["data"]["record"]:
            edge.person.request("DELETE", f"/api/v1/namespaces/default/configmaps/{one['metadata']['name']}")
    edge.restart()
    assert edge.platform.observe([entry]).seen == ()
    edge.switch(entry)
    assert edge.seen(entry).health == "current"


def test_a_spoiled_inventory_stops_and_removes_nothing(edge: Site) -> None:
    entry = staged(edge.namespace, config_map("settings", a="1"))
    edge.switch(entry)
    configs = edge.person.resource("v1", "ConfigMap")
    listed = edge.person.list(configs, "default", "edgeferry.dev/inventory")
    mine = next(one for one in listed["items"] if edge.namespace in one["data"]["record"])
    path = configs.path("default", mine["metadata"]["name"])
    kind = "application/merge-patch+json"
    for record in ("", "{", "[]", json.dumps({"format": 2}), json.dumps({"format": 1, "objects": [["x"]]})):
        edge.person.request("PATCH", path, body={"data": {"record": record}}, kind=kind)
        edge.restart()
        with pytest.raises(InventoryUnreadable, match="ConfigMap default/inventory-model-defect-detector"):
            edge.platform.observe([entry])
        with pytest.raises(InventoryUnreadable):
            edge.platform.execute(Remove("model", "defect-detector"))
    edge.person.request("DELETE", path)
    assert edge.get("ConfigMap", "settings")


def test_two_agents_with_one_name_do_not_both_write(edge: Site, api_server: ControlPlane, tmp_path: Path) -> None:
    edge.switch(staged(edge.namespace, config_map("settings", a="1")))
    with site(api_server, tmp_path / "other", edge.namespace) as other:
        other.switch(staged(edge.namespace, config_map("settings", a="2")))
        entry = staged(edge.namespace, config_map("settings", a="3"))
        with pytest.raises(ChangedMeanwhile):
            edge.switch(entry)
        edge.switch(entry)
        live = edge.get("ConfigMap", "settings")
        assert live and live["data"] == {"a": "3"}


def test_a_fight_with_another_controller_gets_rarer_and_is_told(edge: Site) -> None:
    entry = staged(edge.namespace, config_map("settings", a="1"))
    edge.switch(entry)
    for _ in range(3):
        edge.edit("ConfigMap", "settings", {"data": {"a": "2"}})
        edge.until_drift(entry)
        edge.repair(entry)
    edge.edit("ConfigMap", "settings", {"data": {"a": "2"}})
    seen = edge.until(lambda observed: observed.seen[0].message != "", entry).seen[0]
    assert seen.drift == ""
    assert "data.a by kubectl-edit, again after 3 corrections" in seen.message
    edge.now[0] += 16
    assert "data.a" in edge.until_drift(entry)


def test_an_api_server_that_is_away_is_no_healthy_site(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tests.cluster.fixtures import binary_or_skip

    folder = tmp_path_factory.mktemp("own-api")
    cluster = control_plane.create(folder, binary_or_skip(), controllers=False, dies_with_us=True)
    try:
        with site(cluster, tmp_path, "models") as edge:
            entry = staged("models", config_map("settings", a="1"), service())
            edge.switch(entry)
            assert edge.seen(entry).health == "current"
            control_plane.stop_api_server(cluster)
            _until_raises(edge, entry)
            with pytest.raises(ApiUnreachable):
                edge.platform.execute(Switch(staged("models", config_map("settings", a="2")), entry))
            control_plane.start_api_server(cluster)
            edge.write(config_map("settings", a="by somebody"))
            control_plane.compact(cluster)
            _until_seen(edge, entry)
            assert "data.a" in edge.until_drift(entry)
            edge.repair(entry)
            assert edge.seen(entry).drift == ""
    finally:
        control_plane.destroy(cluster)


def _until_raises(edge: Site, entry: object) -> None:
    def away(_: object) -> bool:
        try:
            edge.platform.observe([entry])  # type: ignore[list-item]  # a Staged
        except ApiUnreachable:
            return True
        return False

    edge_now = threading.Event()
    for _ in range(500):
        if away(None):
            return
        edge_now.wait(0.02)
    raise AssertionError("a dead API server is shown as alive")


def _until_seen(edge: Site, entry: object) -> None:
    pause = threading.Event()
    for _ in range(1000):
        try:
            edge.platform.observe([entry])  # type: ignore[list-item]  # a Staged
            return
        except ApiUnreachable:
            pause.wait(0.02)
    raise AssertionError("the agent does not find back")


def test_a_quota_is_told_as_one(edge: Site, made_namespace: str) -> None:
    edge.write(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"services": "0"}}}
    )
    edge.edit("ResourceQuota", "q", {"status": {"hard": {"services": "0"}, "used": {"services": "0"}}}, sub="/status")
    with pytest.raises(QuotaExceeded, match="exceeded quota"):
        edge.switch(staged(edge.namespace, service()))


def test_a_policy_of_the_cluster_is_told_as_one(edge: Site, made_namespace: str) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": edge.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    edge.write(body)
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"hostNetwork": True, "containers": [{"name": "x", "image": "x"}]},
    }
    with pytest.raises(AdmissionRefused, match="violates PodSecurity"):
        edge.switch(staged(edge.namespace, pod, kind="workload"))


def test_an_invalid_value_is_named_by_its_field(edge: Site) -> None:
    with pytest.raises(ObjectInvalid, match=r"mend spec.ports\[0\].port"):
        edge.switch(staged(edge.namespace, service(port=99999)))


def test_a_field_that_may_not_change_says_what_to_do(edge: Site) -> None:
    def job(image: str, **annotations: str) -> Object:
        spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "x", "image": image}]}}}
        metadata = {
            "name": "once",
            "annotations": {f"edgeferry.dev/{name}": value for name, value in annotations.items()},
        }
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}

    edge.switch(staged(edge.namespace, job("one"), kind="workload"))
    with pytest.raises(FieldImmutable, match=r"edgeferry.dev/recreate"):
        edge.switch(staged(edge.namespace, job("two"), kind="workload"))
    before = edge.get("Job", "once", "batch/v1")
    entry = staged(edge.namespace, job("two", recreate="true"), kind="workload")
    edge.switch(entry)
    after = edge.get("Job", "once", "batch/v1")
    assert before and after and before["metadata"]["uid"] != after["metadata"]["uid"]
    assert edge.seen(entry).drift == ""


def test_a_namespace_that_is_ending_is_waited_for(edge: Site) -> None:
    entry = staged(edge.namespace, config_map("settings", a="1"))
    edge.switch(entry)
    edge.delete("ConfigMap", "settings")
    edge.person.request("DELETE", f"/api/v1/namespaces/{edge.namespace}")
    edge.until_drift(entry)
    with pytest.raises(NamespaceEnding):
        edge.repair(entry)


def test_a_workload_for_hosts_only_says_so(edge: Site) -> None:
    with pytest.raises(NothingToRun, match="no manifests"):
        edge.switch(staged(edge.namespace, kind="workload"))


def test_pods_say_why_a_deployment_does_not_get_there(edge: Site) -> None:
    entry = staged(edge.namespace, deployment())
    edge.switch(entry)
    edge.edit(
        "Deployment", "defect-detector", {"status": {"replicas": 1, "observedGeneration": 1}}, "apps/v1", "/status"
    )
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "defect-detector-1", "labels": {"edgeferry.dev/model": "defect-detector"}},
        "spec": {"containers": [{"name": "model", "image": "registry.example/model:1"}]},
    }
    edge.write(pod)
    container = {
        "name": "model",
        "ready": False,
        "restartCount": 4,
        "image": "x",
        "imageID": "",
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}},
    }
    edge.edit("Pod", "defect-detector-1", {"status": {"containerStatuses": [container]}}, sub="/status")
    seen = edge.until_health("degraded", entry)
    assert "CrashLoopBackOff: exit code 3, 4 restarts" in seen.message


def test_a_quiet_look_asks_the_api_server_nothing(edge: Site) -> None:
    entry = staged(edge.namespace, config_map("settings", a="1"), service())
    edge.switch(entry)
    first = edge.platform.observe([entry])
    asked: list[str] = []
    sys.setprofile(None)
    api = edge.platform._cluster().api
    ask = api.request
    api.request = lambda *a, **k: asked.append(a[1]) or ask(*a, **k)  # type: ignore[method-assign,func-returns-value]
    assert edge.platform.observe([entry]) is first
    assert asked == []


def test_a_thousand_objects_are_applied_seen_and_removed(edge: Site) -> None:
    objects = [config_map(f"c{number}", x=str(number)) for number in range(1000)]
    entry = staged(edge.namespace, *objects, kind="workload")
    edge.switch(entry)
    assert edge.seen(entry).health == "current"
    edge.switch(staged(edge.namespace, *objects[1:], config_map("c0", x="changed"), kind="workload"), entry)
    edge.platform.execute(Remove("workload", "defect-detector"))
    left = edge.person.list(edge.person.resource("v1", "ConfigMap"), edge.namespace, "edgeferry.dev/workload")
    assert left["items"] == []
