"""What a Placement says of clusters, and what a Cluster says against placements."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from gitops import names as syntax
from gitops.field_types import LabelKey, Labels, LabelValue, Name, Spec, Values
from gitops.rollout_spec import AmountText, Duration


def _as_text(value: Any) -> Any:
    """Numbers may be written without quotes where a quantity is wanted."""
    return str(value) if type(value) in (int, float) else value


Quantity = Annotated[
    str,
    BeforeValidator(_as_text),
    AfterValidator(syntax.quantity),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "quantity"}, {"type": "number"}]}),
]
FactName = Annotated[
    str, AfterValidator(syntax.fact_name), WithJsonSchema({"type": "string", "format": "name of a fact"})
]
FactValues = Annotated[
    tuple[Annotated[str, BeforeValidator(_as_text), Field(min_length=1, max_length=256)], ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str | int | float) else value),
    Field(min_length=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "text, number or list of them"},
                {"type": "number"},
                {"type": "array", "items": {"type": ["string", "number"]}, "minItems": 1},
            ]
        }
    ),
]


class Expression(Spec):
    """One label requirement, as in Kubernetes."""

    key: LabelKey = Field(description="Key of the label.", examples=["line"])
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="`NotIn` and `DoesNotExist` hold where the key is absent."
    )
    values: tuple[LabelValue, ...] = Field(
        default=(), description="At least one for `In` and `NotIn`, none for the others.", examples=[["welding"]]
    )


class FactTerm(Spec):
    """One requirement of what the cluster's agent measured."""

    name: FactName = Field(description="Name of the fact.", examples=["memory.capacity"])
    operator: Literal["==", "!=", "<", "<=", ">", ">=", "in"] = Field(
        default="==",
        description="Versions compare as versions, and `==` takes a range; a list has what it is equal to.",
    )
    value: FactValues = Field(description="Quantity, version or text, by the fact; a list for `in`.", examples=["1Gi"])
    max_age: Duration | None = Field(default=None, description="Measured within this. Left out: any age.")


class ClusterTerm(Spec):
    """One way to be selected; inside, everything is AND-ed."""

    names: tuple[Name, ...] | None = Field(default=None, description="Names of clusters. Left out: any.")
    match_labels: Labels = Field(default_factory=dict, description="Labels that it must have.")
    match_expressions: tuple[Expression, ...] = Field(default=(), description="Requirements of its labels.")
    facts: tuple[FactTerm, ...] = Field(
        default=(), description="Requirements of its facts; they gate admission, a chosen cluster stays."
    )
    expression: str | None = Field(
        default=None,
        description="In CEL, over `cluster` and `model`; a missing label reads as ''.",
        examples=["cluster.labels['tier'] != 'lab'"],
    )
    runs_workload: Name | None = Field(default=None, description="A workload that must be placed there.")


class Override(Spec):
    """Other values for some of the chosen clusters; the last that matches wins, key by key."""

    match_labels: Labels = Field(default_factory=dict, description="Labels that the cluster must have.")
    match_expressions: tuple[Expression, ...] = Field(default=(), description="Requirements of its labels.")
    values: Values = Field(description="Values there, over those of the model or workload.")


class ModelSelector(Spec):
    """Models by their labels: the placement holds for each by itself."""

    match_labels: Labels = Field(default_factory=dict, description="Labels that the model must have.")
    match_expressions: tuple[Expression, ...] = Field(default=(), description="Requirements of its labels.")


class TaintSpec(Spec):
    """What keeps placements away unless they tolerate it."""

    key: LabelKey = Field(description="Key of the taint.", examples=["maintenance"])
    value: LabelValue = Field(default="", description="Value of the taint.")
    effect: Literal["NoSelect", "NoSelectIfNew", "PreferNoSelect"] = Field(
        description="`NoSelect`: nothing stays; `NoSelectIfNew`: nothing comes; `PreferNoSelect`: comes last."
    )


class TolerationSpec(Spec):
    """What the placement puts up with, as in Kubernetes."""

    key: LabelKey | None = Field(default=None, description="Key of the taint. Left out: every key; needs `Exists`.")
    operator: Literal["Equal", "Exists"] = Field(default="Equal", description="`Exists`: whatever its value is.")
    value: LabelValue = Field(default="", description="Value of the taint, for `Equal`.")
    effect: Literal["NoSelect", "NoSelectIfNew", "PreferNoSelect"] | None = Field(
        default=None, description="Effect of the taint. Left out: every effect."
    )


class SpreadSpec(Spec):
    """Even numbers over the values of a label."""

    key: LabelKey = Field(description="Key of the label.", examples=["country"])
    max_skew: int = Field(
        default=1, ge=1, le=100_000, description="No value has more than this over the one that has fewest."
    )
    when_unsatisfiable: Literal["refuse", "allow"] = Field(
        default="refuse", description="`allow`: clusters that break it, or lack the label, come after all others."
    )


class PreferSpec(ClusterTerm):
    """Clusters that match get the weight added to their score; the score ranks candidates for free places."""

    weight: int = Field(ge=-100, le=100, description="Added to the score.")


class NodesSpec(Spec):
    """Nodes of a Kubernetes cluster that the pods may run on."""

    match_labels: Labels = Field(default_factory=dict, description="Labels that the node must have.")
    match_expressions: tuple[Expression, ...] = Field(default=(), description="Requirements of its labels.")


class RebalanceSpec(Spec):
    """Lets better clusters take the places of chosen ones. What changes by itself (facts) moves nothing."""

    min_gain: int = Field(default=10, ge=1, le=10_000, description="Of the score, at least.")
    max_moves: AmountText = Field(default="5%", description="At most, in one decision: a number, or a share.")


class EvictSpec(Spec):
    """When fresh facts that contradict `clusters` remove a chosen cluster."""

    after: Duration = Field(
        description="They must be measured, and still be measured so much later. Silence never counts.",
        examples=["24h"],
    )
