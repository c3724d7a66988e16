"""The rules of kstatus, on objects as a cluster writes them."""

from __future__ import annotations

from typing import Any

import pytest

from agent.platforms.kubernetes_health import judge, judge_pods, worst

APPS = "apps/v1"
UP = {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3}
AVAILABLE = [{"type": "Available", "status": "True"}]


def live(api_version: str, kind: str, spec: Any = None, status: Any = None, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "x", "generation": 2, **metadata},
        "spec": spec or {},
        "status": status or {},
    }


def condition(kind: str, status: str, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, "reason": reason, "message": message}]}


CASES = {
    "deployment, up": (live(APPS, "Deployment", {"replicas": 3}, UP | {"conditions": AVAILABLE}), "current", ""),
    "deployment, scaled to zero": (live(APPS, "Deployment", {"replicas": 0}, {"observedGeneration": 2}), "current", ""),
    "deployment, nobody looked yet": (live(APPS, "Deployment", {"replicas": 0}), "progressing", "no controller"),
    "deployment, older generation": (
        live(APPS, "Deployment", {"replicas": 3}, UP | {"observedGeneration": 1}),
        "progressing",
        "generation 2",
    ),
    "deployment, half updated": (
        live(APPS, "Deployment", {"replicas": 3}, UP | {"updatedReplicas": 1}),
        "progressing",
        "1 of 3 replicas are of this version",
    ),
    "deployment, old pods left": (
        live(APPS, "Deployment", {"replicas": 3}, UP | {"replicas": 4}),
        "progressing",
        "1 replicas of the version before",
    ),
    "deployment, not ready": (
        live(APPS, "Deployment", {"replicas": 3}, UP | {"readyReplicas": 2}),
        "progressing",
        "2 of 3 replicas are ready",
    ),
    "deployment, too late": (
        live(APPS, "Deployment", {}, UP | condition("Progressing", "False", "ProgressDeadlineExceeded", "timed out")),
        "degraded",
        "timed out",
    ),
    "deployment, pods may not be made": (
        live(APPS, "Deployment", {}, condition("ReplicaFailure", "True", "FailedCreate", "exceeded quota: q")),
        "degraded",
        "exceeded quota",
    ),
    "stateful set, up": (
        live(APPS, "StatefulSet", {"replicas": 3}, UP | {"currentRevision": "a", "updateRevision": "a"}),
        "current",
        "",
    ),
    "stateful set, rolling": (
        live(APPS, "StatefulSet", {"replicas": 3}, UP | {"currentRevision": "a", "updateRevision": "b"}),
        "progressing",
        "version before",
    ),
    "stateful set, partitioned": (
        live(
            APPS,
            "StatefulSet",
            {"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}},
            UP | {"updatedReplicas": 1, "currentRevision": "a", "updateRevision": "b"},
        ),
        "current",
        "",
    ),
    "daemon set, up": (
        live(
            APPS,
            "DaemonSet",
            {},
            {
                "observedGeneration": 2,
                "desiredNumberScheduled": 2,
                "updatedNumberScheduled": 2,
                "numberAvailable": 2,
                "numberReady": 2,
            },
        ),
        "current",
        "",
    ),
    "daemon set, one node behind": (
        live(
            APPS,
            "DaemonSet",
            {},
            {
                "observedGeneration": 2,
                "desiredNumberScheduled": 2,
                "updatedNumberScheduled": 1,
                "numberAvailable": 2,
                "numberReady": 2,
            },
        ),
        "progressing",
        "1 of 2 nodes",
    ),
    "replica set, short": (
        live(
            APPS, "ReplicaSet", {"replicas": 2}, {"observedGeneration": 2, "availableReplicas": 1, "readyReplicas": 1}
        ),
        "progressing",
        "1 of 2",
    ),
    "job, not started": (live("batch/v1", "Job"), "progressing", "has not started"),
    "job, runs": (live("batch/v1", "Job", {}, {"startTime": "2026-01-01T00:00:00Z", "active": 1}), "current", ""),
    "job, done": (live("batch/v1", "Job", {}, condition("Complete", "True")), "current", ""),
    "job, failed": (
        live("batch/v1", "Job", {}, condition("Failed", "True", "BackoffLimitExceeded", "too many")),
        "degraded",
        "BackoffLimitExceeded: too many",
    ),
    "claim, pending": (live("v1", "PersistentVolumeClaim", {}, {"phase": "Pending"}), "progressing", "Pending"),
    "claim, bound": (live("v1", "PersistentVolumeClaim", {}, {"phase": "Bound"}), "current", ""),
    "claim, lost": (live("v1", "PersistentVolumeClaim", {}, {"phase": "Lost"}), "degraded", "lost"),
    "pod, ready": (live("v1", "Pod", {}, {"phase": "Running"} | condition("Ready", "True")), "current", ""),
    "pod, done": (live("v1", "Pod", {}, {"phase": "Succeeded"}), "current", ""),
    "pod, failed": (live("v1", "Pod", {}, {"phase": "Failed", "reason": "Evicted"}), "degraded", "Evicted"),
    "pod, starting": (live("v1", "Pod", {}, {"phase": "Pending"}), "progressing", "Pending"),
    "service": (live("v1", "Service", {"type": "ClusterIP", "clusterIP": "10.96.0.7"}), "current", ""),
    "load balancer without address": (live("v1", "Service", {"type": "LoadBalancer"}), "progressing", "no address"),
    "definition, established": (
        live("apiextensions.k8s.io/v1", "CustomResourceDefinition", {}, condition("Established", "True")),
        "current",
        "",
    ),
    "definition, name taken": (
        live(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            {},
            condition("NamesAccepted", "False", "ListKindConflict", "taken"),
        ),
        "degraded",
        "taken",
    ),
    "namespace, ending": (live("v1", "Namespace", {}, {"phase": "Terminating"}), "progressing", "Terminating"),
    "custom, no status": (live("example.com/v1", "Lens"), "current", ""),
    "custom, ready": (live("example.com/v1", "Lens", {}, condition("Ready", "True")), "current", ""),
    "custom, not ready": (
        live("example.com/v1", "Lens", {}, condition("Ready", "False", "R", "m")),
        "progressing",
        "R: m",
    ),
    "custom, stalled": (live("example.com/v1", "Lens", {}, condition("Stalled", "True", "R", "m")), "degraded", "R: m"),
    "custom, at work": (
        live("example.com/v1", "Lens", {}, condition("Reconciling", "True")),
        "progressing",
        "Reconciling",
    ),
    "custom, older generation": (live("example.com/v1", "Lens", {}, {"observedGeneration": 1}), "progressing", "2"),
    "anything, being deleted": (
        live("v1", "ConfigMap", deletionTimestamp="2026-01-01T00:00:00Z"),
        "progressing",
        "being deleted",
    ),
}


@pytest.mark.parametrize(("given", "health", "said"), CASES.values(), ids=CASES.keys())
def test_health_of(given: dict[str, Any], health: str, said: str) -> None:
    judged, message = judge(given)
    assert judged == health
    assert said in message
    assert (message == "") == (health == "current")


def pod(reason: str = "", message: str = "", **more: Any) -> dict[str, Any]:
    container = {"name": "c", "restartCount": 2, "state": {"waiting": {"reason": reason, "message": message}}, **more}
    return {"metadata": {"name": "p"}, "status": {"containerStatuses": [container]}}


@pytest.mark.parametrize(
    ("pods", "health", "said"),
    [
        ([pod("CrashLoopBackOff", lastState={"terminated": {"exitCode": 1}})], "degraded", "exit code 1, 2 restarts"),
        ([pod("InvalidImageName", "bad name")], "degraded", "bad name"),
        ([pod("CreateContainerConfigError", 'secret "x" not found')], "degraded", "secret"),
        ([pod("ImagePullBackOff", "no route"), pod()], "progressing", "no route"),
        ([pod("ImagePullBackOff"), pod("CrashLoopBackOff")], "degraded", "CrashLoopBackOff"),
        (
            [
                {
                    "metadata": {"name": "p"},
                    "status": {
                        "conditions": [
                            {
                                "type": "PodScheduled",
                                "status": "False",
                                "reason": "Unschedulable",
                                "message": "0/1 nodes",
                            }
                        ]
                    },
                }
            ],
            "progressing",
            "finds no node: 0/1",
        ),
    ],
)
def test_pods_tell_what_keeps_them(pods: list[dict[str, Any]], health: str, said: str) -> None:
    judged = judge_pods(pods)
    assert judged is not None
    assert judged[0] == health and said in judged[1]


def test_pods_without_trouble_tell_nothing() -> None:
    assert judge_pods([]) is None
    assert judge_pods([pod()]) is None


def test_the_worst_object_counts() -> None:
    assert worst([]) == ("current", "")
    assert worst([("current", ""), ("progressing", "p"), ("degraded", "d")]) == ("degraded", "d")
