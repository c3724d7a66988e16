"""A model's new version beside the one that serves, without any request but the self-test's.

Kubernetes brings new pods up beside the old ones at a switch, but sends them requests as soon as they are ready. So a
model with a self-test is first started as a Deployment of its own, which no Service selects; it goes at the switch.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent.actions import Staged
from agent.inference import MAX_ANSWER_BYTES, NotAnswering, SelfTestFailed, check_answer, self_test
from agent.platforms.kubernetes_apply import Target
from agent.platforms.kubernetes_errors import RightMissing
from agent.platforms.kubernetes_mirror import label_selector
from agent.platforms.kubernetes_objects import Json, Resource
from agent.wire.release import Entry

CANDIDATE: Final = "candidate"
"""Kind of the inventory's record of a candidate; its name is the model's."""

LABEL: Final = "edgeferry.dev/candidate"
PODS: Final = Resource("v1", "Pod", "pods", True)

_PODS_AT_MOST: Final = 50


def candidate_of(entry: Entry, raw: Sequence[Json]) -> Json | None:
    """Return the Deployment that brings a model up beside what serves; None where there is nothing to ask it.

    Args:
        entry: the model.
        raw: its objects.
    """
    serving = _deployment(entry, raw)
    if serving is None or entry.kind != "model" or entry.self_test is None or entry.switch == "replace":
        return None
    labels = {LABEL: entry.name}
    spec = copy.deepcopy(serving["spec"])
    spec["replicas"] = 1
    spec["selector"] = {"matchLabels": labels}
    template = spec.setdefault("template", {})
    template["metadata"] = {**(template.get("metadata") or {}), "labels": labels}
    metadata = {"name": f"{entry.name}-candidate", "labels": labels}
    if "namespace" in serving["metadata"]:
        metadata["namespace"] = serving["metadata"]["namespace"]
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def ask(target: Target, staged: Staged, raw: Sequence[Json], *, candidate: bool, direct: bool) -> None:
    """Ask the self-test's question of a ready pod.

    Args:
        target: the cluster.
        staged: the model.
        raw: its objects.
        candidate: ask the candidate; else what serves.
        direct: by the pod's address; else by way of the API server.

    Raises:
        SelfTestFailed: it answers wrongly.
        NotAnswering: no pod is ready, or it cannot be reached now.
        RightMissing: pods may not be listed or asked.
    """
    entry, test = staged.entry, staged.entry.self_test
    serving = _deployment(entry, raw)
    if test is None or serving is None:
        return
    missing = [path for path in (test.input, test.output) if path not in staged.files]
    if missing:
        raise SelfTestFailed(f"{missing[0]} is not in the overlay", where=f"model/{entry.name}", do="publish it again")
    question, answer = staged.files[test.input], staged.files[test.output]
    selector = f"{LABEL}={entry.name}" if candidate else label_selector(serving["spec"].get("selector") or {})
    pod = _ready_pod(target.api.list(PODS, entry.namespace, selector, _PODS_AT_MOST)["items"], entry)
    port = _port(entry, serving)
    if direct:
        address = pod["status"]["podIP"]
        host = f"[{address}]" if ":" in address else address
        self_test(f"http://{host}:{port}", entry.name, question, answer, test.tolerance)
        return
    name, path = pod["metadata"]["name"], f"/v2/models/{entry.name}/infer"
    status, body = target.api.pod_answer(entry.namespace, name, port, path, question, MAX_ANSWER_BYTES)
    where = f"Pod {entry.namespace}/{name}"
    if status == 403 and b"pods/proxy" in body:
        raise RightMissing(
            "the self-test's question may not be put", where=where, do="grant `create` on `pods/proxy`, or run in a pod"
        )
    if status in (404, 500, 502, 503, 504) and b'"kind":"Status"' in body.replace(b" ", b""):
        raise NotAnswering(f"the API server does not reach it: {body[:200].decode(errors='replace')}", where=where)
    if status != 200 or len(body) > MAX_ANSWER_BYTES:
        said = body[:200].decode(errors="replace")
        raise SelfTestFailed(f"status {status}: {said}", where=where, do="mend the model or the self-test")
    check_answer(entry.name, body, answer, test.tolerance)


def _deployment(entry: Entry, raw: Sequence[Json]) -> Json | None:
    for one in raw:
        named = (one["apiVersion"], one["kind"], one["metadata"]["name"]) == ("apps/v1", "Deployment", entry.name)
        if named and isinstance(one.get("spec"), dict):
            return one
    return None


def _ready_pod(pods: Sequence[Mapping[str, Any]], entry: Entry) -> Mapping[str, Any]:
    ready = [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        and (pod.get("status") or {}).get("podIP")
        and any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions") or ())
    ]
    if not ready:
        raise NotAnswering("no pod of it is ready", where=f"model/{entry.name}")
    return max(ready, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def _port(entry: Entry, serving: Json) -> int:
    containers = ((serving["spec"].get("template") or {}).get("spec") or {}).get("containers") or ()
    ports = [port for one in containers for port in one.get("ports") or ()]
    named = next((port for port in ports if port.get("name") == "http"), ports[0] if ports else None)
    if named is not None:
        return int(named["containerPort"])
    if entry.runtime is not None and entry.runtime.port:
        return entry.runtime.port
    raise SelfTestFailed("its container names no port", where=f"model/{entry.name}", do="name the port of the image")
