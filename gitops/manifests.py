"""Kubernetes manifests of a workload's version: read as Kubernetes does, and checked for what may not travel. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gitops import faults, yaml_text
from gitops.faults import Fault
from gitops.validation import shown
from gitops.yaml_scalars import kubernetes
from gitops.yaml_text import Place, TextDocument

Object = dict[str, Any]

SUFFIXES: Final = (".yaml", ".yml")
_LOOKS: Final = re.compile(rb"""(?m)^(?:[ \t]*\{)?[ \t]*["']?(?:apiVersion|kind)["']?[ \t]*:""")
_NAME: Final = re.compile(r"[a-z0-9A-Z]([-a-z0-9A-Z._:]{0,251}[a-z0-9A-Z])?\Z")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_CLUSTER_SCOPED: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset({"Namespace", "Node", "PersistentVolume", "ComponentStatus"}),
    "rbac.authorization.k8s.io": frozenset({"ClusterRole", "ClusterRoleBinding"}),
    "apiextensions.k8s.io": frozenset({"CustomResourceDefinition"}),
    "apiregistration.k8s.io": frozenset({"APIService"}),
    "admissionregistration.k8s.io": frozenset(
        {
            "MutatingWebhookConfiguration",
            "ValidatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
        }
    ),
    "certificates.k8s.io": frozenset({"CertificateSigningRequest", "ClusterTrustBundle"}),
    "flowcontrol.apiserver.k8s.io": frozenset({"FlowSchema", "PriorityLevelConfiguration"}),
    "networking.k8s.io": frozenset({"IngressClass", "IPAddress", "ServiceCIDR"}),
    "node.k8s.io": frozenset({"RuntimeClass"}),
    "resource.k8s.io": frozenset({"DeviceClass", "ResourceSlice"}),
    "scheduling.k8s.io": frozenset({"PriorityClass"}),
    "storage.k8s.io": frozenset({"StorageClass", "VolumeAttachment", "CSIDriver", "CSINode", "VolumeAttributesClass"}),
    "cert-manager.io": frozenset({"ClusterIssuer"}),
    "gateway.networking.k8s.io": frozenset({"GatewayClass"}),
    "snapshot.storage.k8s.io": frozenset({"VolumeSnapshotClass", "VolumeSnapshotContent"}),
}
"""API group → kinds that have no namespace. Source: `kubectl api-resources --namespaced=false` of Kubernetes 1.34."""


def load(data: bytes) -> list[Object]:
    """Return the objects of a manifest file that was checked: mappings are dicts, sequences tuples."""
    texts, _ = yaml_text.read(data, "", "", kubernetes, merge_keys=True)
    return [text.value for text in texts]


def is_manifest(path: str, data: bytes) -> bool:
    """Tell whether a file of a version's folder is meant for Kubernetes; it is content otherwise."""
    return path.endswith(SUFFIXES) and _LOOKS.search(data) is not None


def check(files: Mapping[str, bytes], folder: str, source: str, namespace: str) -> list[Fault]:
    """Return the faults of one version's manifests.

    Args:
        files: path within the folder → bytes, as ``is_manifest`` found them.
        folder: for faults; ends with a slash.
        source: for faults.
        namespace: of objects that name none.
    """
    found: list[Fault] = []
    seen: dict[tuple[str, str, str, str], str] = {}
    stems: dict[str, str] = {}
    for name, data in sorted(files.items()):
        path = folder + name
        texts, mine = yaml_text.read(data, path, source, kubernetes, merge_keys=True, marks=True)
        for number, text in enumerate(texts):
            for place, what, do in _object(text.value):
                line, column = _position(text, place)
                mine.append(faults.BAD_MANIFEST.at(path, what, do, line=line, column=column, source=source))
            identity = _identity(text.value, namespace)
            where = f"{path}:{text.line}:{text.column}"
            if identity is not None and seen.setdefault(identity, where) != where:
                what = f"{identity[1]} {identity[3]} stands at {seen[identity]} too"
                line, column = text.line, text.column
                mine.append(
                    faults.BAD_MANIFEST.at(path, what, "keep one of them", line=line, column=column, source=source)
                )
            stem = name.removesuffix(".yml").removesuffix(".yaml") + (f"-{number}" if number else "")
            if stems.setdefault(stem, where) != where:
                what = f"its objects would be written to the same file as those of {stems[stem]}"
                mine.append(faults.BAD_MANIFEST.at(path, what, "rename one of the files", source=source))
        found += faults.first(mine)
    return found


def _object(value: Any) -> Iterator[tuple[Place, str, str]]:
    if not isinstance(value, dict):
        yield (), f"{yaml_text.type_name(value)} where an object should be", "begin with apiVersion and kind"
        return
    for field in ("apiVersion", "kind"):
        if not isinstance(value.get(field), str) or not value[field]:
            yield (field,), f"`{field}` is missing or no text", "every object needs it"
    metadata = value.get("metadata")
    if isinstance(value.get("kind"), str) and isinstance(value.get("apiVersion"), str):
        yield from _kind(value["apiVersion"], value["kind"], value)
    if not isinstance(metadata, dict):
        yield ("metadata",), "`metadata` is missing or no mapping", "every object needs a name"
        return
    yield from _metadata(metadata)


def _kind(version: str, kind: str, value: Object) -> Iterator[tuple[Place, str, str]]:
    group = version.rpartition("/")[0]
    if kind.endswith("List") and "items" in value:
        yield ("kind",), f"a {shown(kind)}", "write its items as documents of their own, with `---` between them"
    elif (group, kind) == ("", "Secret"):
        yield ("kind",), "a Secret may not stand in an overlay", "make it at the edge, and refer to it by name"
    elif kind in _CLUSTER_SCOPED.get(group, ()):
        do = "have it set up on the cluster, not by a workload"
        yield ("kind",), f"{kind} belongs to the whole cluster", do
    elif group in ("kustomize.config.k8s.io", "kustomize.toolkit.fluxcd.io"):
        yield ("kind",), "a kustomization is not built here", "put the output of `kubectl kustomize` here"
    elif group == "edgeferry.dev":
        yield ("kind",), f"a document of ours, {shown(kind)}, among manifests", "move it out of the version's folder"


def _metadata(metadata: Object) -> Iterator[tuple[Place, str, str]]:
    name = metadata.get("name")
    if name is None and "generateName" in metadata:
        yield ("metadata", "generateName"), "generateName gives another object each time", "write `name`"
    elif not isinstance(name, str) or not _NAME.match(name):
        yield ("metadata", "name"), "`metadata.name` is missing or no name", "every object needs a name"
    namespace = metadata.get("namespace")
    if namespace is not None and not (isinstance(namespace, str) and _NAMESPACE.match(namespace)):
        yield ("metadata", "namespace"), f"{shown(namespace)} is no namespace", "write one, or leave it out"
    for field in ("labels", "annotations"):
        pairs = metadata.get(field)
        if pairs is None:
            continue
        if not isinstance(pairs, dict):
            yield ("metadata", field), f"{field} is no mapping", "write key: value"
            continue
        for key, one in pairs.items():
            if not isinstance(one, str):
                yield ("metadata", field, key), f"{shown(key)} is {yaml_text.type_name(one)}, wanted text", "quote it"


def _identity(value: Any, namespace: str) -> tuple[str, str, str, str] | None:
    if not isinstance(value, dict) or not isinstance(metadata := value.get("metadata"), dict):
        return None
    version, kind, name = value.get("apiVersion"), value.get("kind"), metadata.get("name")
    own = metadata.get("namespace") or namespace
    if not all(isinstance(one, str) for one in (version, kind, name, own)):
        return None
    return str(version).rpartition("/")[0], str(kind), str(own), str(name)


def _position(text: TextDocument, place: Place) -> tuple[int, int]:
    while place and place not in text.marks:
        place = place[:-1]
    mark = text.marks.get(place)
    return (text.line, text.column) if mark is None else (mark.line, mark.column)
