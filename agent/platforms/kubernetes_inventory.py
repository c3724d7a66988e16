"""The inventory of a cluster: which objects this agent put there and may remove.

It stands in the cluster itself, one ConfigMap for each entry in the agent's own namespace, and so has the fate of the
objects: a lost disk of the agent loses nothing, a restored etcd has both or neither (docs/adr/0008-kubernetes.md).
An object is in it before it is made, and until it is gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final

from agent.platforms.kubernetes_client import Api
from agent.platforms.kubernetes_errors import ChangedMeanwhile, InventoryFull, InventoryUnreadable, NotFound
from agent.platforms.kubernetes_objects import MANAGED_BY, MANAGER, Json, Key, Resource, key_of

LABEL: Final = "edgeferry.dev/inventory"
NAMESPACE: Final = "edgeferry"
"""Where the inventory is when neither pod nor kubeconfig names a namespace."""

CONFIG_MAPS: Final = Resource("v1", "ConfigMap", "configmaps", True)
NAMESPACES: Final = Resource("v1", "Namespace", "namespaces", False)

_FORMAT: Final = 1
_MOST_BYTES: Final = 1_000_000
"""A ConfigMap holds 1 MiB: some 8,000 objects."""

Id = tuple[str, str]
"""Kind and name of an entry; ``("announce", NAMESPACE)`` for the models file of a namespace."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One object of an entry.

    Attributes:
        api_version: that it was applied by.
        uid: of the object that we applied; empty while that is only intended.
        wanted: digest of what was applied; empty as above.
        own: digest of our fields as they were right after applying; empty as above.
    """

    api_version: str
    uid: str = ""
    wanted: str = ""
    own: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What is on the cluster of one entry.

    Attributes:
        kind, name: of the entry.
        namespace: of the entry.
        version: of the entry that ``digest`` names.
        digest: entry digest that was last applied completely; empty for none yet.
        applying: entry digest that is being applied; empty for none.
        before: entry digest that was applied completely before that one; empty for none.
        models: annotation of its pod templates; empty for none.
        url: for consumers; empty for none.
        release: of Helm, for what is delivered as chart; else empty.
        revision: of that release that we made last.
        objects: all that may be there.
    """

    kind: str
    name: str
    namespace: str
    version: str = ""
    digest: str = ""
    applying: str = ""
    before: str = ""
    models: str = ""
    url: str = ""
    release: str = ""
    revision: int = 0
    objects: Mapping[Key, Placed] = field(default_factory=dict)

    @property
    def id(self) -> Id:
        """Kind and name."""
        return self.kind, self.name


class Inventory:
    """All records of one agent, read once and written through. Nobody else writes them."""

    def __init__(self, api: Api, cluster: str) -> None:
        """Read nothing yet.

        Args:
            api: of the cluster.
            cluster: what tells this agent from another one in the same namespace: fleet and cluster.
        """
        self.changes = 0
        self.namespace = api.home or NAMESPACE
        self._api = api
        self.agent = sha256(cluster.encode()).hexdigest()[:16]
        self._records: dict[Id, Record] | None = None
        self._versions: dict[Id, str] = {}

    @property
    def records(self) -> Mapping[Id, Record]:
        """Every record.

        Raises:
            InventoryUnreadable: somebody wrote into one.
            EdgeferryError: the API server does not give them.
        """
        if self._records is None:
            found: dict[Id, Record] = {}
            try:
                for page in self._api.pages(CONFIG_MAPS, self.namespace, f"{LABEL}={self.agent}"):
                    for live in page["items"]:
                        record = _read(live)
                        found[record.id] = record
                        self._versions[record.id] = live["metadata"]["resourceVersion"]
            except NotFound:
                found = {}
            self._records = found
            self.changes += 1
        return self._records

    def owner(self, key: Key) -> Record | None:
        """Return the record that has this object, or None."""
        return next((record for record in self.records.values() if key in record.objects), None)

    def remember(self, record: Record) -> None:
        """Keep what was done, without writing it: enough until the process ends, as doing it again does no harm."""
        assert self._records is not None
        self._records[record.id] = record
        self.changes += 1

    def save(self, record: Record) -> None:
        """Write a record; it is on the API server's disk when this returns.

        Raises:
            InventoryFull: too many objects.
            ChangedMeanwhile: another agent writes it; ours is read again next time.
        """
        data = _write(record)
        if len(data) > _MOST_BYTES:
            raise InventoryFull(
                f"{len(record.objects)} objects are too many for one entry",
                where=f"{record.kind}/{record.name}",
                do="split the workload",
            )
        body = self._body(record.id, data)
        version = self._versions.get(record.id)
        path = CONFIG_MAPS.path(self.namespace)
        name = body["metadata"]["name"]
        try:
            if version is not None:
                body["metadata"]["resourceVersion"] = version
                try:
                    live = self._api.request("PUT", f"{path}/{name}", body=body, where=name)
                except NotFound:
                    del body["metadata"]["resourceVersion"]
                    live = self._create(path, body)
            else:
                live = self._create(path, body)
        except ChangedMeanwhile:
            self._records = None
            self._versions.clear()
            raise
        self._versions[record.id] = live["metadata"]["resourceVersion"]
        self.remember(record)

    def drop(self, record: Record) -> None:
        """Forget a record of which nothing is left."""
        name = self._body(record.id, "")["metadata"]["name"]
        try:
            self._api.request("DELETE", f"{CONFIG_MAPS.path(self.namespace)}/{name}", where=name)
        except NotFound:
            pass
        assert self._records is not None
        self._records.pop(record.id, None)
        self._versions.pop(record.id, None)
        self.changes += 1

    def _create(self, path: str, body: Json) -> Json:
        try:
            return self._api.request("POST", path, body=body, where=body["metadata"]["name"])
        except NotFound:
            make_namespace(self._api, self.namespace)
            return self._api.request("POST", path, body=body, where=body["metadata"]["name"])

    def _body(self, of: Id, data: str) -> Json:
        told_apart = sha256("\0".join((self.agent, *of)).encode()).hexdigest()[:10]
        labels = {MANAGED_BY: MANAGER, LABEL: self.agent}
        metadata = {"name": f"inventory-{of[0]}-{of[1][:63]}-{told_apart}", "labels": labels}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"record": data}}


def make_namespace(api: Api, name: str) -> None:
    """Make a namespace; one that is there already is fine."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {MANAGED_BY: MANAGER}}}
    try:
        api.request("POST", NAMESPACES.path(), body=body, where=f"Namespace {name}")
    except ChangedMeanwhile:
        return


def finished(record: Record, objects: Mapping[Key, Placed]) -> Record:
    """Return the record once everything of ``applying`` is there and nothing else."""
    before = record.before if record.digest in ("", record.applying) else record.digest
    return replace(record, digest=record.applying, before=before, applying="", objects=objects)


def _write(record: Record) -> str:
    value = {
        "format": _FORMAT,
        "kind": record.kind,
        "name": record.name,
        "namespace": record.namespace,
        "version": record.version,
        "entryDigest": record.digest,
        "applying": record.applying,
        "before": record.before,
        "models": record.models,
        "url": record.url,
        **({"release": record.release, "revision": record.revision} if record.release else {}),
        "objects": [
            [one.api_version, key.kind, key.namespace, key.name, one.uid, one.wanted, one.own]
            for key, one in sorted(record.objects.items())
        ],
    }
    return json.dumps(value, indent=None, separators=(",", ":"))


def _read(live: Json) -> Record:
    try:
        value: dict[str, Any] = json.loads(live["data"]["record"])
        if value["format"] != _FORMAT:
            raise ValueError(f"format {value['format']!r}")
        objects = {
            Key(api_version.rpartition("/")[0], kind, namespace, name): Placed(api_version, uid, wanted, own)
            for api_version, kind, namespace, name, uid, wanted, own in value["objects"]
        }
        return Record(
            kind=value["kind"],
            name=value["name"],
            namespace=value["namespace"],
            version=value["version"],
            digest=value["entryDigest"],
            applying=value["applying"],
            before=value["before"],
            models=value["models"],
            url=value["url"],
            release=value.get("release", ""),
            revision=int(value.get("revision", 0)),
            objects=objects,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InventoryUnreadable(
            f"{type(error).__name__}: {error}",
            where=str(key_of({"apiVersion": "v1", "kind": "ConfigMap", **live})),
            do="restore the ConfigMap, or delete it: the objects stay, and are taken up again at the next switch",
        ) from None
