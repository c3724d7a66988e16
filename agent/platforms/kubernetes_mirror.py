"""What the cluster has of ours, kept up to date by watches: a look at it asks the API server nothing.

One thread for each kind and namespace lists once and then watches with bookmarks. Of each object only what a look needs
is kept, so a thousand objects cost a few hundred kilobytes.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from agent.platforms.kubernetes_client import Api
from agent.platforms.kubernetes_errors import ApiUnreachable, Expired, NotFound
from agent.platforms.kubernetes_fields import own_data, own_digest
from agent.platforms.kubernetes_health import Judgement, judge
from agent.platforms.kubernetes_inventory import LABEL
from agent.platforms.kubernetes_objects import MANAGED_BY, MANAGER, Json, Key, Resource, kept, key_of
from agent.wire.errors import EdgeferryError

MODELS_FILE: Final = "edgeferry-models"
"""Name of the ConfigMap that tells consumers where the models are."""

_SELECTOR: Final = f"{MANAGED_BY}={MANAGER},!{LABEL}"
_WATCH_S: Final = 290
_LONGEST_PAUSE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Live:
    """What a look needs of one object.

    Attributes:
        uid: changes when the object is made anew.
        version: resource version; grows.
        own: digest of our fields.
        health: of the object by itself.
        keep: its annotation says that it outlives its entry.
        selector: label selector of its pods where it has some and is not current; else empty.
        data: what we say in a models file; else None.
    """

    uid: str
    version: int
    own: str
    health: Judgement
    keep: bool = False
    selector: str = ""
    data: Mapping[str, str] | None = None


class Mirror:
    """Objects with our label, of the kinds and namespaces that were asked for. Threads may share it.

    Attributes:
        changes: grows whenever something that a look could see has changed.
        listener: called then, by any thread; it must return at once.
    """

    def __init__(self, api: Api) -> None:
        self.changes = 0
        self.listener: Callable[[], None] | None = None
        self._api = api
        self._live: dict[Key, Live] = {}
        self._watchers: dict[tuple[str, str, str], _Watcher] = {}
        self._changed = threading.Condition()

    def follow(self, places: Iterable[tuple[Resource, str]]) -> None:
        """Begin to watch what is not watched yet; end what is not named any more."""
        wanted = {(resource.group, resource.kind, namespace): resource for resource, namespace in places}
        for place in self._watchers.keys() - wanted.keys():
            self._watchers.pop(place).stop()
            with self._changed:
                gone = [key for key in self._live if _covers(place, key)]
                for key in gone:
                    del self._live[key]
        for place in sorted(wanted.keys() - self._watchers.keys()):
            watcher = self._watchers[place] = _Watcher(self._api, self, wanted[place], place[2])
            watcher.start()

    def settle(self, limit_s: float) -> None:
        """Return when every watch has seen the present state.

        Raises:
            EdgeferryError: one of them cannot: the API server is away, or a right is missing.
        """
        deadline = time.monotonic() + limit_s
        with self._changed:
            while True:
                for watcher in self._watchers.values():
                    if watcher.crash is not None:
                        raise watcher.crash
                    if watcher.fault is not None:
                        raise watcher.fault
                waiting = [one for one in self._watchers.values() if not one.synced]
                left = deadline - time.monotonic()
                if not waiting:
                    return
                if left <= 0:
                    raise ApiUnreachable(f"the list of {waiting[0].resource.kind} does not come")
                self._changed.wait(left)

    def get(self, key: Key) -> Live | None:
        """Return an object, or None where it is not there or without our label."""
        return self._live.get(key)

    def put(self, live: Json) -> None:
        """Take in an object that the API server sent, unless a newer one is known."""
        key, found = key_of(live), _reduced(live)
        with self._changed:
            known = self._live.get(key)
            if known is None or known.version < found.version:
                self._live[key] = found
                if known is None or replace(known, version=found.version) != found:
                    self._note()

    def remove(self, key: Key, version: int) -> None:
        """Take in that an object went at a resource version."""
        with self._changed:
            known = self._live.get(key)
            if known is not None and known.version <= version:
                del self._live[key]
                self._note()

    def replace(self, place: tuple[str, str, str], found: Mapping[Key, Live], version: int) -> None:
        """Take in a whole list, as of a resource version."""
        with self._changed:
            for key in [key for key, live in self._live.items() if _covers(place, key) and live.version <= version]:
                if key not in found:
                    del self._live[key]
            for key, live in found.items():
                known = self._live.get(key)
                if known is None or known.version < live.version:
                    self._live[key] = live
            self._note()

    def wake(self) -> None:
        """Have waiting looks look at the watchers again."""
        with self._changed:
            self._note()

    def close(self) -> None:
        """End every watch."""
        for watcher in self._watchers.values():
            watcher.stop()
        self._watchers.clear()

    def _note(self) -> None:
        self.changes += 1
        self._changed.notify_all()
        if self.listener is not None:
            self.listener()


@dataclass(eq=False)
class _Watcher(threading.Thread):
    """Keeps one kind of one namespace (or of all) in the mirror."""

    api: Api
    mirror: Mirror
    resource: Resource
    namespace: str
    synced: bool = False
    fault: EdgeferryError | None = None
    crash: Exception | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(name=f"watch {self.resource.plural} {self.namespace}", daemon=True)

    def stop(self) -> None:
        """Ask the thread to end; it does at its next event."""
        self._ended.set()

    def run(self) -> None:
        """List and watch until stopped; a fault is kept for the next look."""
        pause_s = 0.5
        while not self._ended.is_set():
            try:
                version = self._list()
                pause_s = 0.5
                self._state(synced=True)
                self._watch(version)
            except Expired:
                continue
            except NotFound:
                # The kind is gone, and every object of it; it may come back.
                self.mirror.replace(self._place, {}, 1 << 62)
                self.api.forget(self.resource)
                self._state(synced=True)
                self._ended.wait(_LONGEST_PAUSE_S)
            except EdgeferryError as fault:
                self._state(synced=False, fault=fault)
                self._ended.wait(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            except Exception as bug:
                self.crash = bug
                self.mirror.wake()
                return

    @property
    def _place(self) -> tuple[str, str, str]:
        return self.resource.group, self.resource.kind, self.namespace

    def _state(self, *, synced: bool, fault: EdgeferryError | None = None) -> None:
        if (self.synced, self.fault) != (synced, fault):
            self.synced, self.fault = synced, fault
            self.mirror.wake()

    def _list(self) -> int:
        found: dict[Key, Live] = {}
        version = 0
        for page in self.api.pages(self.resource, self.namespace, _SELECTOR):
            version = version or int(page["metadata"]["resourceVersion"])
            for item in page["items"]:
                live = {**item, "apiVersion": self.resource.api_version, "kind": self.resource.kind}
                found[key_of(live)] = _reduced(live)
        self.mirror.replace(self._place, found, version)
        return version

    def _watch(self, version: int) -> None:
        while not self._ended.is_set():
            try:
                for event in self.api.watch(self.resource, self.namespace, _SELECTOR, str(version), _WATCH_S):
                    live = event["object"]
                    version = int(live["metadata"]["resourceVersion"])
                    if event["type"] == "DELETED":
                        self.mirror.remove(key_of(live), version)
                    elif event["type"] != "BOOKMARK":
                        self.mirror.put(live)
                    if self._ended.is_set():
                        return
            except ApiUnreachable:
                # A connection ends for many reasons; whether the server is away says the next list.
                return


def _reduced(live: Json) -> Live:
    metadata = live["metadata"]
    health = judge(live)
    status = live.get("status") or {}
    pods = status.get("replicas") or status.get("desiredNumberScheduled")
    asks = live["apiVersion"] == "apps/v1" and health[0] != "current" and pods
    return Live(
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        own=own_digest(live),
        health=health,
        keep=kept(live),
        selector=label_selector(live["spec"].get("selector") or {}) if asks else "",
        data=own_data(live) if metadata["name"] == MODELS_FILE and live["kind"] == "ConfigMap" else None,
    )


def label_selector(selector: Json) -> str:
    """Return a label selector of an object in the form of a query."""
    terms = [f"{name}={value}" for name, value in (selector.get("matchLabels") or {}).items()]
    for one in selector.get("matchExpressions") or ():
        key, values = one["key"], ",".join(one.get("values") or ())
        terms.append(
            {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}.get(
                one["operator"], f"!{key}"
            )
        )
    return ",".join(sorted(terms))


def _covers(place: tuple[str, str, str], key: Key) -> bool:
    group, kind, namespace = place
    return (key.group, key.kind) == (group, kind) and namespace in ("", key.namespace)
