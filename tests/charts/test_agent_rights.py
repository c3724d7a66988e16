"""The account of charts/agent on a real API server: with its rights the agent does everything, and it has no more."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.actions import Announce, ModelPoint, Remove
from agent.platforms.kubernetes_errors import OutOfScope, RightMissing
from tests.agent.platforms.chart_site import staged_chart
from tests.agent.platforms.kubernetes_site import Site, config_map, deployment, service, site, staged
from tests.charts.test_agent_chart import rendered
from tests.cluster import binary
from tests.cluster.control_plane import ControlPlane

pytestmark = pytest.mark.cluster

Rights = set[tuple[str, str, str]]
"""(verb, API group, resource)."""


@dataclass(frozen=True)
class Joined:
    """An agent with the chart's account."""

    edge: Site
    home: str
    account: str
    kubectl: list[str]
    objects: list[dict[str, Any]]


@pytest.fixture
def joined(
    api_server: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Joined]:
    home = f"{namespace}-agent"
    objects = rendered(f"--set=namespaces={{{namespace}}}", "--set=charts=true", f"--namespace={home}")
    objects = [one for one in objects if one["kind"] not in ("Deployment", "Secret")]
    kubectl = [str(api_server.binary.parent / "kubectl"), "--kubeconfig", str(api_server.kubeconfig)]
    for one in objects:
        if one["kind"] in ("ServiceAccount", "Role", "RoleBinding", "NetworkPolicy"):
            one["metadata"].setdefault("namespace", home)
    made = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": home}}]
    made += sorted(objects, key=lambda one: one["kind"] != "Namespace")
    applied = "---\n".join(yaml.safe_dump(one) for one in made)
    done = subprocess.run([*kubectl, "apply", "-f", "-"], input=applied, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    command = [*kubectl, "create", "token", "edgeferry-agent", "-n", home]
    token = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    value = yaml.safe_load(api_server.kubeconfig.read_text())
    value["users"][0]["user"] = {"token": token.strip()}
    value["contexts"][0]["context"]["namespace"] = home
    kubeconfig = tmp_path / "agent.kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(value))
    helm = binary.find(binary.helm("amd64" if os.uname().machine == "x86_64" else "arm64"))
    monkeypatch.setenv("PATH", f"{helm.parent}{os.pathsep}{os.environ['PATH']}")
    with site(api_server, tmp_path / "state", namespace, kubeconfig=kubeconfig) as edge:
        yield Joined(edge, home, f"system:serviceaccount:{home}:edgeferry-agent", kubectl, objects)
    cluster_wide = [one for one in objects if one["kind"].startswith("ClusterRole")]
    text = "---\n".join(yaml.safe_dump(one) for one in cluster_wide)
    subprocess.run([*kubectl, "delete", "-f", "-"], input=text, text=True, check=True, capture_output=True)


def test_with_the_chart_s_rights_every_delivery_is_brought_mended_and_removed(joined: Joined, tmp_path: Path) -> None:
    edge, trees = joined.edge, tmp_path / "trees"
    model = staged(edge.namespace, deployment(), service(), config_map("settings", a="1"))
    edge.switch(model)
    edge.delete("Service", "defect-detector")
    edge.until_drift(model)
    edge.repair(model)
    edge.platform.execute(Announce(edge.namespace, (ModelPoint("defect-detector", "2.1.0", "http://x"),)))
    one, two = staged_chart(trees, edge.namespace), staged_chart(trees, edge.namespace, "2.0.0")
    edge.switch(one)
    edge.switch(two, one)
    edge.switch(one, two)
    edge.edit("ConfigMap", "reader-settings", {"data": {"text": "mine"}})
    edge.until(lambda observed: any(seen.drift for seen in observed.seen), one, model)
    edge.repair(one)
    assert edge.platform.facts()["platform"] == "kubernetes"
    for name in ("reader", "defect-detector"):
        edge.platform.execute(Remove("model", name))
    edge.platform.execute(Announce(edge.namespace, ()))
    for kind in ("ConfigMap", "Service", "Secret"):
        left = edge.person.list(edge.person.resource("v1", kind), edge.namespace)["items"]
        assert [each["metadata"]["name"] for each in left if each["metadata"]["name"] != "kube-root-ca.crt"] == []


def test_the_account_has_exactly_the_rights_of_the_chart(joined: Joined) -> None:
    for place in (joined.edge.namespace, joined.home):
        wanted: Rights = set()
        for one in joined.objects:
            here = one["metadata"].get("namespace", joined.home) == place
            if one["kind"] == "ClusterRole" or (one["kind"] == "Role" and here):
                wanted |= rights(one["rules"])
        assert granted(joined, place) - granted(joined, "kube-system") == wanted - rights(
            [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]}]
        )


def test_elsewhere_the_agent_may_only_look_at_nodes(joined: Joined) -> None:
    assert {one for one in granted(joined, "default") if one[1] != "authorization.k8s.io"} == {
        ("get", "", "nodes"),
        ("list", "", "nodes"),
        *(("create", "authentication.k8s.io", "selfsubjectreviews"),),
    }
    with pytest.raises(RightMissing):
        joined.edge.switch(staged("default", config_map("a"), config_map("b"), name="elsewhere"))
    with pytest.raises(OutOfScope):
        joined.edge.switch(
            staged(joined.edge.namespace, config_map("a") | {"metadata": {"name": "a", "namespace": "b"}})
        )


def rights(rules: list[dict[str, Any]]) -> Rights:
    return {
        (verb, group, resource)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule.get("apiGroups") or ()
        for resource in rule.get("resources") or ()
    }


def granted(joined: Joined, place: str) -> Rights:
    """Return what the API server says that the account may do in a namespace."""
    command = [*joined.kubectl, "create", f"--as={joined.account}", "--as-group=system:authenticated"]
    command += ["--validate=false", "-f", "-", "-o", "yaml"]
    asked = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": place},
    }
    done = subprocess.run(command, input=yaml.safe_dump(asked), text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return rights(yaml.safe_load(done.stdout)["status"]["resourceRules"])
