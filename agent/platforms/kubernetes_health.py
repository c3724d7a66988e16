"""A live object → is it what was asked for yet? Pure.

Source: the rules of kstatus (sigs.k8s.io/cli-utils/pkg/kstatus), which kubectl, Flux and Config Sync share.
``InProgress`` and ``Terminating`` are ``progressing`` here, ``Failed`` is ``degraded``. Stricter in one point: a
Deployment whose pods may not be made (quota, Pod Security) is degraded at once and says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent.wire.report import Health

Judgement = tuple[Health, str]

CURRENT: Final[Judgement] = ("current", "")

_STUCK: Final = {
    "CrashLoopBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "ErrImageNeverPull",
}
_WAITING: Final = {"ImagePullBackOff", "ErrImagePull"}


def judge(live: Mapping[str, Any]) -> Judgement:
    """Return the health of one object and, when it is not current, one sentence why.

    ``current`` means that its controller has seen the present generation and done what it asks.
    """
    metadata, status = live["metadata"], live.get("status") or {}
    spec = live.get("spec") or {}
    if metadata.get("deletionTimestamp"):
        return "progressing", "is being deleted"
    seen, wanted = status.get("observedGeneration"), metadata.get("generation")
    if seen is not None and wanted is not None and seen != wanted:
        return "progressing", f"its controller has not seen generation {wanted} yet"
    conditions = {str(one.get("type")): one for one in status.get("conditions") or () if isinstance(one, dict)}
    if _is(conditions, "Stalled"):
        return "degraded", _said(conditions["Stalled"])
    if _is(conditions, "Reconciling"):
        return "progressing", _said(conditions["Reconciling"])
    rule = _RULES.get((live["apiVersion"].rpartition("/")[0], live["kind"]))
    if rule is not None:
        return rule(metadata, spec, status, conditions)
    ready = conditions.get("Ready")
    if ready is not None and ready.get("status") != "True":
        return "progressing", _said(ready)
    return CURRENT


def judge_pods(pods: Sequence[Mapping[str, Any]]) -> Judgement | None:
    """Return what keeps a workload's pods from running, the worst first; None where nothing is to be said.

    Args:
        pods: of one Deployment, StatefulSet or DaemonSet that is not current.
    """
    found: list[Judgement] = []
    for pod in pods:
        status, name = pod.get("status") or {}, pod["metadata"]["name"]
        for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
            waiting = (container.get("state") or {}).get("waiting") or {}
            reason, said = waiting.get("reason", ""), _line(waiting.get("message") or "")
            ended = ((container.get("lastState") or {}).get("terminated") or {}).get("exitCode")
            if ended is not None:
                said = f"exit code {ended}, {container.get('restartCount', 0)} restarts"
            if reason in _STUCK:
                found.append(("degraded", f"pod {name}, container {container.get('name')}: {reason}: {said}"))
            elif reason in _WAITING:
                found.append(("progressing", f"pod {name}, container {container.get('name')}: {reason}: {said}"))
        found += [
            ("progressing", f"pod {name} finds no node: {_line(condition.get('message') or '')}")
            for condition in status.get("conditions") or ()
            if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable"
        ]
    return min(found, key=lambda one: (one[0] != "degraded", one[1]), default=None)


def worst(judgements: Sequence[Judgement]) -> Judgement:
    """Return the health of an entry from its objects': one degraded makes it degraded, else one progressing."""
    order = {"degraded": 0, "progressing": 1, "unknown": 2, "current": 3}
    return min(judgements, key=lambda one: order[one[0]], default=CURRENT)


def _deployment(metadata: Any, spec: Any, status: Any, conditions: Any) -> Judgement:
    progress = conditions.get("Progressing") or {}
    if progress.get("reason") == "ProgressDeadlineExceeded":
        return "degraded", _said(progress)
    if _is(conditions, "ReplicaFailure"):
        return "degraded", _said(conditions["ReplicaFailure"])
    if status.get("observedGeneration") is None:
        return "progressing", "no controller has seen it yet"
    wanted = _number(spec, "replicas", 1)
    total, updated, available, ready = (
        _number(status, name) for name in ("replicas", "updatedReplicas", "availableReplicas", "readyReplicas")
    )
    if updated < wanted:
        return "progressing", f"{updated} of {wanted} replicas are of this version"
    if total > updated:
        return "progressing", f"{total - updated} replicas of the version before are still there"
    if available < wanted or ready < wanted:
        return "progressing", f"{min(available, ready)} of {wanted} replicas are ready"
    if "Available" in conditions and not _is(conditions, "Available"):
        return "progressing", _said(conditions["Available"])
    return CURRENT


def _replica_set(metadata: Any, spec: Any, status: Any, conditions: Any) -> Judgement:
    if _is(conditions, "ReplicaFailure"):
        return "degraded", _said(conditions["ReplicaFailure"])
    if status.get("observedGeneration") is None:
        return "progressing", "no controller has seen it yet"
    wanted = _number(spec, "replicas", 1)
    available = min(_number(status, "availableReplicas"), _number(status, "readyReplicas"))
    if available < wanted:
        return "progressing", f"{available} of {wanted} replicas are ready"
    if _number(status, "replicas") > wanted:
        return "progressing", "surplus replicas are still there"
    return CURRENT


def _stateful_set(metadata: Any, spec: Any, status: Any, conditions: Any) -> Judgement:
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return CURRENT
    if status.get("observedGeneration") is None:
        return "progressing", "no controller has seen it yet"
    wanted = _number(spec, "replicas", 1)
    total, updated, ready = (_number(status, name) for name in ("replicas", "updatedReplicas", "readyReplicas"))
    if total > wanted:
        return "progressing", f"{total - wanted} surplus replicas are still there"
    if ready < wanted:
        return "progressing", f"{ready} of {wanted} replicas are ready"
    partition = _number(strategy.get("rollingUpdate") or {}, "partition")
    if updated < wanted - partition:
        return "progressing", f"{updated} of {wanted - partition} replicas are of this version"
    if not partition and status.get("currentRevision") != status.get("updateRevision"):
        return "progressing", "replicas of the version before are still there"
    return CURRENT


def _daemon_set(metadata: Any, spec: Any, status: Any, conditions: Any) -> Judgement:
    if status.get("observedGeneration") is None:
        return "progressing", "no controller has seen it yet"
    wanted = _number(status, "desiredNumberScheduled")
    updated, available, ready = (
        _number(status, name) for name in ("updatedNumberScheduled", "numberAvailable", "numberReady")
    )
    if (spec.get("updateStrategy") or {}).get("type") != "OnDelete" and updated < wanted:
        return "progressing", f"{updated} of {wanted} nodes have this version"
    if min(available, ready) < wanted:
        return "progressing", f"ready on {min(available, ready)} of {wanted} nodes"
    return CURRENT


def _job(metadata: Any, spec: Any, status: Any, conditions: Any) -> Judgement:
    for name in ("Failed", "FailureTarget"):
        if _is(conditions, name):
            return "degraded", _said(conditions[name])
    if _is(conditions, "Complete") or _is(conditions, "Suspended"):
        return CURRENT
    if not status.get("startTime"):
        return "progressing", "has not started"
    # A started Job is as it was asked to be, as kstatus has it; its end may be hours away.
    return CURRENT


def _volume_claim(metadata: Any, spec: Any, status: Any, conditions: Any) -> Judgement:
    phase = status.get("phase") or "Pending"
    if phase == "Lost":
        return "degraded", "its volume is lost"
    return CURRENT if phase == "Bound" else ("progressing", f"its volume is {phase}")


def _pod(metadata: Any, spec: Any, status: Any, conditions: Any) -> Judgement:
    phase = status.get("phase") or "Pending"
    if phase == "Succeeded":
        return CURRENT
    if phase == "Failed":
        return "degraded", _line(status.get("message") or status.get("reason") or "it failed")
    if _is(conditions, "Ready"):
        return CURRENT
    named = {"metadata": metadata, "status": status}
    return judge_pods([named]) or ("progressing", f"it is {phase}, not ready")


def _service(metadata: Any, spec: Any, status: Any, conditions: Any) -> Judgement:
    if spec.get("type") == "LoadBalancer" and not spec.get("clusterIP"):
        return "progressing", "it has no address yet"
    return CURRENT


def _definition(metadata: Any, spec: Any, status: Any, conditions: Any) -> Judgement:
    accepted = conditions.get("NamesAccepted") or {}
    if accepted.get("status") == "False":
        return "degraded", _said(accepted)
    established = conditions.get("Established") or {}
    if established.get("status") == "True":
        return CURRENT
    return "progressing", _said(established) if established else "it is not established yet"


def _namespace(metadata: Any, spec: Any, status: Any, conditions: Any) -> Judgement:
    phase = status.get("phase") or "Active"
    return CURRENT if phase == "Active" else ("progressing", f"it is {phase}")


def _budget(metadata: Any, spec: Any, status: Any, conditions: Any) -> Judgement:
    if status.get("observedGeneration") is None:
        return "progressing", "no controller has seen it yet"
    return CURRENT


_RULES: Final = {
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replica_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("batch", "Job"): _job,
    ("", "PersistentVolumeClaim"): _volume_claim,
    ("", "Pod"): _pod,
    ("", "Service"): _service,
    ("", "Namespace"): _namespace,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("policy", "PodDisruptionBudget"): _budget,
}


def _is(conditions: Mapping[str, Any], name: str) -> bool:
    return bool((conditions.get(name) or {}).get("status") == "True")


def _said(condition: Mapping[str, Any]) -> str:
    reason, message = str(condition.get("reason") or ""), _line(str(condition.get("message") or ""))
    return ": ".join(filter(None, (reason, message))) or f"{condition.get('type')} is {condition.get('status')}"


def _line(text: str) -> str:
    return " ".join(text.split())[:300]


def _number(values: Mapping[str, Any], name: str, default: int = 0) -> int:
    value = values.get(name)
    return value if isinstance(value, int) else default
