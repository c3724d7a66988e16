"""The documents people write, as typed definitions. The JSON Schemas and the reference pages come from here.

A field stands here only when something acts on it: what is not implemented is refused.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from gitops.field_types import (
    AbsolutePath,
    Branch,
    ChartName,
    Digest,
    ImageRef,
    Labels,
    Name,
    NameGlob,
    PublicKey,
    RelativePath,
    RepositoryUrl,
    Spec,
    UrlPath,
    Values,
    Version,
    VersionWish,
)
from gitops.model_spec import ArtifactSpec as ArtifactSpec
from gitops.model_spec import ChartSpec as ChartSpec
from gitops.model_spec import ImageSpec as ImageSpec
from gitops.model_spec import ModelSpec as ModelSpec
from gitops.model_spec import ModelVersionSpec as ModelVersionSpec
from gitops.model_spec import Needs as Needs
from gitops.model_spec import SelfTestSpec as SelfTestSpec
from gitops.model_spec import VariantSpec as VariantSpec
from gitops.model_spec import Withdrawn as Withdrawn
from gitops.policy_spec import ClusterTerm as ClusterTerm
from gitops.policy_spec import EvictSpec as EvictSpec
from gitops.policy_spec import Expression as Expression
from gitops.policy_spec import FactTerm as FactTerm
from gitops.policy_spec import ModelSelector as ModelSelector
from gitops.policy_spec import NodesSpec as NodesSpec
from gitops.policy_spec import Override as Override
from gitops.policy_spec import PreferSpec as PreferSpec
from gitops.policy_spec import RebalanceSpec as RebalanceSpec
from gitops.policy_spec import SpreadSpec as SpreadSpec
from gitops.policy_spec import TaintSpec as TaintSpec
from gitops.policy_spec import TolerationSpec as TolerationSpec
from gitops.rollout_spec import AmountText, Duration, MaxOfflineAge, WindowSpec
from gitops.rollout_spec import RolloutSpec as RolloutSpec
from gitops.rollout_spec import WaveSpec as WaveSpec

API_VERSION = "edgeferry.dev/v1alpha1"
MAX_NAME = 53


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
    kind: str = Field(description="Kind of document.")
    metadata: Any
    spec: Any


# ---- Fleet


class FleetSpec(Spec):
    """Settings of the whole fleet."""

    offline_after: Duration = Field(
        default="10m", description="A cluster not heard of for so long is unknown, and deferred by rollouts."
    )
    blast_radius: AmountText = Field(
        default="30%",
        description="Removals and changes outside waves of more entries than this, on more than 5 clusters, wait for"
        " `edgeferry rollout approve`.",
    )
    deletion_policy: Literal["keep", "delete"] = Field(
        default="delete",
        description="`keep`: what a cluster is no longer to have goes on there, and is managed no more.",
    )
    retire: Literal["keep", "delete"] = Field(
        default="keep", description="What a cluster whose document is deleted does with everything it runs."
    )
    default_rollout: RolloutSpec | None = Field(
        default=None, description="For placements without `rollout`. Left out: everybody at once."
    )
    require_model_signature: bool = Field(
        default=False,
        description="Models must be signed (`model.sig`) by a model key of the trust; a site switches to no other.",
    )


class Fleet(Document):
    """Settings of the whole fleet: at most one document, by custom fleet.yaml."""

    kind_name: ClassVar[str] = "Fleet"
    kind: Literal["Fleet"] = Field(description="What this document is.")
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
    kind: Literal["Source"] = Field(description="What this document is.")
    metadata: Metadata
    spec: SourceSpec


# ---- Model and its versions


class Model(Document):
    """A model: everything but its bytes."""

    kind_name: ClassVar[str] = "Model"
    kind: Literal["Model"] = Field(description="What this document is.")
    metadata: Metadata
    spec: ModelSpec


class ModelVersion(Document):
    """One immutable version. Optional where the version folder holds just the model file."""

    kind_name: ClassVar[str] = "ModelVersion"
    kind: Literal["ModelVersion"] = Field(description="What this document is.")
    metadata: VersionMetadata
    spec: ModelVersionSpec


# ---- Cluster


class ClusterSpec(Spec):
    """Settings of one cluster."""

    later: ClassVar[tuple[str, ...]] = ("link",)

    connection: Literal["online", "carried"] = Field(
        default="online",
        description="`carried`: reached by hand; it is given a version when its wave has shown that it works.",
    )
    windows: tuple[WindowSpec, ...] = Field(
        default=(), description="It switches only then; restarts, repairs and returns wait for nothing. None: always."
    )

    max_offline_age: MaxOfflineAge | None = Field(
        default=None, description="How long it may hear nothing. Left out: for as long as it takes."
    )

    taints: tuple[TaintSpec, ...] = Field(default=(), description="What keeps placements away.")
    paused: bool = Field(default=False, description="Its published release stays as it is.")
    key: PublicKey | None = Field(
        default=None, description="Public key of its agent (`ssh-ed25519 …`), for fleets without a hub."
    )


class Cluster(Document):
    """One registered edge target."""

    kind_name: ClassVar[str] = "Cluster"
    kind: Literal["Cluster"] = Field(description="What this document is.")
    metadata: Metadata
    spec: ClusterSpec = ClusterSpec()


# ---- Placement


class PlacementSpec(Spec):
    """Which clusters, which version."""

    model: Name | None = Field(default=None, description="What is placed: this, `models` or `workload`.")
    models: ModelSelector | None = Field(
        default=None, description="What is placed: every model with these labels, each by itself."
    )
    workload: Name | None = Field(default=None, description="What is placed: this, `model` or `models`.")
    version: VersionWish = Field(
        default="*",
        description="Exact version, range (`>=2.0 <3`), or `channel: stable`; the newest that is not withdrawn.",
    )
    clusters: tuple[ClusterTerm, ...] | None = Field(
        default=None, description="Terms are OR-ed. Left out: every cluster. Empty: none."
    )
    tolerations: tuple[TolerationSpec, ...] = Field(default=(), description="Taints that it puts up with.")
    count: int | None = Field(default=None, ge=1, description="Take the best N. Left out: all that match.")
    spread: tuple[SpreadSpec, ...] = Field(default=(), description="Even numbers over the values of labels.")
    prefer: tuple[PreferSpec, ...] = Field(
        default=(), description="Ranks candidates for free places; chosen clusters keep theirs."
    )
    rebalance: RebalanceSpec | None = Field(
        default=None, description="Let better clusters take chosen ones' places. Left out: never."
    )
    evict_on_facts: EvictSpec | None = Field(
        default=None, description="When facts may remove a chosen cluster. Left out: never."
    )
    handover: Literal["independent", "make-before-break"] = Field(
        default="independent",
        description="`make-before-break`: a cluster that is left keeps it until the one that gets it reports it"
        " current.",
    )
    nodes: NodesSpec | None = Field(default=None, description="Nodes of a cluster that its pods may run on.")
    priority: int = Field(
        default=0,
        ge=-1000,
        le=1000,
        description="The higher one wins where two placements claim the same model on a cluster.",
    )
    overrides: tuple[Override, ...] = Field(
        default=(), description="Other values for some of the chosen clusters; the last that matches wins, key by key."
    )
    rollout: RolloutSpec | None = Field(
        default=None, description="How a change goes over them. Left out: the fleet's `defaultRollout`."
    )
    require_model_signature: bool | None = Field(
        default=None, description="Models placed by this must be signed, or need not be. Left out: as the Fleet says."
    )


class Placement(Document):
    """The policy."""

    kind_name: ClassVar[str] = "Placement"
    kind: Literal["Placement"] = Field(description="What this document is.")
    metadata: Metadata
    spec: PlacementSpec


# ---- Workload


class ModelUseSpec(Spec):
    """A model that the workload uses."""

    name: Name = Field(description="Name of the model.")
    version: VersionWish = Field(default="*", description="Range that this workload accepts.")
    mount: AbsolutePath = Field(
        default="",
        description="Directory in all containers of its pods: `current` in it is the model's file or folder, and "
        "follows every switch. On a bare host, `NAME_PATH` names it instead.",
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
    ready_path: UrlPath = Field(default="", description="HTTP path that answers 200 when it is ready; needs `port`.")


class WorkloadSource(Spec):
    """A version of a workload that stands elsewhere."""

    later: ClassVar[tuple[str, ...]] = ("git", "revision", "path")

    chart: ChartName = Field(
        description="A Helm chart without its digest.", examples=["oci://registry.example/charts/line-inspector"]
    )
    digest: Digest = Field(description="Of the chart's manifest.")
    version: Version = Field(description="The workload's version that this is.", examples=["1.4.0"])


class WorkloadSpec(Spec):
    """An application that uses models. Its manifests or its chart stand in versions/VERSION/ beside workload.yaml."""

    source: WorkloadSource | None = Field(
        default=None, description="A version that stands elsewhere, beside those in versions/."
    )

    models: tuple[ModelUseSpec, ...] = Field(default=(), description="Models that it uses.")
    namespace: Name = Field(
        default="edgeferry-models", description="Kubernetes namespace of objects that name none themselves."
    )
    placement: WorkloadPlacement | None = Field(
        default=None, description="Follow a placement of its models; or write a Placement with `workload:`."
    )
    host: HostProgram | None = Field(default=None, description="How it runs on a bare host.")
    values: Values = Field(default_factory=dict, description="Environment on a host; Helm values of a chart.")


class Workload(Document):
    """An application that uses models."""

    kind_name: ClassVar[str] = "Workload"
    kind: Literal["Workload"] = Field(description="What this document is.")
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
    path: UrlPath = Field(default="/", description="Readiness path where protocol is `http`.")
    host: RuntimeHost | None = Field(default=None, description="How it runs on a bare host.")


class Runtime(Document):
    """A named inference server for `server` deliveries."""

    kind_name: ClassVar[str] = "Runtime"
    kind: Literal["Runtime"] = Field(description="What this document is.")
    metadata: Metadata
    spec: RuntimeSpec


KINDS: dict[str, type[Document]] = {
    kind.kind_name: kind for kind in (Fleet, Source, Model, ModelVersion, Cluster, Placement, Workload, Runtime)
}
