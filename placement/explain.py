"""A decision → why, for people: grouped over the fleet, or for one cluster. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Literal

from placement.counterfactual import smallest
from placement.facts import shown_failure
from placement.needs import shown_amount
from placement.room import amounts
from placement.scene import Scene
from placement.selector import fact_holds, matches
from placement.terms import failing
from placement.types import Decision, FactTest, Subject, Target, Term
from placement.wording import wanted_by
from placement.world import Change

_SHOWN = 3
_USED_UP = ("accelerator", "memory", "disk", "cpu")


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
        variant: of the version; empty for the version itself.
        code: of the refusal; empty where it is chosen.
        reason: of the cluster's whole group.
        changes: the smallest change that would choose it; empty where it is chosen, or where none would.
    """

    cluster: str
    placement: str
    kind: Literal["model", "workload"]
    subject: str
    version: str
    variant: str
    chosen: bool
    code: str
    reason: str
    changes: tuple[Change, ...]

    def text(self) -> str:
        """Return one line: "turin-03: not chosen by line-eu: label line is 'packing', wanted 'welding' or 'paint'"."""
        if self.chosen:
            version = f"{self.version} ({self.variant})" if self.variant else self.version
            return f"{self.cluster}: {self.subject} {version} by {self.placement}: {self.reason}"
        why = "; ".join(change.text for change in self.changes) or self.reason
        _, _, holders = self.reason.partition("; ")
        if holders and self.code in _USED_UP and self.changes:
            why += f" ({holders})"
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
    decision: Decision,
    subject: Subject,
    cluster: str,
    scene: Scene,
    now: datetime,
    others: Sequence[tuple[Decision, Subject]] = (),
) -> Explanation:
    """Explain what one decision means for one cluster, with the smallest change that would choose it.

    Args:
        decision: of the step.
        subject: what it places.
        cluster: name of a cluster of its index.
        scene: what was decided before it.
        now: the time that was decided for, timezone-aware.
        others: the other decisions of the step, with what they place: they may have the room.

    Raises:
        KeyError: the index has no such cluster.
    """
    policy, target = decision.policy, decision.chosen.index.targets[cluster]
    refusal = next((one for one in decision.refused if cluster in one.clusters), None)
    if refusal is None:
        reason = _why(decision, target, now)
    elif refusal.code == "facts":
        reason = _which_fact(decision, cluster, now) or refusal.text
    else:
        reason = refusal.text + _holders(refusal.code, decision, cluster, others)
    # A workload that follows its models has no terms to change: the placement that it follows has.
    is_answerable = refusal is not None and refusal.code not in ("follow", "models") and cluster not in decision.chosen
    variant = next((name for name, some in decision.variants.items() if cluster in some), "")
    return Explanation(
        cluster=cluster,
        placement=policy.name,
        kind=policy.kind,
        subject=policy.subject,
        version=decision.version,
        variant=variant if refusal is None else "",
        chosen=refusal is None,
        code=refusal.code if refusal else "",
        reason=reason,
        changes=smallest(decision, subject, cluster, scene, now) if is_answerable else (),
    )


def _why(decision: Decision, target: Target, now: datetime) -> str:
    """Return why a cluster is chosen."""
    if target.name in decision.leaving:
        some = sorted(decision.arriving)
        waiting = ", ".join(some[:_SHOWN]) + (", …" if len(some) > _SHOWN else "")
        return f"it is left, and keeps it until it is current on {waiting}"
    terms = [one for one in decision.policy.terms or () if matches(one, target)]
    if not terms:
        return "it goes to every cluster that fits"
    whole = next((one for one in terms if not _failures(one, target, now)), None)
    if whole is not None:
        return wanted_by(whole)
    return f"{wanted_by(terms[0])}; it keeps its place although {_failures(terms[0], target, now)[0]}"


def _failures(term: Term, target: Target, now: datetime) -> list[str]:
    found = []
    for test in term.facts:
        holds = fact_holds(test, target, now)
        if holds is None:
            found.append(f"{test.name} is not known, or old")
        elif not holds:
            found.append(_failure(test, target))
    return found


def _failure(test: FactTest, target: Target) -> str:
    return shown_failure(test, target.facts[test.name][0])


def _which_fact(decision: Decision, cluster: str, now: datetime) -> str:
    """Return which fact keeps one cluster out, with its own value."""
    index = decision.chosen.index
    bit = 1 << index.numbers[cluster]
    for term in decision.policy.terms or ():
        if matches(term, index.targets[cluster]):
            for test in term.facts:
                for text, _ in failing(test, index, now, bit):
                    return text
    return ""


def _holders(code: str, decision: Decision, cluster: str, others: Sequence[tuple[Decision, Subject]]) -> str:
    """Return who has the room that is lacking: "; letters has 2Gi"."""
    found = []
    for other, subject in others:
        if cluster in other.chosen and other.policy.name != decision.policy.name and other.version:
            variant = next((name for name, some in other.variants.items() if cluster in some), "")
            forms = subject.forms(other.version)
            form = next((one for one in forms if one.name == variant), forms[0])
            sizes = [shown_amount(word, amount) for word, _, amount in amounts(form.needs) if word == code]
            found += [f"{subject.name} has {size}" for size in sizes[:1]]
    return f"; {', '.join(found)}" if found else ""
