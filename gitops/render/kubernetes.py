"""Kubernetes objects of an entry: plain manifests that `kubectl kustomize` builds. Pure.

Pods do not carry the placement's or the version's name, so that renaming a placement restarts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from agent.wire.release import Artifact, Entry, Runtime

NODE_STORE: Final = "/var/lib/edgeferry/content/trees"
"""Where an agent keeps unpacked artifacts on a node, one directory per sha256."""

VERSION: Final = "edgeferry.dev/version"
"""Label of a model's objects."""

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """What pods ask for.

    Attributes:
        resources: requests and limits of the container; empty for none.
        pod: further fields of the pod's spec: where it may run.
    """

    resources: Object = field(default_factory=dict)
    pod: Object = field(default_factory=dict)


NOTHING: Final = Ask()


def server(entry: Entry, runtime: Runtime, model_file: str, image_path: str, ask: Ask = NOTHING) -> list[Object]:
    """Return Deployment and Service of a model behind an inference server.

    Args:
        entry: the model; its artifact (or first image) holds the model's files.
        runtime: the inference server; ``command`` is its container arguments, placeholders still in them.
        model_file: the one file of the artifact, relative; empty for a directory.
        image_path: the model's directory within the entry's image; empty where an artifact holds it.
        ask: what its pods ask for.
    """
    mount = f"/models/{entry.name}"
    model = f"{mount}/{model_file}" if model_file else mount
    words = {"{port}": str(runtime.port), "{model}": model, "{name}": entry.name}
    container: Object = {
        "name": "server",
        "image": runtime.image,
        "args": [_replaced(argument, words) for argument in runtime.command],
        "env": _environment(entry.values),
        "ports": [{"name": "http", "containerPort": runtime.port}],
        "readinessProbe": {"httpGet": {"path": _ready_path(runtime), "port": runtime.port}, "periodSeconds": 1},
        "volumeMounts": [{"name": "model", "mountPath": mount, "readOnly": True}],
        "lifecycle": _LEAVING,
        "securityContext": _CONFINED,
    }
    if image_path:
        volume: Object = {"name": "model", "image": {"reference": entry.images[0], "pullPolicy": "IfNotPresent"}}
        container["volumeMounts"][0]["subPath"] = image_path.strip("/")
    else:
        volume = {"name": "model", "hostPath": {"path": _store_path(entry.artifacts[0]), "type": "Directory"}}
    return [_deployment(entry, container, [volume], ask), _service(entry, runtime.port)]


def container(entry: Entry, port: int, ask: Ask = NOTHING) -> list[Object]:
    """Return the Deployment of an image, and its Service where it listens."""
    running: Object = {
        "name": "model",
        "image": entry.images[0],
        "env": _environment(entry.values),
        "securityContext": _CONFINED,
    }
    if not port:
        return [_deployment(entry, running, [], ask)]
    running["ports"] = [{"name": "http", "containerPort": port}]
    running["readinessProbe"] = {"tcpSocket": {"port": port}, "periodSeconds": 1}
    running["lifecycle"] = _LEAVING
    return [_deployment(entry, running, [], ask), _service(entry, port)]


def labelled(manifest: Object, entry: Entry) -> Object:
    """Return a workload's object with our labels and, where it has none, the entry's namespace.

    It does not carry the version: a version that changes one object of a thousand would touch them all.
    """
    metadata = dict(manifest.get("metadata") or {})
    ours = {key: value for key, value in labels(entry).items() if key != VERSION}
    metadata["labels"] = {**(metadata.get("labels") or {}), **ours}
    metadata.setdefault("namespace", entry.namespace)
    return {**manifest, "metadata": metadata}


def labels(entry: Entry) -> dict[str, str]:
    """Return the labels of every object of an entry."""
    return {
        "app.kubernetes.io/managed-by": "edgeferry",
        f"edgeferry.dev/{entry.kind}": entry.name,
        VERSION: entry.version,
        "edgeferry.dev/placement": entry.placement,
    }


def kustomization(paths: Sequence[str]) -> bytes:
    """Return kustomization.yaml for the manifests of one overlay; an overlay without any builds too."""
    resources = "".join(f"\n  - {path}" for path in sorted(paths)) or " []"
    return (f"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:{resources}\n").encode()


def to_yaml(value: Object) -> bytes:
    """Return one object as YAML, keys sorted."""
    return yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=True, allow_unicode=True).encode()


_CONFINED: Final = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}

_LEAVING: Final = {"preStop": {"sleep": {"seconds": 5}}}
"""A pod that goes serves on until no node sends it requests any more: without this an update loses some."""


def _deployment(entry: Entry, container: Object, volumes: list[Object], ask: Ask) -> Object:
    if ask.resources:
        container = {**container, "resources": ask.resources}
    selector = {f"edgeferry.dev/{entry.kind}": entry.name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": entry.name, "namespace": entry.namespace, "labels": labels(entry)},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "Recreate"}
            if entry.switch == "replace"
            else {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": selector},
                "spec": {
                    "automountServiceAccountToken": False,
                    "containers": [container],
                    "volumes": volumes,
                    **ask.pod,
                },
            },
        },
    }


def _service(entry: Entry, port: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": entry.name, "namespace": entry.namespace, "labels": labels(entry)},
        "spec": {
            "selector": {f"edgeferry.dev/{entry.kind}": entry.name},
            "ports": [{"name": "http", "port": port, "targetPort": port}],
        },
    }


def _environment(values: Mapping[str, str]) -> list[Object]:
    return [{"name": name, "value": value} for name, value in sorted(values.items())]


def _ready_path(runtime: Runtime) -> str:
    return "/v2/health/ready" if runtime.protocol == "v2" else runtime.path or "/"


def _store_path(artifact: Artifact) -> str:
    return f"{NODE_STORE}/{artifact.digest.removeprefix('sha256:')}"


def _replaced(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text
