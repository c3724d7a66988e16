"""charts/agent: what it asks for, and what it refuses. That it joins a cluster is shown by tests/scenarios."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import binary
from tests.cluster.fixtures import skip

pytestmark = pytest.mark.cluster

CHART = Path(__file__).parents[2] / "charts" / "agent"
NEEDED = ("--set=cluster=milan-01", "--set=hub.url=https://hub.example:8443")
CONFINED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        command = binary.find(binary.helm("amd64"))
    except binary.Unavailable as reason:
        skip(f"needs Helm: {reason}")
    return subprocess.run([command, *arguments], capture_output=True, text=True, check=False)


def rendered(*options: str) -> list[dict[str, Any]]:
    done = helm("template", "agent", str(CHART), "--namespace=edgeferry", "--kube-version=1.34.0", *NEEDED, *options)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def one(objects: list[dict[str, Any]], kind: str, name: str = "edgeferry-agent") -> dict[str, Any]:
    found = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, [f"{each['kind']}/{each['metadata']['name']}" for each in objects]
    return found[0]


def test_it_passes_helm_lint() -> None:
    done = helm("lint", "--strict", str(CHART), *NEEDED)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--set=hub.url=https://hub.example",), "cluster"),
        (("--set=cluster=milan-01", "--set=hub.url=hub.example"), "hub.url|/hub/url"),
        ((*NEEDED, "--set=scope=world"), "scope"),
        ((*NEEDED, "--set=state.hostPath=/"), "hostPath"),
        ((*NEEDED, "--set=imgae.tag=1"), "imgae"),
        ((*NEEDED, "--set=image.digest=latest"), "digest"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_value_is_refused_by_its_name(options: tuple[str, ...], said: str) -> None:
    done = helm("template", "agent", str(CHART), "--kube-version=1.34.0", *options)
    assert done.returncode != 0
    assert any(word in done.stderr for word in said.split("|")), done.stderr


def test_without_the_scope_of_a_cluster_there_is_no_right_over_it_but_looking_at_nodes() -> None:
    objects = rendered()
    rules = [rule for each in objects if each["kind"] == "ClusterRole" for rule in each["rules"]]
    assert rules == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]}]
    assert not [each for each in rendered("--set=facts.nodes=false") if each["kind"].startswith("ClusterRole")]


def test_it_works_in_the_named_namespaces_and_keeps_its_inventory_in_its_own() -> None:
    objects = rendered("--set=namespaces={robots,vision}")
    roles = {
        (each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects if each["kind"] == "Role"
    }
    assert roles == {("robots", "edgeferry-agent"), ("vision", "edgeferry-agent"), (None, "edgeferry-agent-inventory")}
    kept = {each["metadata"]["name"] for each in objects if each["kind"] == "Namespace"}
    assert kept == {"robots", "vision"}


def test_no_rule_reaches_roles_or_everything() -> None:
    rules = [rule for each in rendered() if each["kind"].endswith("Role") for rule in each["rules"]]
    for rule in rules:
        assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert not {"rbac.authorization.k8s.io", "admissionregistration.k8s.io"} & set(rule["apiGroups"])
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


def test_root_only_hands_over_the_directory() -> None:
    pod = one(rendered(), "Deployment")["spec"]["template"]["spec"]
    own, join = pod["initContainers"]
    assert own["securityContext"] == {
        **CONFINED,
        "runAsNonRoot": False,
        "runAsUser": 0,
        "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
    }
    assert [each["securityContext"] for each in (join, *pod["containers"])] == [CONFINED] * 2
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_the_token_is_in_a_secret_and_nowhere_else() -> None:
    objects = rendered("--set=token.value=s3cret-word")
    assert one(objects, "Secret", "edgeferry-agent-token")["stringData"] == {"token": "s3cret-word"}
    assert "s3cret-word" not in json.dumps([each for each in objects if each["kind"] != "Secret"])
    existing = rendered("--set=token.existingSecret=mine", "--set=token.value=s3cret-word")
    assert "s3cret-word" not in json.dumps(existing)


def test_nobody_may_connect_to_the_agent() -> None:
    assert one(rendered(), "NetworkPolicy")["spec"]["ingress"] == []


def test_secrets_are_only_reached_where_charts_may_be_delivered() -> None:
    def reached(*options: str) -> set[str | None]:
        return {
            each["metadata"].get("namespace")
            for each in rendered("--set=namespaces={robots}", *options)
            if each["kind"].endswith("Role") and any("secrets" in rule["resources"] for rule in each["rules"])
        }

    assert reached() == set()
    assert reached("--set=charts=true") == {"robots"}


def test_with_a_volume_nothing_is_root_and_nothing_of_the_node_is_mounted() -> None:
    objects = rendered("--set=state.kind=persistentVolumeClaim", "--set=state.storageClass=fast")
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    assert [each["name"] for each in pod["initContainers"]] == ["join"]
    assert "hostPath" not in json.dumps(pod["volumes"])
    claim = one(objects, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert claim["spec"]["storageClassName"] == "fast"


def test_the_hub_s_authority_is_pinned_where_its_hash_is_given() -> None:
    pinned = "sha256:" + "a" * 64
    join = one(rendered(f"--set=hub.caHash={pinned}"), "Deployment")["spec"]["template"]["spec"]["initContainers"][1]
    assert f"--ca-hash={pinned}" in join["args"]
