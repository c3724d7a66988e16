"""An entry's files → the Kubernetes objects that it wants, and a live object → what of it is ours. Pure.

What is ours of a live object says the object itself: the API server lists, for every field manager, the fields it set
(``metadata.managedFields``). The digest of those fields and their values changes when somebody changes or takes one of
them, and does not when defaults, status or other managers' fields change.

Source: Server-Side Apply, https://kubernetes.io/docs/reference/using-api/server-side-apply/ ; FieldsV1 paths after
sigs.k8s.io/structured-merge-diff.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
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
    found = []
    for path in sorted(staged.files):
        if path.endswith((".yaml", ".yml")):
            found += [_checked(one, path) for one in _documents(staged.files[path], path)]
    return tuple(found)


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


def applied_by_us(live: Json) -> bool:
    """Did we apply the object at some time?"""
    return _our_fields(live) is not None


def annotated(live: Json, annotation: str) -> bool:
    """Does the object carry this annotation with the value ``true``?"""
    return bool((live["metadata"].get("annotations") or {}).get(annotation) == "true")


def own_digest(live: Json) -> str:
    """Return the digest of our fields of a live object and their values; empty where it has none of ours."""
    fields = _our_fields(live)
    return "" if fields is None else short_digest(_project(fields, live))


def own_data(live: Json) -> dict[str, str]:
    """Return those entries of a ConfigMap's data that we set."""
    mine = (_our_fields(live) or {}).get("f:data") or {}
    return {name: value for name, value in (live.get("data") or {}).items() if f"f:{name}" in mine}


def changes(body: Json, live: Json) -> list[str]:
    """Return which fields of ours are not ours any more, and who has them: for people, at most a few.

    Args:
        body: the object as applied.
        live: as it is now.
    """
    ours = set(_paths(_our_fields(live) or {}))
    others = {
        path: str(entry.get("manager"))
        for entry in live["metadata"].get("managedFields") or ()
        if entry.get("manager") != MANAGER
        for path in _paths(entry.get("fieldsV1") or {})
    }
    taken = [path for path in others if path not in ours and _is_set(body, path)]
    return [f"{_readable(path)} by {others[path]}" for path in sorted(taken)[:3]]


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


def _our_fields(live: Json) -> Mapping[str, Any] | None:
    for entry in live["metadata"].get("managedFields") or ():
        if entry.get("manager") == MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource"):
            fields: Mapping[str, Any] = entry.get("fieldsV1") or {}
            return fields
    return None


def _project(fields: Mapping[str, Any], value: Any) -> Any:
    below = [name for name in fields if name != "."]
    if not below:
        return value
    return {name: _project(fields[name], _step(name, value)) for name in below}


def _step(name: str, value: Any) -> Any:
    how, _, what = name.partition(":")
    if how == "f":
        return value.get(what) if isinstance(value, dict) else None
    if not isinstance(value, list):
        return None
    if how == "k":
        keys = json.loads(what)
        matching = (one for one in value if isinstance(one, dict) and keys.items() <= one.items())
        return next(matching, None)
    if how == "v":
        member = json.loads(what)
        return member if member in value else None
    return value[int(what)] if int(what) < len(value) else None


def _paths(fields: Mapping[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    below = [name for name in fields if name != "."]
    if not below and before:
        yield before
    for name in below:
        yield from _paths(fields[name], (*before, name))


def _is_set(value: Any, path: tuple[str, ...]) -> bool:
    for name in path:
        value = _step(name, value)
    return value is not None


def _readable(path: tuple[str, ...]) -> str:
    text = ""
    for name in path:
        how, _, what = name.partition(":")
        text += f".{what}" if how == "f" else f"[{what.strip('{}')}]"
    return text.lstrip(".")
