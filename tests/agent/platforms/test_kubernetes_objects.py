"""Manifests in, live objects in: what is wanted, and what is ours."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from agent.actions import ModelPoint, Staged
from agent.platforms.kubernetes_errors import ManifestUnusable, fault
from agent.platforms.kubernetes_fields import changes, own_data, own_digest
from agent.platforms.kubernetes_models import models_digest, models_file, read_models_file
from agent.platforms.kubernetes_objects import Key, Resource, in_order, rank, read, wanted
from agent.wire.release import Entry, ModelUse

CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps", True)
DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments", True)


def files(text: str) -> Staged:
    return Staged(Entry("workload", "w", "1.0.0", "manifests"), {"workloads/w/a.yaml": text.encode("latin-1")})


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "\tx: 1",
        "x: \x00",
        "- 1",
        "text",
        "kind: ConfigMap\napiVersion: v1",
        "kind: ConfigMap\napiVersion: v1\nmetadata: {}",
        "kind: ConfigMap\napiVersion: v1\nmetadata: {generateName: x}",
        "kind: ConfigMap\napiVersion: 1\nmetadata: {name: x}",
        "kind: [x]\napiVersion: v1\nmetadata: {name: x}",
        "kind: List\napiVersion: v1\nmetadata: {name: x}\nitems: []",
        "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x, labels: {a: 1}}",
        "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x, annotations: [a]}",
        "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\nspec: [1]",
        "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\ndata: {when: 2026-01-01}",
        "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\ndata: !!python/object:os.system {}",
        f"kind: ConfigMap\napiVersion: v1\nmetadata: {{name: x}}\n{BOMB}",
        "&a {kind: ConfigMap, apiVersion: v1, metadata: {name: x}, data: *a}",
        "[" * 100_000,
        "{a: " * 100_000,
        "- " * 100_000,
        "? " * 100_000,
        ("- " * 100_000).encode("utf-16").decode("latin-1"),
    ],
    ids=lambda text: text[:30].encode("ascii", "backslashreplace").decode().replace("\n", " "),
)
def test_what_is_no_manifest_is_refused_with_its_file(text: str) -> None:
    with pytest.raises(ManifestUnusable, match=r"^workloads/w/a.yaml: EF4211"):
        read(files(text))


def test_aliases_as_our_own_renderer_writes_them_are_read() -> None:
    labels = {"a": "b"}
    one = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "labels": labels}, "data": labels}
    text = yaml.dump(one, Dumper=yaml.CSafeDumper)
    assert "*id001" in text
    assert read(files(text)) == (one,)


def test_several_documents_and_empty_ones_are_read_in_order() -> None:
    one = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: %s}\n"
    found = read(files(f"---\n{one % 'a'}---\n---\n{one % 'b'}"))
    assert [raw["metadata"]["name"] for raw in found] == ["a", "b"]


def test_files_that_are_no_manifests_are_left_alone() -> None:
    assert read(Staged(Entry("model", "m", "1.0.0", "server"), {"models/m/selftest/input.json": b"{"})) == ()


def test_what_is_applied_is_in_its_namespace_ours_and_free_of_the_servers_fields() -> None:
    raw = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x", "uid": "u", "resourceVersion": "3", "labels": {"a": "b"}},
        "status": {"x": 1},
    }
    made = wanted(raw, CONFIG_MAPS, "robots")
    assert made.key == Key("", "ConfigMap", "robots", "x")
    assert made.body["metadata"] == {
        "name": "x",
        "namespace": "robots",
        "labels": {"a": "b", "app.kubernetes.io/managed-by": "edgeferry"},
    }
    assert "status" not in made.body
    assert raw["metadata"]["uid"] == "u", "what was read is not changed"


def test_only_pod_templates_carry_the_models() -> None:
    raw = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"template": {"spec": {}}}}
    made = wanted(raw, DEPLOYMENTS, "robots", "d1")
    assert made.body["spec"]["template"]["metadata"]["annotations"] == {"edgeferry.dev/models": "d1"}
    assert made.digest != wanted(raw, DEPLOYMENTS, "robots", "d2").digest
    plain = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
    assert wanted(plain, CONFIG_MAPS, "r", "d1") == wanted(plain, CONFIG_MAPS, "r")


def test_what_others_stand_on_comes_first() -> None:
    kinds = [
        "HorizontalPodAutoscaler",
        "Ingress",
        "Deployment",
        "Lens",
        "Service",
        "PersistentVolumeClaim",
        "ConfigMap",
    ]
    kinds += ["RoleBinding", "Role", "ServiceAccount", "CustomResourceDefinition", "Namespace"]
    objects = [
        wanted({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}}, Resource("v1", kind, "x", True), "n")
        for kind in kinds
    ]
    assert [one.key.kind for one in in_order(objects)] == [
        *reversed(kinds[8:]),
        *["RoleBinding", "ConfigMap", "PersistentVolumeClaim", "Service", "Lens", "Deployment", "Ingress"],
        "HorizontalPodAutoscaler",
    ]
    assert rank(objects[0].key) > rank(objects[1].key)


def live(value: dict[str, Any], fields: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    ours = {"manager": "edgeferry", "operation": "Apply", "fieldsV1": fields}
    return {"apiVersion": "v1", "kind": "X", "metadata": {"name": "x", "managedFields": [*others, ours]}, **value}


FIELDS = {
    "f:spec": {
        "f:replicas": {},
        "f:containers": {'k:{"name":"a"}': {".": {}, "f:name": {}, "f:image": {}}},
        "f:finalizers": {'v:"keep"': {}},
        "f:empty": {},
    }
}
SPEC = {
    "replicas": 1,
    "containers": [{"name": "side"}, {"name": "a", "image": "i:1", "pullPolicy": "Always"}],
    "finalizers": ["keep", "theirs"],
    "empty": {},
}


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        ({}, False),
        ({"defaulted": 7}, False),
        ({"containers": [{"name": "a", "image": "i:1", "pullPolicy": "Never"}]}, False),
        ({"finalizers": ["theirs", "keep"]}, False),
        ({"replicas": 2}, True),
        ({"containers": [{"name": "a", "image": "i:2"}]}, True),
        ({"containers": []}, True),
        ({"containers": None}, True),
        ({"finalizers": ["theirs"]}, True),
    ],
)
def test_only_our_fields_count(change: dict[str, Any], noticed: bool) -> None:
    before = own_digest(live({"spec": SPEC, "status": {"x": 1}}, FIELDS))
    after = own_digest(live({"spec": {**SPEC, **change}, "status": {"x": 2}}, FIELDS))
    assert (before != after) == noticed


def test_a_field_that_somebody_took_counts_though_its_value_is_the_same() -> None:
    less = {"f:spec": {name: one for name, one in FIELDS["f:spec"].items() if name != "f:replicas"}}
    assert own_digest(live({"spec": SPEC}, FIELDS)) != own_digest(live({"spec": SPEC}, less))


def test_an_object_that_we_never_applied_has_nothing_of_ours() -> None:
    assert own_digest({"metadata": {"name": "x"}}) == ""
    update = {"manager": "edgeferry", "operation": "Update", "fieldsV1": FIELDS}
    assert own_digest({"metadata": {"name": "x", "managedFields": [update]}, "spec": SPEC}) == ""


def test_who_took_a_field_is_named_with_its_path() -> None:
    theirs = {"manager": "hpa", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}, "f:new": {}}}}
    less = {"f:spec": {name: one for name, one in FIELDS["f:spec"].items() if name != "f:replicas"}}
    assert changes({"spec": SPEC}, live({"spec": SPEC}, less, theirs)) == ["spec.replicas by hpa"]


def test_of_a_models_file_only_our_lines_are_read() -> None:
    value = {"data": {"A_VERSION": "1", "B_VERSION": "2"}}
    assert own_data(live(value, {"f:data": {"f:A_VERSION": {}}})) == {"A_VERSION": "1"}


def test_a_models_file_reads_back_as_it_was_written() -> None:
    points = (ModelPoint("a", "1.0.0", path="/p"), ModelPoint("defect-detector", "2.1.0", "http://x:1"))
    assert read_models_file(models_file("n", reversed(points))["data"]) == points  # type: ignore[arg-type]  # any order


def test_a_reload_is_no_restart() -> None:
    uses = (ModelUse("a", on_change="restart"), ModelUse("b", on_change="reload"), ModelUse("c", on_change="none"))
    entry = Entry("workload", "w", "1.0.0", "manifests", models=uses)

    def digest(a: str, b: str, c: str) -> str:
        return models_digest(entry, [ModelPoint("a", a), ModelPoint("b", b), ModelPoint("c", c), ModelPoint("d", "1")])

    assert digest("1", "1", "1") == digest("1", "2", "2") != digest("2", "1", "1")
    assert models_digest(Entry("workload", "w", "1.0.0", "manifests"), [ModelPoint("a", "1")]) == ""


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, b"", "EF4203 NotAuthenticated"),
        (403, b'{"message": "x is forbidden: exceeded quota: q"}', "EF4205 QuotaExceeded"),
        (
            403,
            b'{"message": "forbidden: cannot get resource \\"pods\\" in API group \\"\\" in the namespace \\"n\\""}',
            "grant the agent's account `get` on `pods` (core) in namespace n",
        ),
        (
            403,
            b'{"message": "forbidden: cannot list resource \\"nodes\\" in API group \\"\\" at the cluster scope"}',
            "grant the agent's account `list` on `nodes` (core) cluster-wide",
        ),
        (400, b'{"message": "admission webhook \\"w\\" denied the request: no"}', "EF4207 AdmissionRefused"),
        (500, b'{"message": "failed calling webhook \\"w\\": connection refused"}', "EF4202 ApiBusy"),
        (409, b"{}", "EF4214 ChangedMeanwhile"),
        (422, b'{"message": "x", "details": {"causes": [{"field": "spec.a"}]}}', "mend spec.a"),
        (400, b'{"message": "strict decoding error: unknown field \\"spec.b\\""}', "mend spec.b"),
        (429, b"", "EF4202 ApiBusy"),
        (503, b"<html>no backend</html>", "no backend"),
        (500, b"\xff\x00[1]", "EF4202 ApiBusy"),
    ],
)
def test_an_answer_is_told_as_the_fault_that_it_is(status: int, body: bytes, expected: str) -> None:
    assert expected in str(fault(status, body, {"Retry-After": "7"}, "patch", "Pod n/x"))
