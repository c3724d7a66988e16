"""Documents → placement's own values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

from gitops import kinds
from gitops.catalog_types import Catalog, CatalogModel, CatalogWorkload
from gitops.model_spec import Needs as NeedsSpec
from gitops.rollout_spec import seconds
from placement import facts
from placement.fact_names import kind_of
from placement.index import ARCH, ARCH_LABEL, PLATFORM, PLATFORM_LABEL
from placement.selector import matches
from placement.types import (
    Accelerator,
    FactTest,
    Needs,
    Policy,
    Preference,
    Rebalance,
    Requirement,
    Spread,
    Subject,
    Taint,
    Target,
    Term,
    Toleration,
    Variant,
)

FactText = tuple[str, datetime | None]
"""A fact's text and when it was measured; None where it comes from a label."""

_ALIASES: Final = {ARCH_LABEL: ARCH, PLATFORM_LABEL: PLATFORM, "kubernetes.io/os": "os"}
"""Labels under another name that outrank a fact; every other fact is outranked by the label of its own name."""


def to_policies(placement: kinds.Placement, catalog: Catalog) -> list[Policy]:
    """Return a Placement as placement decides it: one policy, or one for every model that its ``models`` selects."""
    spec, name = placement.spec, placement.metadata.name
    if spec.models is None:
        subject = spec.model if spec.model is not None else spec.workload
        assert subject is not None  # exactly one of them: checked when the document was read
        return [_policy(placement, "model" if spec.model is not None else "workload", subject, name)]
    selected = models_of(spec.models, catalog.models)
    return [_policy(placement, "model", model, f"{name}.models.{model}") for model in selected]


def models_of(selector: kinds.ModelSelector, models: Mapping[str, CatalogModel]) -> list[str]:
    """Return the names of the models that a selector selects, sorted."""
    term = to_term(selector)
    return sorted(name for name, one in models.items() if matches(term, Target("", one.document.metadata.labels)))


def _policy(placement: kinds.Placement, kind: Literal["model", "workload"], subject: str, name: str) -> Policy:
    spec = placement.spec
    return Policy(
        name=name,
        kind=kind,
        subject=subject,
        version=spec.version,
        terms=None if spec.clusters is None else tuple(to_term(term) for term in spec.clusters),
        count=spec.count,
        priority=spec.priority,
        tolerations=tuple(
            Toleration(one.key or "", one.operator, one.value, one.effect or "") for one in spec.tolerations
        ),
        spread=tuple(Spread(one.key, one.max_skew, one.when_unsatisfiable == "refuse") for one in spec.spread),
        prefer=tuple(Preference(to_term(one), one.weight) for one in spec.prefer),
        rebalance=None if spec.rebalance is None else _rebalance(spec.rebalance),
        make_before_break=spec.handover == "make-before-break",
        evict_after_s=None if spec.evict_on_facts is None else seconds(spec.evict_on_facts.after),
        placement="" if name == placement.metadata.name else placement.metadata.name,
    )


def _rebalance(spec: kinds.RebalanceSpec) -> Rebalance:
    return Rebalance(spec.min_gain, int(spec.max_moves.removesuffix("%")), spec.max_moves.endswith("%"))


def to_term(term: kinds.ClusterTerm | kinds.Override | kinds.ModelSelector | kinds.NodesSpec) -> Term:
    """Return one way to be selected; ``matchLabels`` become requirements with one value."""
    labels = tuple(Requirement(key, "In", (value,)) for key, value in sorted(term.match_labels.items()))
    others = tuple(Requirement(one.key, one.operator, one.values) for one in term.match_expressions)
    if not isinstance(term, kinds.ClusterTerm):
        return Term(None, labels + others)
    names = None if term.names is None else frozenset(term.names)
    tests = tuple(to_test(one) for one in term.facts)
    return Term(names, labels + others, tests, term.expression or "", term.runs_workload or "")


def to_test(term: kinds.FactTerm) -> FactTest:
    """Return one requirement of a fact; a site's own fact is read by the form of what it is compared with."""
    kind = kind_of(term.name) or _form(term)
    return FactTest(term.name, kind, term.operator, term.value, None if term.max_age is None else seconds(term.max_age))


def _form(term: kinds.FactTerm) -> Literal["number", "version", "text"]:
    if all(facts.quantity(value) is not None for value in term.value):
        return "number"
    return "version" if term.operator in ("<", "<=", ">", ">=") else "text"


def to_subject(model: CatalogModel) -> Subject:
    """Return a model as placement sees it."""
    spec = model.document.spec
    needs = to_needs(spec.needs)
    variants = {
        version: (
            *((Variant("", needs),) if one.spec.artifact or one.spec.image or one.content else ()),
            *(Variant(form.name, to_needs(form.needs, spec.needs)) for form in one.spec.variants),
        )
        for version, one in model.versions.items()
        if one.spec.variants
    }
    return Subject(
        kind="model",
        name=model.name,
        versions={version: one.withdrawn for version, one in model.versions.items()},
        channels=spec.channels,
        needs=needs,
        variants=variants,
        delivery=spec.delivery,
        labels=model.document.metadata.labels,
    )


def to_needs(spec: NeedsSpec, beneath: NeedsSpec | None = None) -> Needs:
    """Return needs; what they leave out is taken from those beneath."""
    merged = merged_needs(spec, beneath)
    accelerator = merged.accelerator
    return Needs(
        memory_bytes=_whole(merged.memory),
        disk_bytes=_whole(merged.disk),
        cpu_milli=_whole(merged.cpu, 1000),
        accelerator=None
        if accelerator is None
        else Accelerator(accelerator.kind or "", accelerator.count, _whole(accelerator.memory)),
        arch=frozenset(merged.arch),
        runtimes=tuple(sorted(merged.runtime.items())),
    )


def merged_needs(spec: NeedsSpec, beneath: NeedsSpec | None) -> NeedsSpec:
    """Return needs over others: each field that is given stands, the others are those beneath."""
    if beneath is None:
        return spec
    given = {name: getattr(spec, name) for name in spec.model_fields_set}
    return beneath.model_copy(update=given)


def _whole(text: str | None, times: int = 1) -> int:
    """Return a quantity in whole units, rounded up."""
    found = None if text is None else facts.quantity(text)
    return 0 if found is None else int(-(-(found * times) // 1))


def _workload_delivery(workload: CatalogWorkload) -> str:
    if any(one.chart is not None for one in workload.versions.values()):
        return "chart"
    return "server" if workload.document.spec.host is not None else "manifests"


def to_workload_subject(workload: CatalogWorkload) -> Subject:
    """Return a workload as placement sees it; one without ``host`` is manifests only."""
    return Subject(
        kind="workload",
        name=workload.name,
        versions=dict.fromkeys(workload.versions, ""),
        delivery=_workload_delivery(workload),
        labels=workload.document.metadata.labels,
    )


def to_target(cluster: kinds.Cluster, measured: Mapping[str, FactText]) -> Target:
    """Return a cluster as placement sees it; labels outrank the facts of their name.

    Args:
        cluster: its document.
        measured: name → (text, time measured), as its agent reported them.
    """
    labels = cluster.metadata.labels
    outranking = {
        name: (label, None)
        for key, label in labels.items()
        if (name := _ALIASES.get(key, key)) in measured or kind_of(name) is not None
    }
    return Target(
        cluster.metadata.name,
        labels,
        {**measured, **outranking} if outranking else measured,
        tuple(Taint(one.key, one.value, one.effect) for one in cluster.spec.taints),
    )
