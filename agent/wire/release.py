"""The release: the signed list of entries of one cluster (``release.json``).

Format 1. Unknown fields are ignored; what an agent must not ignore is named in ``requires``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal, cast

from agent.wire.canonical import Json, canonical, digest
from agent.wire.errors import Malformed
from agent.wire.fields import Fields, write_time
from agent.wire.model_signature import REQUIREMENT
from agent.wire.windows import Window, encode_window, read_window

FORMATS: Final = (1,)
"""Release formats that this version reads, oldest first."""

REQUIRES: Final = frozenset({"chart", REQUIREMENT})
"""What an entry may name in ``requires`` and this version can do."""

NAME: Final = "release.json"
SIGNATURE_NAME: Final = "release.json.sig"

Kind = Literal["model", "workload"]
Delivery = Literal["container", "server", "chart", "file", "manifests"]
"""``manifests`` is what a workload brings itself; the others are design.md §1."""

Retire = Literal["", "keep", "delete"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """Bytes of a version.

    Attributes:
        digest: sha256 of the OCI manifest, or of the file itself where ``media_type`` says so.
        size_bytes: of all layers together, or of the file.
        media_type: an OCI manifest's, or ``application/octet-stream`` for one plain file.
        ref: where to ask: ``hub://REPOSITORY``, ``oci://REGISTRY/REPOSITORY``, ``https://…`` or ``file:///…``.
        path: file name of a plain file; directory to take within an image; else empty.
    """

    digest: str
    size_bytes: int
    media_type: str
    ref: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What runs an entry: an inference server, or a workload's program on a host.

    Attributes:
        name: of the Runtime document; empty for a workload's own program.
        image: ``repository@sha256:…``; empty where only ``command`` is given.
        port: that the container listens on; 0 for none.
        protocol: ``v2``, ``http`` or empty (no readiness probe).
        path: of the readiness probe for ``http``.
        command: for platform host; ``{port}``, ``{model}``, ``{name}`` and ``{workload}`` are replaced.
    """

    name: str
    image: str = ""
    port: int = 0
    protocol: str = ""
    path: str = ""
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SelfTest:
    """A question and its answer, files of the overlay; ``tolerance`` is a decimal number as text."""

    input: str
    output: str
    tolerance: str = "0"


@dataclass(frozen=True, slots=True)
class ModelUse:
    """A model that a workload uses: ``version`` is the range it accepts."""

    name: str
    version: str = "*"
    mount: str = ""
    on_change: str = "restart"


@dataclass(frozen=True, slots=True)
class Entry:
    """One model or workload with everything that makes it run.

    ``digest`` (``entryDigest``) covers all but ``placement``, and the digests of the entry's files.

    A chart's first artifact is the chart; a second one is the model that goes with it. ``release`` is the name of its
    Helm release, and ``values`` are as agent/wire/chart.py reads them.
    """

    kind: Kind
    name: str
    version: str
    delivery: Delivery
    digest: str = ""
    placement: str = ""
    namespace: str = "edgeferry-models"
    artifacts: tuple[Artifact, ...] = ()
    images: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    runtime: Runtime | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    self_test: SelfTest | None = None
    switch: str = "auto"
    models: tuple[ModelUse, ...] = ()
    release: str = ""

    @property
    def directory(self) -> str:
        """Where the entry's files stand in the overlay, without a slash at the end."""
        return f"{self.kind}s/{self.name}"


@dataclass(frozen=True, slots=True)
class MaxOffline:
    """How long a site may hear nothing.

    Attributes:
        age_s: seconds since overlays could be asked for last.
        action: after that: ``keep`` goes on and says so, ``stop`` stops what runs until the site is heard of again.
    """

    age_s: int
    action: Literal["keep", "stop"] = "keep"


@dataclass(frozen=True, slots=True)
class Release:
    """What one cluster is to run.

    Attributes:
        cluster_key: fingerprint of the agent's key; empty while none is registered.
        sequence: grows with every change of ``content``.
        content: digest of all but itself, sequence, source_revision and published_at.
        published_at: time of the deciding step, UTC.
        source_revision: source name → commit.
        trust: number of the trust document that covers the signature.
        files: path within the overlay → sha256, for all but release, signature and trust.
        windows: it switches only then; none for always.
        keep: what is no longer asked for goes on, and is managed no more.
        returns: ``kind/NAME`` of the entries that go back to what ran before: they wait for no window.
        retries: ``kind/NAME`` → id of the order to try again what failed.
        max_offline: how long the site may hear nothing; None for as long as it takes.
    """

    fleet: str
    cluster: str
    sequence: int
    published_at: datetime
    trust: int
    entries: tuple[Entry, ...]
    files: Mapping[str, str]
    source_revision: Mapping[str, str] = field(default_factory=dict)
    cluster_key: str = ""
    content: str = ""
    retire: Retire = ""
    windows: tuple[Window, ...] = ()
    keep: bool = False
    returns: tuple[str, ...] = ()
    retries: Mapping[str, str] = field(default_factory=dict)
    max_offline: MaxOffline | None = None


def encode_entry(entry: Entry) -> dict[str, Any]:
    """Return the entry as JSON; fields at their default are left out."""
    out: dict[str, Any] = {
        "kind": entry.kind,
        "name": entry.name,
        "version": entry.version,
        "delivery": entry.delivery,
        "entryDigest": entry.digest,
        "placement": entry.placement,
        "namespace": entry.namespace,
        "requires": list(entry.requires),
        "artifacts": [_artifact(one) for one in entry.artifacts],
        "images": list(entry.images),
        "values": dict(entry.values),
        "switch": entry.switch,
        "models": [
            {"name": use.name, "version": use.version, "mount": use.mount, "onChange": use.on_change}
            for use in entry.models
        ],
    }
    if entry.runtime is not None:
        run = entry.runtime
        out["runtime"] = {
            "name": run.name,
            "image": run.image,
            "port": run.port,
            "protocol": run.protocol,
            "path": run.path,
            "command": list(run.command),
        }
    if entry.self_test is not None:
        test = entry.self_test
        out["selfTest"] = {"input": test.input, "output": test.output, "tolerance": test.tolerance}
    if entry.release:
        out["release"] = entry.release
    return out


def with_digest(entry: Entry, files: Mapping[str, bytes]) -> Entry:
    """Return the entry with its digest.

    Args:
        entry: the entry; its present digest is not looked at.
        files: path within the overlay → bytes, of this entry.
    """
    covered = encode_entry(entry)
    del covered["entryDigest"], covered["placement"]
    covered["files"] = {path: digest(data) for path, data in files.items()}
    return replace(entry, digest=digest(canonical(covered)))


def encode_release(release: Release, entries: list[dict[str, Any]] | None = None) -> tuple[bytes, str]:
    """Return the canonical bytes and the content digest.

    Args:
        release: its own ``content`` is not looked at.
        entries: the encoded entries where the caller has them already.
    """
    out: dict[str, Any] = {
        "format": 1,
        "fleet": release.fleet,
        "cluster": release.cluster,
        "clusterKey": release.cluster_key,
        "trust": release.trust,
        "entries": [encode_entry(entry) for entry in release.entries] if entries is None else entries,
        "windows": [encode_window(one) for one in release.windows],
        "link": {},
        "prefetch": [],
        "agent": "",
        "retire": release.retire,
        "files": dict(release.files),
    }
    if release.keep:
        out["deletionPolicy"] = "keep"
    if release.returns:
        out["returns"] = list(release.returns)
    if release.retries:
        out["retries"] = dict(release.retries)
    if release.max_offline is not None:
        out["maxOffline"] = {"seconds": release.max_offline.age_s, "action": release.max_offline.action}
    content = digest(canonical(out))
    out["content"] = content
    out["sequence"] = release.sequence
    out["sourceRevision"] = dict(release.source_revision)
    out["publishedAt"] = write_time(release.published_at)
    return canonical(out), content


def decode_release(data: bytes, where: str = NAME) -> Release:
    """Read a release. It proves nothing about who wrote it: see agent/verify.py.

    Raises:
        Malformed: a field is missing or of the wrong kind.
        UnsupportedFormat: a newer format.
    """
    top = Fields.parse(data, where)
    top.format(FORMATS)
    return Release(
        fleet=top.text("fleet"),
        cluster=top.text("cluster"),
        cluster_key=top.text("clusterKey", ""),
        sequence=top.integer("sequence"),
        content=top.digest("content"),
        published_at=top.time("publishedAt"),
        source_revision=top.mapping("sourceRevision"),
        trust=top.integer("trust"),
        entries=top.each("entries", decode_entry),
        files=top.mapping("files"),
        retire=cast(Retire, _one_of(top, "retire", ("", "keep", "delete"))),
        windows=top.each("windows", read_window),
        keep=top.text("deletionPolicy", "") == "keep",
        returns=top.texts("returns"),
        retries=top.mapping("retries"),
        max_offline=top.one("maxOffline", _read_max_offline),
    )


def decode_entry(item: Fields) -> Entry:
    """Read one entry."""
    return Entry(
        kind=cast(Kind, _one_of(item, "kind", ("model", "workload"))),
        name=item.text("name", most=253),
        version=item.text("version", most=253),
        delivery=cast(Delivery, item.text("delivery")),
        digest=item.digest("entryDigest"),
        placement=item.text("placement", ""),
        namespace=item.text("namespace", "edgeferry-models", most=63),
        artifacts=item.each("artifacts", _read_artifact),
        images=item.texts("images"),
        requires=item.texts("requires"),
        runtime=item.one("runtime", _read_runtime),
        values=item.mapping("values"),
        self_test=item.one(
            "selfTest", lambda test: SelfTest(test.text("input"), test.text("output"), test.text("tolerance", "0"))
        ),
        switch=item.text("switch", "auto"),
        models=item.each("models", _read_use),
        release=item.text("release", "", most=53),
    )


def _read_max_offline(item: Fields) -> MaxOffline:
    action = _one_of(item, "action", ("keep", "stop"))
    return MaxOffline(item.integer("seconds"), cast(Literal["keep", "stop"], action))


def _artifact(one: Artifact) -> dict[str, Any]:
    return {"digest": one.digest, "size": one.size_bytes, "mediaType": one.media_type, "ref": one.ref, "path": one.path}


def _read_artifact(item: Fields) -> Artifact:
    return Artifact(
        digest=item.digest("digest"),
        size_bytes=item.integer("size"),
        media_type=item.text("mediaType"),
        ref=item.text("ref"),
        path=item.text("path", ""),
    )


def _read_runtime(item: Fields) -> Runtime:
    return Runtime(
        name=item.text("name", ""),
        image=item.text("image", ""),
        port=item.integer("port", 0),
        protocol=item.text("protocol", ""),
        path=item.text("path", ""),
        command=item.texts("command"),
    )


def _read_use(item: Fields) -> ModelUse:
    return ModelUse(
        name=item.text("name"),
        version=item.text("version", "*"),
        mount=item.text("mount", ""),
        on_change=item.text("onChange", "restart"),
    )


def _one_of(item: Fields, name: str, known: tuple[str, ...]) -> Json:
    value = item.text(name, "" if "" in known else None)
    if value not in known:
        raise Malformed(f"{name} is {value[:40]!r}, not one of {', '.join(filter(None, known))}", where=item.where)
    return value
