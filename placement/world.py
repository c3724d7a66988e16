"""What it depends on whether a policy chooses a cluster, and changes of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from placement.conflicts import rank
from placement.scene import Scene
from placement.types import Needs, Policy, Subject, Target, Term

What = Literal[
    "label", "fact", "taint", "workload", "names", "clusters", "expression", "version", "count", "spread", "priority",
    "arch", "delivery",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that would have to be otherwise.

    Attributes:
        what: ``label`` or ``taint`` of the cluster, ``fact`` that its agent measures, ``workload`` that would have to
            run there; ``names``, ``clusters``, ``expression``, ``version``, ``count``, ``spread``, ``priority`` of the
            placement; ``arch``, ``delivery`` of what is placed.
        text: as it is and as it is wanted, for people: "label line is 'packing', wanted 'welding' or 'paint'".
        key: of the label or fact; the taint; for ``names`` and ``expression`` the number of the term, from 0; for
            ``spread`` the label; else empty.
        value: one that would do; None for a label, taint or spread that would have to go.
    """

    what: What
    text: str
    key: str = ""
    value: str | None = None


@dataclass(frozen=True, slots=True)
class World:
    """What it depends on whether a policy chooses a cluster, beside the other clusters."""

    policy: Policy
    subject: Subject
    target: Target
    scene: Scene
    number: int


def changed(world: World, change: Change, now: datetime) -> World:
    """Return the world after one change; a fact would be measured ``now``."""
    policy, subject, target = world.policy, world.subject, world.target
    value = change.value or ""
    match change.what:
        case "label":
            labels = {key: old for key, old in target.labels.items() if key != change.key}
            if change.value is not None:
                labels[change.key] = value
            return replace(world, target=replace(target, labels=labels))
        case "fact":
            return replace(world, target=replace(target, facts={**target.facts, change.key: (value, now)}))
        case "taint":
            left = tuple(one for one in target.taints if str(one) != change.key)
            return replace(world, target=replace(target, taints=left))
        case "workload":
            running = dict(world.scene.running)
            running[change.key] = running.get(change.key, 0) | 1 << world.number
            return replace(world, scene=replace(world.scene, running=running))
        case "names":
            term = (policy.terms or ())[int(change.key)]
            return _with_term(world, change.key, replace(term, names=(term.names or frozenset()) | {value}))
        case "expression":
            return _with_term(world, change.key, replace((policy.terms or ())[int(change.key)], expression=""))
        case "clusters":
            return replace(world, policy=replace(policy, terms=(*(policy.terms or ()), Term(frozenset({value})))))
        case "version":
            return replace(world, policy=replace(policy, version=value))
        case "count":
            return replace(world, policy=replace(policy, count=int(value)))
        case "spread":
            rules = tuple(
                replace(one, max_skew=int(value)) if one.key == change.key else one
                for one in policy.spread
                if change.value is not None or one.key != change.key
            )
            return replace(world, policy=replace(policy, spread=rules))
        case "priority":
            higher = replace(policy, priority=int(value))
            held = tuple(one for one in world.scene.held if rank(one.policy) < rank(higher))
            return replace(world, policy=higher, scene=replace(world.scene, held=held))
        case "arch":
            return replace(world, subject=_also_on(subject, value))
        case "delivery":
            return replace(world, subject=replace(subject, delivery=value))


def _with_term(world: World, place: str, term: Term) -> World:
    terms = list(world.policy.terms or ())
    terms[int(place)] = term
    return replace(world, policy=replace(world.policy, terms=tuple(terms)))


def _also_on(subject: Subject, arch: str) -> Subject:
    def wider(needs: Needs) -> Needs:
        return replace(needs, arch=needs.arch | {arch}) if needs.arch else needs

    variants = {
        version: tuple(replace(form, needs=wider(form.needs)) for form in forms)
        for version, forms in subject.variants.items()
    }
    return replace(subject, needs=wider(subject.needs), variants=variants)
