from __future__ import annotations

from typing import Any

import pytest

from agent.wire.release import ModelUse
from gitops.render.mounts import mounted

USES = (ModelUse("weights", "*", "/models/weights", "reload"), ModelUse("digits", "*", "", "none"))
POD = {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "c"}]}
VOLUME = {"name": "model-weights", "hostPath": {"path": "/var/lib/edgeferry/models/weights", "type": "Directory"}}
MOUNT = {"name": "model-weights", "mountPath": "/models/weights", "readOnly": True}


def wrapped(kind: str, pod: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {"spec": pod}
    if kind != "Pod":
        body = {"spec": {"template": body}}
    if kind == "CronJob":
        body = {"spec": {"jobTemplate": body}}
    return {"kind": kind, **body}


@pytest.mark.parametrize("kind", ["Pod", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"])
def test_every_container_of_a_pod_mounts_what_is_asked_for(kind: str) -> None:
    wanted = {
        "containers": [{"name": name, "volumeMounts": [MOUNT]} for name in "ab"],
        "initContainers": [{"name": "c", "volumeMounts": [MOUNT]}],
        "volumes": [VOLUME],
    }
    assert mounted(wrapped(kind, POD), USES) == wrapped(kind, wanted)


def test_volumes_that_are_there_stay() -> None:
    pod = {
        "containers": [{"name": "a", "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}],
        "volumes": [{"name": "tmp"}],
    }
    found = mounted(wrapped("Pod", pod), USES)["spec"]
    assert found["volumes"] == [{"name": "tmp"}, VOLUME]
    assert found["containers"][0]["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}, MOUNT]


@pytest.mark.parametrize(
    "manifest", [{"kind": "Service", "spec": {}}, {"kind": "Deployment"}, {"kind": "Pod", "spec": 3}]
)
def test_what_has_no_pods_is_left_alone(manifest: dict[str, Any]) -> None:
    assert mounted(manifest, USES) == manifest


def test_without_a_mount_nothing_changes() -> None:
    assert mounted(wrapped("Pod", POD), USES[1:]) == wrapped("Pod", POD)
