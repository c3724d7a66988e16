"""The documents people write, as typed definitions. The JSON Schemas and the reference pages come from here.

A field stands here only when something acts on it: what is not implemented is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from gitops import names as syntax

API_VERSION = "edgeferry.dev/v1alpha1"
MAX_NAME = 53

_NAME: Final = r"^[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?$"
_GLOB: Final = r"^[a-z0-9*]([-a-z0-9*]{0,51}[a-z0-9*])?$"
_DIGEST: Final = r"^sha256:[0-9a-f]{64}$"
_IMAGE: Final = r"^[^\s@]+@sha256:[0-9a-f]{64}$"
_REF: Final = r"^(oci|https|file)://[^\s]+$"
_IMAGE_NAME: Final = r"^[^\s@]+$"
_CHART: Final = r"^oci://[^\s@]+$"
_ABSOLUTE: Final = r"^(/\S+)?$"
_URL_PATH: Final = r"^(/\S*)?$"
_VALUE_KEY: Final = r"^[A-Za-z_][-A-Za-z0-9_.]{0,252}$"

PATTERNS: Final = {
    _NAME: "at most 53 of a-z 0-9 - that begin and end with a letter or digit",
    _GLOB: "a name, in which `*` stands for any run of characters",
    _DIGEST: "`sha256:` and 64 digits of 0-9 a-f",
    _IMAGE: "an image with its digest: registry.example/name@sha256:…",
    _REF: "a URL that begins with oci://, https:// or file://",
    _IMAGE_NAME: "an image without its digest: registry.example/name:tag",
    _CHART: "a chart without its digest: oci://registry.example/name",
    _ABSOLUTE: "an absolute path: /models/name",
    _URL_PATH: "the path of a URL: /ready",
    _VALUE_KEY: "letters, digits and - _ . that begin with a letter or _",
}
"""Pattern → what it wants, in words."""

Name = Annotated[str, StringConstraints(pattern=_NAME)]
NameGlob = Annotated[str, StringConstraints(pattern=_GLOB)]
Digest = Annotated[str, StringConstraints(pattern=_DIGEST)]
LabelKey = Annotated[str, AfterValidator(syntax.label_key)]
LabelValue = Annotated[str, AfterValidator(syntax.label_value)]
Version = Annotated[str, AfterValidator(syntax.version_number)]
VersionWish = Annotated[str, AfterValidator(syntax.version_wish)]
Labels = dict[LabelKey, LabelValue]
ValueKey = Annotated[str, StringConstraints(pattern=_VALUE_KEY)]
Values = dict[ValueKey, str]
ImageRef = Annotated[str, StringConstraints(pattern=_IMAGE)]
RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(syntax.relative_path)]
Branch = Annotated[str, AfterValidator(syntax.branch)]
RepositoryUrl = Annotated[str, AfterValidator(syntax.repository_url)]
PublicKey = Annotated[str, AfterValidator(syntax.public_key)]


class Spec(BaseModel):
    """Strict and frozen; names in YAML are camelCase."""

    later: ClassVar[tuple[str, ...]] = ()
    """Fields that the design names and this version does not act on yet."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        alias_generator=lambda s: s.split("_")[0] + "".join(w.title() for w in s.split("_")[1:]),
        populate_by_name=True,
    )


class Metadata(Spec):
    """Name and labels of a document."""

    name: Name = Field(description="Unique within its kind, over all sources.", examples=["defect-detector"])
    labels: Labels = Field(
        default_factory=dict, description="Free labels; policies select by them.", examples=[{"task": "inspection"}]
    )
    annotations: dict[str, str] = Field(default_factory=dict, description="Free text for people and tools.")


class VersionMetadata(Spec):
    """A model version's name and version."""

    name: Name = Field(description="Name of the model.", examples=["defect-detector"])
    version: Version = Field(
        description="Semantic version without `+`; the name of the version's folder.", examples=["2.1.0"]
    )
    labels: Labels = Field(default_factory=dict, description="Free labels.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Free text for people and tools.")


class Document(Spec):
    """What every kind has."""

    kind_name: ClassVar[str]

    api_version: Literal["edgeferry.dev/v1alpha1"] = Field(description="Version of the format.")
    kind: str
    metadata: Any
    spec: Any


# ---- Fleet


class FleetSpec(Spec):
    """Settings of the whole fleet."""

    later: ClassVar[tuple[str, ...]] = (
        "offlineAfter",
        "blastRadius",
        "deletionPolicy",
        "defaultRollout",
        "requireModelSignature",
    )


class Fleet(Document):
    """Settings of the whole fleet: at most one document, by custom fleet.yaml."""

    kind_name: ClassVar[str] = "Fleet"
    kind: Literal["Fleet"]
    metadata: Metadata | None = None
    spec: FleetSpec = FleetSpec()


# ---- Source


class Allow(Spec):
    """What a source may declare."""

    kinds: tuple[Literal["Model", "ModelVersion", "Workload", "Runtime"], ...] = Field(
        description="Kinds of documents it may hold."
    )
    names: tuple[NameGlob, ...] = Field(
        description="Names it may use; `*` stands for any run of characters.", examples=[["robot-*"]]
    )


class SourceSpec(Spec):
    """Another team's repository, merged into the catalog."""

    later: ClassVar[tuple[str, ...]] = ("signers",)

    url: RepositoryUrl = Field(
        description="Anything `git clone` takes, without a password.", examples=["https://git.example/robotics.git"]
    )
    branch: Branch = Field(default="main", description="Branch that is read.")
    path: RelativePath = Field(default=".", description="Directory within it that is read.")
    allow: Allow = Field(description="What it may declare; anything else in it is a fault.")


class Source(Document):
    """Admits another team's repository."""

    kind_name: ClassVar[str] = "Source"
    kind: Literal["Source"]
    metadata: Metadata
    spec: SourceSpec


# ---- Model and its versions


class Withdrawn(Spec):
    """A version that must not be chosen any more."""

    version: Version = Field(description="A version that exists.", examples=["1.9.0"])
    reason: str = Field(min_length=1, description="Why, in words for people.", examples=["wrong labels"])


class Needs(Spec):
    """What a cluster must have."""

    later: ClassVar[tuple[str, ...]] = ("memory", "disk", "accelerator", "cpu", "runtime")

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

    later: ClassVar[tuple[str, ...]] = ("feedback",)

    delivery: Literal["container", "server", "chart", "file"] = Field(description="How a version reaches its consumer.")
    runtime: Name | None = Field(default=None, description="Runtime document; needed for `server`.")
    namespace: Name = Field(default="edgeferry-models", description="Kubernetes namespace.")
    channels: dict[Name, Version] = Field(
        default_factory=dict, description="Names that point to a version and move.", examples=[{"stable": "2.1.0"}]
    )
    withdrawn: tuple[Withdrawn, ...] = Field(default=(), description="Versions that must not be chosen any more.")
    needs: Needs = Field(default=Needs(), description="What a cluster must have.")
    values: Values = Field(
        default_factory=dict,
        description="Environment of `container` and `server`.",
        examples=[{"threshold": "0.6"}],
    )
    self_test: SelfTestSpec | None = Field(
        default=None, description="A question asked of every new version before it serves (`server`, `container`)."
    )
    switch: Literal["beside", "replace", "auto"] = Field(
        default="auto", description="Test beside the running one, or stop, test, start or return."
    )
    port: int | None = Field(
        default=None, ge=1, le=65535, description="Port that the image of a `container` delivery listens on."
    )


class Model(Document):
    """A model: everything but its bytes."""

    kind_name: ClassVar[str] = "Model"
    kind: Literal["Model"]
    metadata: Metadata
    spec: ModelSpec


class ArtifactSpec(Spec):
    """The model's bytes: a file beside version.yaml, or a reference with its digest."""

    path: RelativePath | None = Field(
        default=None, description="File or folder beside version.yaml, in Git or Git LFS."
    )
    ref: str | None = Field(
        default=None,
        pattern=_REF,
        description="Where the bytes are.",
        examples=["oci://registry.example/models/defect-detector"],
    )
    digest: Digest | None = Field(default=None, description="Of the bytes at `ref`; needed there.")
    size: int | None = Field(default=None, ge=0, description="Bytes at `ref`; needed there.")


class ImageSpec(Spec):
    """A container image by digest; `path` is the model's directory within it."""

    ref: str = Field(
        pattern=_IMAGE_NAME, description="The image without its digest.", examples=["registry.example/models/defects"]
    )
    digest: Digest = Field(description="Of the image's manifest or index.")
    path: str = Field(
        default="", pattern=_ABSOLUTE, description="For `server` and `file`: the model's directory within the image."
    )


class ChartSpec(Spec):
    """A Helm chart by digest."""

    ref: str = Field(pattern=_CHART, description="The chart without its digest.")
    digest: Digest = Field(description="Of the chart's manifest.")


class ModelVersionSpec(Spec):
    """One version's bytes: exactly one of artifact, image, chart."""

    later: ClassVar[tuple[str, ...]] = ("variants",)

    artifact: ArtifactSpec | None = Field(default=None, description="The model's bytes, for `server` and `file`.")
    image: ImageSpec | None = Field(
        default=None, description="For `container`; for `server` and `file` an image that holds the model under `path`."
    )
    chart: ChartSpec | None = Field(default=None, description="For `chart`, which this version does not deliver yet.")


class ModelVersion(Document):
    """One immutable version. Optional where the version folder holds just the model file."""

    kind_name: ClassVar[str] = "ModelVersion"
    kind: Literal["ModelVersion"]
    metadata: VersionMetadata
    spec: ModelVersionSpec


# ---- Cluster


class ClusterSpec(Spec):
    """Settings of one cluster."""

    later: ClassVar[tuple[str, ...]] = ("taints", "connection", "link", "windows")

    paused: bool = Field(default=False, description="Its published release stays as it is.")
    key: PublicKey | None = Field(
        default=None, description="Public key of its agent (`ssh-ed25519 …`), for fleets without a hub."
    )


class Cluster(Document):
    """One registered edge target."""

    kind_name: ClassVar[str] = "Cluster"
    kind: Literal["Cluster"]
    metadata: Metadata
    spec: ClusterSpec = ClusterSpec()


# ---- Placement


class Expression(Spec):
    """One label requirement, as in Kubernetes."""

    key: LabelKey = Field(description="Key of the label.", examples=["line"])
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="`NotIn` and `DoesNotExist` hold where the key is absent."
    )
    values: tuple[LabelValue, ...] = Field(
        default=(), description="At least one for `In` and `NotIn`, none for the others.", examples=[["welding"]]
    )


class ClusterTerm(Spec):
    """One way to be selected; inside, everything is AND-ed."""

    later: ClassVar[tuple[str, ...]] = ("facts", "expression", "runsWorkload")

    names: tuple[Name, ...] | None = Field(default=None, description="Names of clusters. Left out: any.")
    match_labels: Labels = Field(default_factory=dict, description="Labels that it must have.")
    match_expressions: tuple[Expression, ...] = Field(default=(), description="Requirements of its labels.")


class Override(Spec):
    """Other values for some of the chosen clusters; the last that matches wins, key by key."""

    match_labels: Labels = Field(default_factory=dict, description="Labels that the cluster must have.")
    match_expressions: tuple[Expression, ...] = Field(default=(), description="Requirements of its labels.")
    values: Values = Field(description="Values there, over those of the model or workload.")


class PlacementSpec(Spec):
    """Which clusters, which version."""

    later: ClassVar[tuple[str, ...]] = (
        "models",
        "tolerations",
        "spread",
        "prefer",
        "nodes",
        "rollout",
        "rebalance",
        "handover",
        "evictOnFacts",
    )

    model: Name | None = Field(default=None, description="What is placed: this, or `workload`.")
    workload: Name | None = Field(default=None, description="What is placed: this, or `model`.")
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
    overrides: tuple[Override, ...] = Field(
        default=(), description="Other values for some of the chosen clusters; the last that matches wins, key by key."
    )


class Placement(Document):
    """The policy."""

    kind_name: ClassVar[str] = "Placement"
    kind: Literal["Placement"]
    metadata: Metadata
    spec: PlacementSpec


# ---- Workload


class ModelUseSpec(Spec):
    """A model that the workload uses."""

    name: Name = Field(description="Name of the model.")
    version: VersionWish = Field(default="*", description="Range that this workload accepts.")
    mount: str = Field(
        default="", pattern=_ABSOLUTE, description="Directory in the workload's containers where the model appears."
    )
    on_change: Literal["restart", "reload", "none"] = Field(
        default="restart", description="What happens to the workload when the model is switched."
    )


class WorkloadPlacement(Spec):
    """Follows a placement of the models it uses."""

    same_as: Name = Field(description="A placement: the workload goes where its models are placed by it.")
    version: VersionWish = Field(default="*", description="Version of the workload, as in a Placement.")


class HostProgram(Spec):
    """How it runs on a bare host."""

    command: tuple[str, ...] = Field(
        min_length=1, description="`{workload}` is the version's folder, `{port}` a free port."
    )
    port: bool = Field(default=False, description="Give it a stable port with a forwarder in front.")
    ready_path: str = Field(
        default="", pattern=_URL_PATH, description="HTTP path that answers 200 when it is ready; needs `port`."
    )


class WorkloadSpec(Spec):
    """An application that uses models. Its manifests stand in versions/VERSION/ beside workload.yaml."""

    later: ClassVar[tuple[str, ...]] = ("source",)

    models: tuple[ModelUseSpec, ...] = Field(default=(), description="Models that it uses.")
    namespace: Name = Field(
        default="edgeferry-models", description="Kubernetes namespace of objects that name none themselves."
    )
    placement: WorkloadPlacement | None = Field(
        default=None, description="Follow a placement of its models; or write a Placement with `workload:`."
    )
    host: HostProgram | None = Field(default=None, description="How it runs on a bare host.")
    values: Values = Field(default_factory=dict, description="Environment on a host.")


class Workload(Document):
    """An application that uses models."""

    kind_name: ClassVar[str] = "Workload"
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

    image: ImageRef | None = Field(
        default=None,
        description="Image by digest, for Kubernetes.",
        examples=["registry.example/onnx@sha256:" + "0" * 64],
    )
    args: tuple[str, ...] = Field(
        default=(), description="Container arguments; `{port}`, `{model}` and `{name}` are replaced."
    )
    port: int = Field(default=8080, ge=1, le=65535, description="Port that the container listens on.")
    protocol: Literal["v2", "http"] = Field(
        default="v2", description="`v2`: the Open Inference Protocol; `http`: anything that answers on `path`."
    )
    path: str = Field(default="/", pattern=_URL_PATH, description="Readiness path where protocol is `http`.")
    host: RuntimeHost | None = Field(default=None, description="How it runs on a bare host.")


class Runtime(Document):
    """A named inference server for `server` deliveries."""

    kind_name: ClassVar[str] = "Runtime"
    kind: Literal["Runtime"]
    metadata: Metadata
    spec: RuntimeSpec


KINDS: dict[str, type[Document]] = {
    kind.kind_name: kind for kind in (Fleet, Source, Model, ModelVersion, Cluster, Placement, Workload, Runtime)
}
