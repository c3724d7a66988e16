"""A decision → why, for people: grouped over the fleet, or for one cluster. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Literal

from placement.counterfactual import Change, smallest
from placement.decide import wanted_by
from placement.selector import matches
from placement.types import Decision, Subject

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Group:
    """Clusters that one reason refuses.

    Attributes:
        code: as in ``Refusal``.
        clusters: how many.
        some: the first few of their names, sorted.
    """

    code: str
    text: str
    clusters: int
    some: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """One decision, grouped.

    Attributes:
        version: empty where no version fits.
        chosen: how many clusters.
        refused: the largest group first; each cluster that is not chosen counts in one of them.
        short: how many of the wanted count were not found.
        fault: why nothing could be decided; empty for none.
    """

    placement: str
    kind: Literal["model", "workload"]
    subject: str
    version: str
    chosen: int
    refused: tuple[Group, ...]
    short: int
    fault: str

    def text(self) -> str:
        """Return one line: "eu: detector 2.1.0: 31 chosen; 9 refused: 6 labels (wanted country=it), 3 arch (…)"."""
        if self.fault:
            return f"{self.placement}: {self.subject}: nothing chosen: {self.fault}"
        parts = [f"{self.chosen} chosen"]
        if self.short:
            parts[0] += f", short by {self.short}"
        if self.refused:
            groups = ", ".join(f"{group.clusters} {group.code} ({group.text})" for group in self.refused)
            parts.append(f"{sum(group.clusters for group in self.refused)} refused: {groups}")
        return f"{self.placement}: {self.subject} {self.version}: {'; '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one placement chooses one cluster, or does not.

    Attributes:
        version: that it gets where it is chosen; empty where no version fits.
        code: of the refusal; empty where it is chosen.
        reason: of the cluster's whole group.
        changes: the smallest change that would choose it; empty where it is chosen, or where none would.
    """

    cluster: str
    placement: str
    kind: Literal["model", "workload"]
    subject: str
    version: str
    chosen: bool
    code: str
    reason: str
    changes: tuple[Change, ...]

    def text(self) -> str:
        """Return one line: "turin-03: not chosen by line-eu: label line is 'packing', wanted 'welding' or 'paint'"."""
        if self.chosen:
            return f"{self.cluster}: {self.subject} {self.version} by {self.placement}: {self.reason}"
        why = "; ".join(change.text for change in self.changes) or self.reason
        return f"{self.cluster}: not chosen by {self.placement}: {why}"


def explain_model(decision: Decision) -> Summary:
    """Summarise one decision of a model or workload."""
    groups = [
        Group(one.code, one.text, len(one.clusters), tuple(islice(one.clusters, _SHOWN))) for one in decision.refused
    ]
    return Summary(
        placement=decision.policy.name,
        kind=decision.policy.kind,
        subject=decision.policy.subject,
        version=decision.version,
        chosen=len(decision.chosen),
        refused=tuple(sorted(groups, key=lambda group: (-group.clusters, group.code, group.text))),
        short=decision.short,
        fault=decision.fault,
    )


def explain_cluster(
    decision: Decision, subject: Subject, cluster: str, others: Sequence[Decision], now: datetime
) -> Explanation:
    """Explain what one decision means for one cluster, with the smallest change that would choose it.

    Args:
        decision: settled.
        subject: what it places.
        cluster: name of a cluster of its index.
        others: all settled decisions of the step; this one may be among them.
        now: the time that was decided for, timezone-aware.

    Raises:
        KeyError: the index has no such cluster.
    """
    policy, target = decision.policy, decision.chosen.index.targets[cluster]
    refusal = next((one for one in decision.refused if cluster in one.clusters), None)
    if refusal is None:
        term = next((one for one in policy.terms or () if matches(one, target)), None)
        reason = wanted_by(term) if term else "it goes to every cluster that fits"
    else:
        reason = refusal.text
    # A workload that follows its models has no terms to change: the placement that it follows has.
    is_answerable = refusal is not None and refusal.code not in ("follow", "models")
    return Explanation(
        cluster=cluster,
        placement=policy.name,
        kind=policy.kind,
        subject=policy.subject,
        version=decision.version,
        chosen=refusal is None,
        code=refusal.code if refusal else "",
        reason=reason,
        changes=smallest(decision, subject, cluster, others, now) if is_answerable else (),
    )
