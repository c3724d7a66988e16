"""Documents → placement's own values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from gitops import kinds
from gitops.catalog_types import CatalogModel, CatalogWorkload
from placement.types import Policy, Requirement, Subject, Target, Term


def to_policy(placement: kinds.Placement) -> Policy:
    """Return a Placement as placement decides it."""
    spec = placement.spec
    subject = spec.model if spec.model is not None else spec.workload
    assert subject is not None  # exactly one of them: checked when the document was read
    return Policy(
        name=placement.metadata.name,
        kind="model" if spec.model is not None else "workload",
        subject=subject,
        version=spec.version,
        terms=None if spec.clusters is None else tuple(to_term(term) for term in spec.clusters),
        count=spec.count,
        priority=spec.priority,
    )


def to_term(term: kinds.ClusterTerm | kinds.Override) -> Term:
    """Return one way to be selected; ``matchLabels`` become requirements with one value."""
    names = term.names if isinstance(term, kinds.ClusterTerm) else None
    labels = tuple(Requirement(key, "In", (value,)) for key, value in sorted(term.match_labels.items()))
    others = tuple(Requirement(one.key, one.operator, one.values) for one in term.match_expressions)
    return Term(None if names is None else frozenset(names), labels + others)


def to_subject(model: CatalogModel) -> Subject:
    """Return a model as placement sees it."""
    spec = model.document.spec
    return Subject(
        kind="model",
        name=model.name,
        versions={version: one.withdrawn for version, one in model.versions.items()},
        channels=spec.channels,
        arch=frozenset(spec.needs.arch),
        delivery=spec.delivery,
    )


def to_workload_subject(workload: CatalogWorkload) -> Subject:
    """Return a workload as placement sees it; one without ``host`` is manifests only."""
    return Subject(
        kind="workload",
        name=workload.name,
        versions=dict.fromkeys(workload.versions, ""),
        delivery="server" if workload.document.spec.host is not None else "manifests",
    )


def to_target(cluster: kinds.Cluster, facts: Mapping[str, tuple[str, datetime]]) -> Target:
    """Return a cluster as placement sees it.

    Args:
        cluster: its document.
        facts: name → (value, time measured), as its agent reported them.
    """
    return Target(cluster.metadata.name, cluster.metadata.labels, facts)
