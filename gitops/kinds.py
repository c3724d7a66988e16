"""The documents people write, as typed definitions. The JSON Schemas and the reference pages come from here.

A field stands here only when something acts on it: what is not implemented is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from gitops.names import label_key, label_value, version_number, version_wish

API_VERSION = "edgeferry.dev/v1alpha1"
MAX_NAME = 53

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
LabelKey = Annotated[str, AfterValidator(label_key)]
LabelValue = Annotated[str, AfterValidator(label_value)]
Version = Annotated[str, AfterValidator(version_number)]
VersionWish = Annotated[str, AfterValidator(version_wish)]
Labels = dict[LabelKey, LabelValue]
ImageRef = Annotated[str, StringConstraints(pattern=r"^[^\s@]+@sha256:[0-9a-f]{64}$")]
RelativePath = Annotated[str, StringConstraints(pattern=r"^[^/\s\\][^\\\x00]*$", max_length=512)]


class Spec(BaseModel):
    """Strict and frozen; names in YAML are camelCase."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=lambda s: s.split("_")[0] + "".join(w.title() for w in s.split("_")[1:]),
        populate_by_name=True,
    )


class Metadata(Spec):
    """Name and labels of a document."""

    name: Name
    labels: Labels = Field(default_factory=dict, description="Free labels; policies select by them.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Free text for people and tools.")


class VersionMetadata(Spec):
    """A model version's name and version."""

    name: Name
    version: Version
    labels: Labels = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Document(Spec):
    """What every kind has."""

    kind_name: ClassVar[str]
    later: ClassVar[tuple[str, ...]] = ()
    """Fields of ``spec`` that the design names and this version does not act on yet."""

    api_version: Literal["edgeferry.dev/v1alpha1"]
    kind: str
    metadata: Any
    spec: Any


# ---- Fleet


class FleetSpec(Spec):
    """Settings of the whole fleet."""


class Fleet(Document):
    """Settings of the whole fleet; one document, by custom fleet.yaml."""

    kind_name: ClassVar[str] = "Fleet"
    later = ("offlineAfter", "blastRadius", "deletionPolicy", "defaultRollout", "requireModelSignature")
    kind: Literal["Fleet"]
    metadata: Metadata | None = None
    spec: FleetSpec = FleetSpec()


# ---- Source


class Allow(Spec):
    """What a source may declare."""

    kinds: tuple[Literal["Model", "ModelVersion", "Workload", "Runtime"], ...] = Field(
        description="Kinds of documents it may hold."
    )
    names: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9*]([-a-z0-9*]{0,51}[a-z0-9*])?$")], ...] = Field(
        description="Names it may use; `*` stands for any run of characters."
    )


class SourceSpec(Spec):
    """Another team's repository, merged into the catalog."""

    url: str = Field(min_length=1, description="Anything `git clone` takes.")
    branch: str = Field(default="main", min_length=1)
    path: str = Field(default=".", description="Directory within it that is read.")
    allow: Allow


class Source(Document):
    """Admits another team's repository."""

    kind_name: ClassVar[str] = "Source"
    later = ("signers",)
    kind: Literal["Source"]
    metadata: Metadata
    spec: SourceSpec


# ---- Model and its versions


class Withdrawn(Spec):
    """A version that must not be chosen any more."""

    version: Version
    reason: str = Field(min_length=1)


class Needs(Spec):
    """What a cluster must have."""

    arch: tuple[Literal["amd64", "arm64", "arm", "riscv64", "ppc64le", "s390x"], ...] = Field(
        default=(), description="Architectures it runs on; empty for any."
    )


class SelfTestSpec(Spec):
    """A question asked of every new version before it serves."""

    input: RelativePath = Field(description="JSON body for the inference request; a file beside model.yaml.")
    output: RelativePath = Field(description="The answer wanted: every field in it must be in the answer.")
    tolerance: float = Field(default=0.0, ge=0, description="Numbers may differ by this much.")


class ModelSpec(Spec):
    """What all versions of a model share."""

    delivery: Literal["container", "server", "chart", "file"] = Field(description="How a version reaches its consumer.")
    runtime: Name | None = Field(default=None, description="Runtime document; needed for `server`.")
    namespace: Name = Field(default="edgeferry-models", description="Kubernetes namespace.")
    channels: dict[Name, Version] = Field(default_factory=dict, description="Names that point to a version and move.")
    withdrawn: tuple[Withdrawn, ...] = ()
    needs: Needs = Needs()
    values: dict[str, str] = Field(
        default_factory=dict, description="Environment and ConfigMap of `container` and `server`."
    )
    self_test: SelfTestSpec | None = None
    switch: Literal["beside", "replace", "auto"] = Field(
        default="auto", description="Test beside the running one, or stop, test, start or return."
    )
    port: int | None = Field(
        default=None, ge=1, le=65535, description="Port that the image of a `container` delivery listens on."
    )


class Model(Document):
    """A model: everything but its bytes."""

    kind_name: ClassVar[str] = "Model"
    later = ("feedback",)
    kind: Literal["Model"]
    metadata: Metadata
    spec: ModelSpec


class ArtifactSpec(Spec):
    """The model's bytes: a file beside version.yaml, or a reference with its digest."""

    path: RelativePath | None = Field(
        default=None, description="File or folder beside version.yaml, in Git or Git LFS."
    )
    ref: str | None = Field(
        default=None, pattern=r"^(oci|https|file)://[^\s]+$", description="Where the bytes are, for `digest`."
    )
    digest: Digest | None = None
    size: int | None = Field(default=None, ge=0, description="Bytes.")


class ImageSpec(Spec):
    """A container image by digest; `path` is the model's directory within it."""

    ref: str = Field(min_length=1, pattern=r"^[^\s@]+$")
    digest: Digest
    path: str = Field(default="", description="For `server` and `file`: the model's directory within the image.")


class ChartSpec(Spec):
    """A Helm chart by digest."""

    ref: str = Field(pattern=r"^oci://[^\s@]+$")
    digest: Digest


class ModelVersionSpec(Spec):
    """One version's bytes: exactly one of artifact, image, chart."""

    artifact: ArtifactSpec | None = None
    image: ImageSpec | None = None
    chart: ChartSpec | None = None


class ModelVersion(Document):
    """One immutable version. Optional where the version folder holds just the model file."""

    kind_name: ClassVar[str] = "ModelVersion"
    later = ("variants",)
    kind: Literal["ModelVersion"]
    metadata: VersionMetadata
    spec: ModelVersionSpec


# ---- Cluster


class ClusterSpec(Spec):
    """Settings of one cluster."""

    paused: bool = Field(default=False, description="Its published release stays as it is.")
    key: str | None = Field(
        default=None,
        pattern=r"^ssh-ed25519 [A-Za-z0-9+/=]+$",
        description="Public key of its agent, for fleets without a hub.",
    )


class Cluster(Document):
    """One registered edge target."""

    kind_name: ClassVar[str] = "Cluster"
    later = ("taints", "connection", "link", "windows")
    kind: Literal["Cluster"]
    metadata: Metadata
    spec: ClusterSpec = ClusterSpec()


# ---- Placement


class Expression(Spec):
    """One label requirement, as in Kubernetes."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[LabelValue, ...] = ()


class ClusterTerm(Spec):
    """One way to be selected; inside, everything is AND-ed."""

    names: tuple[Name, ...] | None = None
    match_labels: Labels = Field(default_factory=dict)
    match_expressions: tuple[Expression, ...] = ()


class Override(Spec):
    """Other values for some of the chosen clusters; the last that matches wins, key by key."""

    match_labels: Labels = Field(default_factory=dict)
    match_expressions: tuple[Expression, ...] = ()
    values: dict[str, str]


class PlacementSpec(Spec):
    """Which clusters, which version."""

    model: Name | None = None
    workload: Name | None = None
    version: VersionWish = Field(
        default="*",
        description="Exact version, range (`>=2.0 <3`), or `channel: stable`; the newest that is not withdrawn.",
    )
    clusters: tuple[ClusterTerm, ...] | None = Field(
        default=None, description="Terms are OR-ed. Left out: every cluster. Empty: none."
    )
    count: int | None = Field(default=None, ge=0, description="Take the best N. Left out: all that match.")
    priority: int = Field(
        default=0,
        ge=-1000,
        le=1000,
        description="The higher one wins where two placements claim the same model on a cluster.",
    )
    overrides: tuple[Override, ...] = ()


class Placement(Document):
    """The policy."""

    kind_name: ClassVar[str] = "Placement"
    later = ("models", "tolerations", "spread", "prefer", "nodes", "rollout", "rebalance", "handover", "evictOnFacts")
    kind: Literal["Placement"]
    metadata: Metadata
    spec: PlacementSpec


# ---- Workload


class ModelUseSpec(Spec):
    """A model that the workload uses."""

    name: Name
    version: VersionWish = Field(default="*", description="Range that this workload accepts.")
    mount: str = Field(default="", description="Directory in the workload's containers where the model appears.")
    on_change: Literal["restart", "reload", "none"] = Field(
        default="restart", description="What happens to the workload when the model is switched."
    )


class WorkloadPlacement(Spec):
    """Follows a placement of the models it uses."""

    same_as: Name
    version: VersionWish = "*"


class HostProgram(Spec):
    """How it runs on a bare host."""

    command: tuple[str, ...] = Field(
        min_length=1, description="`{workload}` is the version's folder, `{port}` a free port."
    )
    port: bool = Field(default=False, description="Give it a stable port with a forwarder in front.")
    ready_path: str = Field(default="", description="HTTP path that answers 200 when it is ready; needs `port`.")


class WorkloadSpec(Spec):
    """An application that uses models. Its manifests stand in versions/VERSION/ beside workload.yaml."""

    models: tuple[ModelUseSpec, ...] = ()
    namespace: Name = "edgeferry-models"
    placement: WorkloadPlacement | None = None
    host: HostProgram | None = None
    values: dict[str, str] = Field(default_factory=dict)


class Workload(Document):
    """An application that uses models."""

    kind_name: ClassVar[str] = "Workload"
    later = ("source",)
    kind: Literal["Workload"]
    metadata: Metadata
    spec: WorkloadSpec = WorkloadSpec()


# ---- Runtime


class RuntimeHost(Spec):
    """How it runs on a bare host."""

    command: tuple[str, ...] = Field(
        min_length=1, description="`{port}`, `{model}` (the staged file or folder) and `{name}` are replaced."
    )


class RuntimeSpec(Spec):
    """An inference server: image, or command on a host, or both."""

    image: ImageRef | None = None
    args: tuple[str, ...] = Field(
        default=(), description="Container arguments; `{port}`, `{model}` and `{name}` are replaced."
    )
    port: int = Field(default=8080, ge=1, le=65535)
    protocol: Literal["v2", "http"] = "v2"
    path: str = Field(default="/", description="Readiness path where protocol is `http`.")
    host: RuntimeHost | None = None


class Runtime(Document):
    """A named inference server for `server` deliveries."""

    kind_name: ClassVar[str] = "Runtime"
    kind: Literal["Runtime"]
    metadata: Metadata
    spec: RuntimeSpec


KINDS: dict[str, type[Document]] = {
    kind.kind_name: kind for kind in (Fleet, Source, Model, ModelVersion, Cluster, Placement, Workload, Runtime)
}
