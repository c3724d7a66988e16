"""One agent's platform on the test API server, and a person with kubectl's rights beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from agent.actions import Observed, Repair, Seen, Staged, Switch
from agent.config import Config
from agent.platforms.kubernetes import KubernetesPlatform
from agent.platforms.kubernetes_client import Api, connect
from agent.wire.release import Delivery, Entry, Kind, ModelUse, with_digest
from tests.cluster.control_plane import ControlPlane

Object = dict[str, Any]


@dataclass
class Site:
    """A platform that can be killed and started again, on a namespace of its own."""

    cluster: ControlPlane
    state: Path
    namespace: str
    scope: str = "namespace"
    kubeconfig: Path | None = None
    now: list[float] = field(default_factory=lambda: [1000.0])

    def __post_init__(self) -> None:
        self.person: Api = connect(str(self.cluster.kubeconfig))
        self.platform = self.started()

    def started(self) -> KubernetesPlatform:
        kubeconfig = self.kubeconfig or self.cluster.kubeconfig
        config = Config(self.namespace, "fleet-1", "kubernetes", kubeconfig=str(kubeconfig), scope=self.scope)
        return KubernetesPlatform(self.state, config, clock=lambda: self.now[0])

    def restart(self) -> None:
        """End the agent without a word, and begin anew with what the cluster and the disk have."""
        self.platform.close()
        self.platform = self.started()

    def get(self, kind: str, name: str, api_version: str = "v1", namespace: str | None = None) -> Object | None:
        resource = self.person.resource(api_version, kind)
        return self.person.get(resource, self.namespace if namespace is None else namespace, name)

    def write(self, body: Object, manager: str = "kubectl-edit") -> Object:
        """Server-side apply as somebody else, taking what is asked for."""
        resource = self.person.resource(body["apiVersion"], body["kind"])
        metadata = body["metadata"]
        if resource.namespaced:
            metadata.setdefault("namespace", self.namespace)
        path = resource.path(metadata.get("namespace", ""), metadata["name"])
        query = {"fieldManager": manager, "force": "true"}
        return self.person.request("PATCH", path, query, body, kind="application/apply-patch+yaml")

    def edit(self, kind: str, name: str, patch: Object, api_version: str = "v1", sub: str = "") -> Object:
        """Merge-patch as ``kubectl edit`` does."""
        path = self.person.resource(api_version, kind).path(self.namespace, name) + sub
        return self.person.request(
            "PATCH", path, {"fieldManager": "kubectl-edit"}, patch, kind="application/merge-patch+json"
        )

    def delete(self, kind: str, name: str, api_version: str = "v1") -> None:
        resource = self.person.resource(api_version, kind)
        live = self.person.get(resource, self.namespace, name)
        assert live is not None
        self.person.delete(resource, self.namespace, name, live["metadata"]["uid"])

    def ready(self, name: str, replicas: int = 1) -> None:
        """Do what the Deployment controller and a kubelet would do."""
        live = self.get("Deployment", name, "apps/v1")
        assert live is not None
        status = {
            "observedGeneration": live["metadata"]["generation"],
            **dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), replicas),
            "conditions": [{"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}],
        }
        self.edit("Deployment", name, {"status": status}, "apps/v1", "/status")

    def switch(self, staged: Staged, previous: Staged | None = None) -> None:
        self.platform.execute(Switch(staged, previous))

    def repair(self, staged: Staged) -> None:
        self.platform.execute(Repair(staged, "drift"))

    def seen(self, *known: Staged) -> Seen:
        """Return what is seen of the first entry."""
        observed = self.platform.observe(known)
        return next(one for one in observed.seen if (one.kind, one.name) == (known[0].entry.kind, known[0].entry.name))

    def until(self, so: Callable[[Observed], bool], *known: Staged) -> Observed:
        """Look until it is so, as the agent's loop does."""
        deadline = time.monotonic() + 20
        while not so(observed := self.platform.observe(known)):
            assert time.monotonic() < deadline, observed
            time.sleep(0.02)
        return observed

    def until_drift(self, *known: Staged) -> str:
        return self.until(lambda observed: any(one.drift for one in observed.seen), *known).seen[0].drift

    def until_health(self, health: str, *known: Staged) -> Seen:
        return self.until(lambda observed: observed.seen[0].health == health, *known).seen[0]


@contextmanager
def site(cluster: ControlPlane, state: Path, namespace: str, **settings: Any) -> Iterator[Site]:
    made = Site(cluster, state, namespace, **settings)
    try:
        yield made
    finally:
        made.platform.close()
        made.person.close()


def staged(
    namespace: str,
    *objects: Object,
    name: str = "defect-detector",
    version: str = "2.1.0",
    kind: Kind = "model",
    delivery: Delivery = "container",
    models: tuple[ModelUse, ...] = (),
    values: Mapping[str, str] | None = None,
) -> Staged:
    """Return an entry as the hub renders it: one file an object, with namespace and labels."""
    entry = Entry(kind, name, version, delivery, namespace=namespace, models=models, values=values or {})
    labels = {
        "app.kubernetes.io/managed-by": "edgeferry",
        f"edgeferry.dev/{kind}": name,
        "edgeferry.dev/version": version,
        "edgeferry.dev/placement": "everywhere",
    }
    files = {}
    for number, one in enumerate(objects):
        metadata = {**one["metadata"], "labels": {**one["metadata"].get("labels", {}), **labels}}
        metadata.setdefault("namespace", namespace)
        path = f"{entry.directory}/{number:04}-{one['kind'].lower()}.yaml"
        files[path] = yaml.dump({**one, "metadata": metadata}, Dumper=yaml.CSafeDumper).encode()
    return Staged(with_digest(entry, files), files)


def config_map(name: str, annotations: Mapping[str, str] | None = None, **data: str) -> Object:
    metadata: Object = {"name": name}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def deployment(name: str = "defect-detector", image: str = "registry.example/model:1", **spec: Any) -> Object:
    labels = {"edgeferry.dev/model": name}
    container = {
        "name": "model",
        "image": image,
        "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {"requests": {"memory": "0.5Gi", "cpu": "1000m"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            **spec,
        },
    }


def service(name: str = "defect-detector", port: int = 8080) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"edgeferry.dev/model": name}, "ports": [{"name": "http", "port": port}]},
    }
