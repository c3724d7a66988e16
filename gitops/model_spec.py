"""What stands under ``spec`` of a Model and of a ModelVersion."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from gitops.field_types import (
    AbsolutePath,
    ArtifactRef,
    ChartName,
    Digest,
    ImageName,
    Name,
    RelativePath,
    Spec,
    Values,
    Version,
    VersionWish,
)
from gitops.policy_spec import Quantity


class Withdrawn(Spec):
    """A version that must not be chosen any more."""

    version: Version = Field(description="A version that exists.", examples=["1.9.0"])
    reason: str = Field(min_length=1, description="Why, in words for people.", examples=["wrong labels"])


class AcceleratorNeed(Spec):
    """Accelerators that it needs."""

    kind: Literal["nvidia", "amd", "intel", "jetson"] | None = Field(
        default=None, description="Which. Left out: any; then pods ask Kubernetes for none."
    )
    count: int = Field(default=1, ge=1, le=1024, description="How many.")
    memory: Quantity | None = Field(default=None, description="That each must have.", examples=["8Gi"])


class Limits(Spec):
    """What its pods may use at most."""

    memory: Quantity | None = Field(default=None, description="A pod that uses more is ended.")
    cpu: Quantity | None = Field(default=None, description="A pod that uses more is slowed down.")


class Needs(Spec):
    """What a cluster must have room for, beside everything else that is placed there."""

    memory: Quantity | None = Field(default=None, description="Main memory, on one node.", examples=["512Mi"])
    disk: Quantity | None = Field(
        default=None, description="Of one version; room for two is kept, as the previous one stays.", examples=["200Mi"]
    )
    cpu: Quantity | None = Field(default=None, description="Processors, on one node.", examples=["500m"])
    accelerator: AcceleratorNeed | None = Field(default=None, description="Accelerators that it needs.")
    arch: tuple[Literal["amd64", "arm64", "arm", "riscv64", "ppc64le", "s390x"], ...] = Field(
        default=(), description="Architectures it runs on; empty for any."
    )
    runtime: dict[Name, VersionWish] = Field(
        default_factory=dict,
        description="Versions of what must be there: fact `runtime.NAME.version`.",
        examples=[{"containerd": ">=1.7"}],
    )
    limits: Limits | None = Field(default=None, description="What its pods may use at most. Left out: no limits.")


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
        description="Environment of `container` and `server`; Helm values of `chart`, as dotted names and YAML.",
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


class ArtifactSpec(Spec):
    """The model's bytes: a file beside version.yaml, or a reference with its digest."""

    path: RelativePath | None = Field(
        default=None, description="File or folder beside version.yaml, in Git or Git LFS."
    )
    ref: ArtifactRef | None = Field(
        default=None,
        description="Where the bytes are.",
        examples=["oci://registry.example/models/defect-detector"],
    )
    digest: Digest | None = Field(default=None, description="Of the bytes at `ref`; needed there.")
    size: int | None = Field(default=None, ge=0, description="Bytes at `ref`; needed there.")


class ImageSpec(Spec):
    """A container image by digest; `path` is the model's directory within it."""

    ref: ImageName = Field(description="The image without its digest.", examples=["registry.example/models/defects"])
    digest: Digest = Field(description="Of the image's manifest or index.")
    path: AbsolutePath = Field(
        default="", description="For `server` and `file`: the model's directory within the image."
    )


class ChartSpec(Spec):
    """A Helm chart: a folder beside version.yaml, or a reference with its digest."""

    path: RelativePath | None = Field(default=None, description="Folder with Chart.yaml beside version.yaml, in Git.")
    ref: ChartName | None = Field(
        default=None, description="The chart without its digest.", examples=["oci://registry.example/charts/reader"]
    )
    digest: Digest | None = Field(default=None, description="Of the chart's manifest at `ref`; needed there.")


class VariantSpec(Spec):
    """Another form of the version, for clusters that have no room for the first."""

    later: ClassVar[tuple[str, ...]] = ("selfTest",)

    name: Name = Field(description="Unique within the version.", examples=["int8"])
    artifact: ArtifactSpec | None = Field(default=None, description="Its bytes: instead of the version's artifact.")
    image: ImageSpec | None = Field(default=None, description="Its image: instead of the version's.")
    needs: Needs = Field(
        default=Needs(), description="What it needs; what is left out here is needed as the model says."
    )


class ModelVersionSpec(Spec):
    """One version's bytes: exactly one of artifact, image, chart (beside which an artifact may be); other forms."""

    artifact: ArtifactSpec | None = Field(
        default=None, description="The model's bytes, for `server` and `file`, and for a `chart` that serves them."
    )
    image: ImageSpec | None = Field(
        default=None, description="For `container`; for `server` and `file` an image that holds the model under `path`."
    )
    chart: ChartSpec | None = Field(
        default=None,
        description="For `chart`. An `artifact` beside it is staged, and `.Values.edgeferry` tells the chart where.",
    )
    variants: tuple[VariantSpec, ...] = Field(
        default=(),
        description="Other forms of it. A cluster gets the first form that it has room for, the version itself first.",
    )
