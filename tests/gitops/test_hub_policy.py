"""The policy language through the hub: facts decide, variants stick, a handover waits, needs reach the manifests."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.wire.release import decode_release
from agent.wire.report import EntryReport, Report
from gitops.decisions import DecisionRecord, Placed, decode_all, encode_all
from gitops.demo.documents import cluster, document, placement
from gitops.hub import World
from gitops.opening import Opened
from tests.gitops.test_hub import NOW, Repository, opened, repository
from tests.gitops.test_render import catalog, digits

__all__ = ["repository"]
GIB = 1 << 30


def step(fleet: Opened, hours: float = 0, reports: Any = None, **facts: int) -> Any:
    fleet.sources.look_again()
    now = NOW + timedelta(hours=hours)
    known = {
        name.replace("_", "-"): {"memory.capacity": (str(memory), now), "platform": ("host", now)}
        for name, memory in facts.items()
    }
    found = fleet.hub.step(World(now, facts=known, reports=reports or {}))
    fleet.hub.publish(found)
    return found


def entries(fleet: Opened, name: str) -> dict[str, Any]:
    release = decode_release(fleet.repository.overlay(name)["release.json"])
    return {entry.name: entry for entry in release.entries}


def test_a_fact_admits_once_and_its_jitter_moves_nothing(tmp_path: Path, repository: Repository) -> None:
    term = {"facts": [{"name": "memory.capacity", "operator": ">=", "value": "2Gi"}]}
    repository.commit(placement("digits", model="digits", clusters=[term]))
    fleet = opened(tmp_path, repository)
    step(fleet, milan_01=3 * GIB, turin_01=GIB)
    assert "digits" in entries(fleet, "milan-01") and "digits" not in entries(fleet, "turin-01")
    head = fleet.repository.head
    for hours, memory in ((1, GIB), (2, 3 * GIB), (30, GIB)):
        assert not step(fleet, hours, milan_01=memory, turin_01=GIB).moves
    assert fleet.repository.head == head
    assert not step(opened(tmp_path, repository), 31, turin_01=GIB).moves, "nor does a fact that is gone"


def test_a_variant_goes_to_the_smaller_site_and_sticks_over_a_restart(tmp_path: Path, repository: Repository) -> None:
    spec = {
        "artifact": {"path": "digits.onnx"},
        "variants": [{"name": "int8", "artifact": {"path": "small.onnx"}, "needs": {"memory": "512Mi"}}],
    }
    metadata = {"name": "digits", "version": "1.0.0"}
    whole = {"apiVersion": "edgeferry.dev/v1alpha1", "kind": "ModelVersion", "metadata": metadata, "spec": spec}
    repository.commit(
        {
            "models/digits/versions/1.0.0/version.yaml": json.dumps(whole),
            "models/digits/versions/1.0.0/small.onnx": b"small",
            "models/digits/model.yaml": document("Model", "digits", {"delivery": "file", "needs": {"memory": "2Gi"}}),
            **placement("digits", model="digits", clusters=[{"names": ["milan-01", "turin-01"]}]),
        }
    )
    fleet = opened(tmp_path, repository)
    step(fleet, milan_01=4 * GIB, turin_01=GIB)
    big, small = entries(fleet, "milan-01")["digits"], entries(fleet, "turin-01")["digits"]
    assert big.artifacts[0].digest != small.artifacts[0].digest and big.version == small.version
    record = fleet.hub._ledger.records["digits"]
    assert {name: one.variant for name, one in record.chosen.items()} == {"milan-01": "", "turin-01": "int8"}
    again = opened(tmp_path, repository)
    assert not step(again, 1, milan_01=4 * GIB, turin_01=8 * GIB).moves


def test_what_is_left_waits_until_what_comes_reports_it_current(tmp_path: Path, repository: Repository) -> None:
    rule = {"clusters": [{"matchLabels": {"line": "weld"}}], "handover": "make-before-break"}
    repository.commit(
        {
            **cluster("milan-01", line="weld"),
            **cluster("turin-01", line="pack"),
            **placement("digits", model="digits", **rule),
        }
    )
    fleet = opened(tmp_path, repository)
    step(fleet)
    repository.commit({**cluster("milan-01", line="pack"), **cluster("turin-01", line="weld")})
    step(fleet, 1)
    assert "digits" in entries(fleet, "milan-01") and "digits" in entries(fleet, "turin-01")
    fleet = opened(tmp_path, repository)
    assert not step(fleet, 2).moves, "also another process waits"
    entry = entries(fleet, "turin-01")["digits"]

    def told(health: Any) -> dict[str, Any]:
        line = EntryReport("model", "digits", "1.0.0", entry.digest, entry.digest, health)
        return {"turin-01": (Report("f", "turin-01", "i", 1, NOW, entries=(line,)), NOW)}

    assert not step(fleet, 3, told("progressing")).moves
    step(fleet, 4, told("current"))
    assert "digits" not in entries(fleet, "milan-01") and "digits" in entries(fleet, "turin-01")


def test_a_decision_is_read_back_as_it_was_written() -> None:
    at = NOW.replace(microsecond=0)
    chosen = {
        "a": Placed("1.0.0", "sha256:" + "1" * 64, "int8", at, True, False),
        "b": Placed("1.0.0", "sha256:" + "2" * 64, leaving=True),
        "c": Placed("", ""),
    }
    record = DecisionRecord("p", "model", "digits", "1.0.0", chosen=chosen)
    assert decode_all("p", encode_all(record)) == record
    assert b"variant" not in b"".join(
        encode_all(DecisionRecord("p", "model", "d", "1.0.0", chosen={"c": chosen["c"]})).values()
    )


NEEDS = {
    "memory": "512Mi", "cpu": 2, "accelerator": {"kind": "nvidia", "count": 2}, "arch": ["arm64", "amd64"],
    "limits": {"memory": "1Gi"},
}  # fmt: skip


@pytest.mark.parametrize("version", ["1.0.0"])
def test_needs_become_requests_limits_and_node_affinity(version: str) -> None:
    made = digits(catalog(needs=NEEDS), version)
    pod = yaml.safe_load(made.files["models/digits/deployment.yaml"])["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == {
        "requests": {"memory": "512Mi", "cpu": "2", "nvidia.com/gpu": "2"},
        "limits": {"memory": "1Gi", "nvidia.com/gpu": "2"},
    }
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]}]
    plain = yaml.safe_load(digits(catalog()).files["models/digits/deployment.yaml"])["spec"]["template"]["spec"]
    assert "affinity" not in plain and "resources" not in plain["containers"][0]


def test_a_placement_s_nodes_reach_the_pods(tmp_path: Path, repository: Repository) -> None:
    nodes = {"matchLabels": {"pool": "vision"}, "matchExpressions": [{"key": "old", "operator": "DoesNotExist"}]}
    image = "registry.example/onnx@sha256:" + "a" * 64
    repository.commit(
        {
            "runtimes/onnx.yaml": document("Runtime", "onnx", {"image": image}),
            **placement("digits", model="digits", clusters=[{"names": ["milan-01"]}], nodes=nodes),
        }
    )
    fleet = opened(tmp_path, repository)
    step(fleet)
    pod = yaml.safe_load(fleet.repository.overlay("milan-01")["models/digits/deployment.yaml"])["spec"]["template"][
        "spec"
    ]
    assert json.dumps(pod["affinity"]).count('"pool"') == 1
    assert '{"key": "old", "operator": "DoesNotExist"}' in json.dumps(pod["affinity"])
