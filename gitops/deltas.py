"""Deltas between the versions of a model that the store has: which are wanted, how one is made, which are thrown away.

A delta is kept as an OCI artifact in the repository of its model, with ``subject`` the new version: see
agent/delta_offers.py. A pair that is not worth a delta is kept as one without layers, so that it is not tried again.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.wire.canonical import canonical
from agent.wire.errors import Retry
from gitops.artifacts import ArtifactStore
from gitops.oci_manifest import OCI_MANIFEST

DELTA_TYPE: Final = "application/vnd.dev.edgeferry.delta.v1+json"
LAYER_TYPE: Final = "application/vnd.dev.edgeferry.delta.layer.v1"
BASE: Final = "dev.edgeferry.delta.base"
RESULT: Final = "dev.edgeferry.delta.result"
CODEC: Final = "dev.edgeferry.delta.codec"
BYTES: Final = "dev.edgeferry.delta.bytes"

WORTH: Final = 0.9
"""A delta above this share of the file is not kept."""

LEAST_BYTES: Final = 16 << 10
"""Files below this are fetched whole."""

_EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
_TITLE: Final = "org.opencontainers.image.title"


class DeltaNotMade(Retry):
    """The program that makes a delta failed; agents fetch whole files meanwhile."""

    code = "EF2203"
    delay_s = 300.0


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """Two artifacts of one repository.

    Attributes:
        base: digest of the manifest that a site has; empty for nothing.
        new: digest of the manifest that it is to get.
    """

    repository: str
    base: str
    new: str


@dataclass(frozen=True, slots=True)
class Site:
    """What matters of one cluster.

    Attributes:
        wanted: repository → version that its release names.
        here: digests of the artifacts that are complete there.
    """

    wanted: Mapping[str, str]
    here: frozenset[str]


@dataclass(frozen=True, slots=True)
class Delta:
    """One delta artifact of a repository.

    Attributes:
        layers: 0 where the pair was not worth one.
    """

    pair: Pair
    digest: str
    size_bytes: int
    layers: int
    codecs: tuple[str, ...] = ()


def wanted(store: ArtifactStore, sites: Iterable[Site]) -> list[Pair]:
    """Return the pairs that sites wait for and that are not made yet, those first that most sites wait for."""
    count: Counter[Pair] = Counter()
    listed: dict[str, dict[str, str]] = {}
    for site in sites:
        for repository, version in site.wanted.items():
            if repository not in listed:
                entries = store.repositories.entries(repository)
                listed[repository] = {one.tag: one.digest for one in entries if one.tag}
            new = listed[repository].get(version)
            if new is None or new in site.here:
                continue
            count[Pair(repository, "", new)] += 1
            bases = site.here & set(listed[repository].values())
            count.update(Pair(repository, base, new) for base in bases)
    made = {delta.pair for repository in listed for delta in deltas_of(store, repository)}
    return [pair for pair, _ in sorted(count.items(), key=lambda item: (-item[1], item[0])) if pair not in made]


def deltas_of(store: ArtifactStore, repository: str) -> list[Delta]:
    """Return the deltas that a repository holds, in order of their pairs."""
    found = []
    for one in store.repositories.entries(repository):
        if not one.subject or not store.has(one.digest):
            continue
        top = json.loads(store.manifest_bytes(one.digest))
        if top.get("artifactType") != DELTA_TYPE:
            continue
        layers = top["layers"] if top["layers"][0]["mediaType"] != _EMPTY_TYPE else []
        notes = [layer.get("annotations", {}) for layer in layers]
        pair = Pair(repository, top.get("annotations", {}).get(BASE, ""), one.subject)
        size = sum(layer["size"] for layer in layers)
        found.append(Delta(pair, one.digest, size, len(layers), tuple(note.get(CODEC, "") for note in notes)))
    return sorted(found, key=lambda delta: (delta.pair, delta.digest))


Encode = Callable[[Path | None, Path, Path], tuple[str, int]]
"""(old, new, delta) → codec and size of what was written to ``delta``."""


def make(store: ArtifactStore, pair: Pair, encode: Encode) -> Delta:
    """Make the delta of a pair and keep it, also where nothing is gained: then it has no layers.

    Raises:
        NoSuchBlob: a manifest or a file is not in the store.
        DeltaNotMade: the encoder failed.
        StoreFull: no room.
    """
    old = _layers(store, pair.base) if pair.base else []
    known = {layer["digest"] for layer in old}
    layers: list[dict[str, Any]] = []
    for layer in _layers(store, pair.new):
        if (
            layer["digest"] in known
            or layer["size"] < LEAST_BYTES
            or any(layer["digest"] == one["annotations"][RESULT] for one in layers)
        ):
            continue
        base = _alike(layer, old) if pair.base else None
        if pair.base and base is None:
            continue
        made = _encoded(store, base, layer, encode)
        if made is not None:
            layers.append(made)
    return _keep(store, pair, layers)


class Encoder:
    """Encodes in a process of its own, at low priority: its memory is gone afterwards. One at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def __call__(self, old: Path | None, new: Path, delta: Path) -> tuple[str, int]:
        """Write a delta; return its codec and size.

        Raises:
            DeltaNotMade: it failed, or was stopped.
        """
        words = [str(old) if old is not None else "", str(new), str(delta)]
        with subprocess.Popen(
            [sys.executable, "-m", "gitops.delta_encode", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            self._process = process
            if self._stopped:
                process.kill()
            told, said = process.communicate()
            self._process = None
        if process.returncode:
            lines = said.strip().splitlines()
            raise DeltaNotMade(lines[-1][:300] if lines else f"status {process.returncode}", where=new.name[:19])
        codec, size = told.split()
        return codec, int(size)

    def stop(self) -> None:
        """End the one under way, and every later one."""
        self._stopped = True
        process = self._process
        if process is not None:
            process.kill()


def drop_old(store: ArtifactStore, wanted_now: Callable[[str], bool], now_s: float, unused_s: float) -> int:
    """Throw away deltas to versions that no site waits for and that nobody asked for lately; return how many.

    Args:
        store: that holds them.
        wanted_now: tells whether a manifest is named by any release.
        now_s: the time, in s since the epoch.
        unused_s: deltas to wanted versions go too when nobody asked for so long.
    """
    count = 0
    for repository in store.repositories.names():
        for delta in deltas_of(store, repository):
            age = store.unused_s(delta.digest, now_s)
            if age > unused_s or (age > unused_s / 30 and not wanted_now(delta.pair.new)):
                drop(store, delta)
                count += 1
    return count


def drop(store: ArtifactStore, delta: Delta) -> None:
    """Throw away one delta with its bytes."""
    with contextlib.suppress(FileNotFoundError):
        layers = [layer["digest"] for layer in json.loads(store.manifest_bytes(delta.digest))["layers"]]
        store.repositories.remove(delta.pair.repository, digest=delta.digest)
        for blob in [delta.digest, *layers]:
            if not store.user_of(blob):
                store.path(blob).unlink(missing_ok=True)


def _layers(store: ArtifactStore, manifest: str) -> list[dict[str, Any]]:
    """Return the layers that are one plain file each; an index, as of variants, has none."""
    top = json.loads(store.manifest_bytes(manifest))
    return [one for one in top.get("layers", []) if not one["mediaType"].endswith((".tar", "+gzip", "+zstd"))]


def _alike(layer: Mapping[str, Any], old: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the old layer under the same file name, else the largest of the same ending; None for none."""
    name = layer.get("annotations", {}).get(_TITLE, "")
    ending = name.rpartition(".")[2]
    found = [one for one in old if one.get("annotations", {}).get(_TITLE, "").rpartition(".")[2] == ending]
    same = [one for one in found if one.get("annotations", {}).get(_TITLE) == name]
    return max(same or found, key=lambda one: int(one["size"]), default=None)


def _encoded(
    store: ArtifactStore, base: Mapping[str, Any] | None, layer: Mapping[str, Any], encode: Encode
) -> dict[str, Any] | None:
    delta = store.incoming / f"delta-{layer['digest'][7:19]}-{(base or {'digest': 'sha256:nothing'})['digest'][7:19]}"
    old = store.path(base["digest"]) if base is not None else None
    try:
        with store.full_named():
            codec, size = encode(old, store.path(layer["digest"]), delta)
        if size > WORTH * layer["size"]:
            return None
        with delta.open("rb") as file:
            stored = store.put_blob(file)
    finally:
        delta.unlink(missing_ok=True)
    notes = {RESULT: layer["digest"], CODEC: codec} | ({BASE: base["digest"]} if base is not None else {})
    return {"mediaType": LAYER_TYPE, "digest": stored.digest, "size": stored.size_bytes, "annotations": notes}


def _keep(store: ArtifactStore, pair: Pair, layers: list[dict[str, Any]]) -> Delta:
    nothing = {"mediaType": _EMPTY_TYPE, "digest": store.put_bytes(b"{}").digest, "size": 2}
    size = sum(layer["size"] for layer in layers)
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": DELTA_TYPE,
            "config": nothing,
            "layers": layers or [nothing],
            "subject": {"mediaType": OCI_MANIFEST, "digest": pair.new, "size": store.size_bytes(pair.new)},
            "annotations": {BYTES: str(size)} | ({BASE: pair.base} if pair.base else {}),
        }
    )
    digest = store.put_manifest(pair.repository, manifest)
    return Delta(pair, digest, size, len(layers), tuple(layer["annotations"][CODEC] for layer in layers))
