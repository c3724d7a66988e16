"""An entry's files → the Kubernetes objects that it wants, their names and their order. Pure."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

import yaml

from agent.actions import Staged
from agent.platforms.kubernetes_errors import ManifestUnusable

Json = dict[str, Any]

MANAGER: Final = "edgeferry"
"""Our name as a field manager, and the value of :data:`MANAGED_BY`."""

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
ADOPT: Final = "edgeferry.dev/adopt"
KEEP: Final = "edgeferry.dev/keep"
HELM_KEEP: Final = "helm.sh/resource-policy"
"""Helm's own annotation for it, with the value ``keep``."""

RECREATE: Final = "edgeferry.dev/recreate"
MODELS: Final = "edgeferry.dev/models"
"""Annotation of pod templates: digest of what the models file says of the models that the workload restarts for."""

_MOST_VALUES: Final = 200_000
"""Of one file, aliases counted each time: a YAML bomb ends here."""

_DEEPEST: Final = 200

_SERVERS_OWN: Final = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid")

_ORDER: Final = {
    kind: number
    for number, kind in enumerate(
        (
            "Namespace",
            "CustomResourceDefinition",
            "PriorityClass",
            "StorageClass",
            "RuntimeClass",
            "ResourceQuota",
            "LimitRange",
            "NetworkPolicy",
            "PodDisruptionBudget",
            "ServiceAccount",
            "ClusterRole",
            "ClusterRoleBinding",
            "Role",
            "RoleBinding",
            "Secret",
            "ConfigMap",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "Service",
            "",
            "DaemonSet",
            "StatefulSet",
            "Deployment",
            "ReplicaSet",
            "Pod",
            "Job",
            "CronJob",
            "Ingress",
            "HorizontalPodAutoscaler",
            "APIService",
            "ValidatingWebhookConfiguration",
            "MutatingWebhookConfiguration",
        )
    )
}
_WITH_PODS: Final = ("Deployment", "StatefulSet", "DaemonSet")


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind as the API server serves it: ``apps/v1`` ``Deployment`` is ``deployments``, in namespaces."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    @property
    def group(self) -> str:
        """API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str = "", name: str = "") -> str:
        """Return the path of one object, or of all in a namespace, or of all."""
        base = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        within = f"/namespaces/{quote(namespace, safe='')}" if namespace and self.namespaced else ""
        return f"{base}{within}/{self.plural}" + (f"/{quote(name, safe='')}" if name else "")


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What names an object, whatever API version it is read by. ``namespace`` is empty for cluster-scoped kinds."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """As people write it: ``Deployment robots/grip``."""
        return f"{self.kind} " + "/".join(filter(None, (self.namespace, self.name)))


@dataclass(frozen=True, slots=True)
class Wanted:
    """One object as the entry wants it.

    Attributes:
        key: its name.
        api_version: to apply it by.
        body: the object.
        digest: of ``body``, 16 hex digits.
    """

    key: Key
    api_version: str
    body: Json
    digest: str


def read(staged: Staged) -> tuple[Json, ...]:
    """Return the raw objects of an entry's YAML files, in order of file names.

    Raises:
        ManifestUnusable: not YAML, not an object with kind and name, or more values than any manifest has.
    """
    found: list[Json] = []
    for path in sorted(staged.files):
        if path.endswith((".yaml", ".yml")):
            found += read_text(staged.files[path], path)
    return tuple(found)


def read_text(data: bytes, where: str) -> list[Json]:
    """Return the raw objects of YAML.

    Raises:
        ManifestUnusable: as for :func:`read`.
    """
    return [_checked(one, where) for one in _documents(data, where)]


def wanted(raw: Json, resource: Resource, namespace: str, models: str = "") -> Wanted:
    """Return a raw object as it is applied: in a namespace, with our label, without what the server writes itself.

    Args:
        raw: of :func:`read`; it is not changed.
        resource: its kind as the cluster serves it.
        namespace: where it goes when it does not say.
        models: value of the annotation :data:`MODELS` on pod templates; empty for none.
    """
    body: Json = copy.deepcopy({name: value for name, value in raw.items() if name != "status"})
    metadata = {name: value for name, value in body["metadata"].items() if name not in _SERVERS_OWN}
    metadata["labels"] = {**(metadata.get("labels") or {}), MANAGED_BY: MANAGER}
    if resource.namespaced:
        metadata["namespace"] = metadata.get("namespace") or namespace
    else:
        metadata.pop("namespace", None)
    body["metadata"] = metadata
    if models and resource.group == "apps" and resource.kind in _WITH_PODS:
        template = body["spec"]["template"] = dict(body["spec"].get("template") or {})
        template["metadata"] = dict(template.get("metadata") or {})
        template["metadata"]["annotations"] = {**(template["metadata"].get("annotations") or {}), MODELS: models}
    key = Key(resource.group, resource.kind, metadata.get("namespace", ""), metadata["name"])
    return Wanted(key, resource.api_version, body, short_digest(body))


def in_order(objects: Sequence[Wanted]) -> list[Wanted]:
    """Return the objects in the order to apply them: what others stand on first."""
    return sorted(objects, key=lambda one: rank(one.key))


def rank(key: Key) -> tuple[int, Key]:
    """Return where an object stands in the order of creation; deletion goes the other way."""
    return _ORDER.get(key.kind, _ORDER[""]), key


def key_of(live: Json) -> Key:
    """Return the key of an object that the API server sent."""
    metadata = live["metadata"]
    group = live["apiVersion"].rpartition("/")[0]
    return Key(group, live["kind"], metadata.get("namespace", ""), metadata["name"])


def labelled_ours(live: Json) -> bool:
    """Is the object labelled as ours?"""
    return bool((live["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER)


def annotated(live: Json, annotation: str) -> bool:
    """Does the object carry this annotation with the value ``true``?"""
    return bool((live["metadata"].get("annotations") or {}).get(annotation) == "true")


def kept(live: Json) -> bool:
    """Does the object outlive its entry?"""
    annotations = live["metadata"].get("annotations") or {}
    return annotations.get(KEEP) == "true" or annotations.get(HELM_KEEP) == "keep"


def short_digest(value: Any) -> str:
    """Return 16 hex digits of sha256 over the value's JSON, keys sorted."""
    return sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def _documents(data: bytes, path: str) -> list[Any]:
    try:
        if _too_deep(data):
            raise ManifestUnusable(f"nested deeper than {_DEEPEST}", where=path, do="no object of Kubernetes is")
        documents = [one for one in yaml.load_all(data, Loader=yaml.CSafeLoader) if one is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ManifestUnusable(f"not YAML: {' '.join(str(error).split())[:300]}", where=path) from None
    todo: list[Any] = list(documents)
    for _ in range(_MOST_VALUES):
        if not todo:
            return documents
        value = todo.pop()
        todo += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    raise ManifestUnusable(f"more than {_MOST_VALUES} values", where=path, do="split the file, or mend its aliases")


def _too_deep(data: bytes) -> bool:
    """Is it nested so deep that the C loader, which recurses, would run out of stack and take the process with it?"""
    if sum(map(data.count, (b"[", b"{", b"-", b"?"))) < _DEEPEST:
        return False
    depth = 0
    for event in yaml.parse(data, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            return True
    return False


def _checked(one: Json, path: str) -> Json:
    metadata = one.get("metadata") if isinstance(one, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(one.get(name), str) for name in ("apiVersion", "kind")):
        raise ManifestUnusable("no object with apiVersion, kind and metadata", where=path)
    if one["kind"] == "List" or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise ManifestUnusable(
            f"{one['kind']} without a name", where=path, do="write every object with metadata.name, and no List"
        )
    for name in ("labels", "annotations"):
        values = metadata.get(name) or {}
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise ManifestUnusable(f"metadata.{name} holds what is not text", where=path, do="quote the values")
    if not isinstance(one.get("spec", {}), dict | None):
        raise ManifestUnusable("spec is not a mapping", where=path)
    try:
        json.dumps(one)
    except (TypeError, ValueError) as error:
        raise ManifestUnusable(f"no JSON can say it: {error}", where=path, do="quote dates and times") from None
    return one
