"""Why not? → the smallest change after which a policy chooses a cluster. Pure.

Found by deciding: change what the decision gives as its reason, and decide again, until nothing refuses the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from placement import conflicts
from placement.decide import NOT_ON_HOSTS, decide
from placement.index import ARCH, ARCH_LABEL, PLATFORM_LABEL, FleetIndex, known_value
from placement.selector import holds
from placement.types import Decision, Policy, Requirement, Subject, Target, Term
from placement.versions import newest


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that would have to be otherwise.

    Attributes:
        what: ``label`` of the cluster, ``fact`` that its agent measures; ``names``, ``clusters``, ``version``,
            ``count``, ``priority`` of the placement; ``arch``, ``delivery`` of what is placed.
        text: as it is and as it is wanted, for people: "label line is 'packing', wanted 'welding' or 'paint'".
        key: of the label or fact; for ``names`` the number of the term, from 0; else empty.
        value: one that would do; None for a label that would have to go.
    """

    what: Literal["label", "fact", "names", "clusters", "version", "count", "priority", "arch", "delivery"]
    text: str
    key: str = ""
    value: str | None = None


@dataclass(frozen=True, slots=True)
class World:
    """What it depends on whether a policy chooses a cluster, beside the other clusters."""

    policy: Policy
    subject: Subject
    target: Target


def smallest(
    decision: Decision, subject: Subject, cluster: str, others: Sequence[Decision], now: datetime
) -> tuple[Change, ...]:
    """Return the smallest change that would choose a cluster.

    Args:
        decision: by ``decide``, settled; all clusters that it chooses keep their places.
        subject: what it places.
        cluster: name of a cluster of its index.
        others: settled decisions of this step; those of other policies for the same subject can hold the cluster.
        now: for times in policies, timezone-aware.

    Returns:
        Changes that suffice together, and of which none can be left out. Empty where the cluster is chosen, and where
        no change helps: the subject has no version that is not withdrawn.
    """
    rivals = [
        one
        for one in others
        if (one.policy.kind, one.policy.subject) == (decision.policy.kind, decision.policy.subject)
        and one.policy.name != decision.policy.name
    ]
    index = decision.chosen.index
    world = World(decision.policy, subject, index.targets[cluster])
    changes: tuple[Change, ...] = ()
    while found := _next(world, decision, index, rivals, now):
        changes += found
        for one in found:
            world = changed(world, one, now)
        index = index.with_changes([world.target])
    return changes


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
        case "names":
            terms = list(policy.terms or ())
            term = terms[int(change.key)]
            terms[int(change.key)] = replace(term, names=(term.names or frozenset()) | {value})
            return replace(world, policy=replace(policy, terms=tuple(terms)))
        case "clusters":
            return replace(world, policy=replace(policy, terms=(*(policy.terms or ()), Term(frozenset({value})))))
        case "version":
            return replace(world, policy=replace(policy, version=value))
        case "count":
            return replace(world, policy=replace(policy, count=int(value)))
        case "priority":
            return replace(world, policy=replace(policy, priority=int(value)))
        case "arch":
            return replace(world, subject=replace(subject, arch=subject.arch | {value}))
        case "delivery":
            return replace(world, subject=replace(subject, delivery=value))


def _next(
    world: World, before: Decision, index: FleetIndex, rivals: Sequence[Decision], now: datetime
) -> tuple[Change, ...]:
    """Return what the first filter that refuses the cluster asks for; empty where none does, or none can be pleased."""
    name = world.target.name
    current = decide(world.policy, world.subject, index, before, now)
    refusal = next((one for one in current.refused if name in one.clusters), None)
    match refusal.code if refusal else "":
        case "version":
            return _version(world, current.fault)
        case "labels" | "names":
            return _terms(world, index)
        case "delivery":
            return (
                Change(
                    "delivery",
                    f"platform is host, which runs no {world.subject.delivery}s; wanted delivery server or file",
                    value="server",
                ),
            )
        case "arch":
            return (_arch(world),)
    holders = [one for one in rivals if name in one.chosen and one.policy.priority >= world.policy.priority]
    if holders:
        return (_priority(max(holders, key=lambda one: one.policy.priority), world.policy),)
    return _count(world, before, current, rivals)


def _version(world: World, fault: str) -> tuple[Change, ...]:
    usable = [version for version, withdrawn in world.subject.versions.items() if not withdrawn]
    if not usable:
        return ()
    wanted = newest(usable)
    return (Change("version", f"version {world.policy.version}: {fault}; the newest is {wanted}", value=wanted),)


def _arch(world: World) -> Change:
    arch, wanted = known_value(world.target, ARCH), sorted(world.subject.arch)
    if arch:
        return Change("arch", f"arch is {arch}, wanted {_either(wanted)}", ARCH, arch)
    return Change("fact", f"arch is not known yet, wanted {_either(wanted)}", ARCH, wanted[0])


def _priority(holder: Decision, policy: Policy) -> Change:
    text = (
        f"placement {holder.policy.name} has it with priority {holder.policy.priority}, wanted more than that"
        f" instead of {policy.priority}"
    )
    return Change("priority", text, value=str(holder.policy.priority + 1))


def _count(world: World, before: Decision, current: Decision, rivals: Sequence[Decision]) -> tuple[Change, ...]:
    """Return how far down the list of those that can have a place the cluster is."""
    index, count, name = current.chosen.index, world.policy.count, world.target.name
    if count is None or name in before.chosen:
        return ()
    fitting = current.chosen.bits
    for refusal in current.refused:
        if refusal.code == "count":
            fitting |= refusal.clusters.bits
    for rival in rivals:
        if conflicts.rank(rival.policy) < conflicts.rank(world.policy):
            fitting &= ~rival.chosen.bits
    keeping = fitting & before.chosen.bits
    ahead = keeping | (fitting & ((1 << index.numbers[name]) - 1))
    rank = ahead.bit_count() + 1
    if rank <= count:
        return ()
    held = keeping | index.first(ahead & ~keeping, count - keeping.bit_count())
    last = f", outranked by {index.names(held)[-1]}" if held else ""
    return (Change("count", f"rank {rank} of count {count}{last}", value=str(rank)),)


def _terms(world: World, index: FleetIndex) -> tuple[Change, ...]:
    """Return what the term asks for that is nearest to the cluster."""
    ways = [
        way
        for number, term in enumerate(world.policy.terms or ())
        if (way := _term(world, number, term, index)) is not None
    ]
    if not ways:
        text = f"no term of placement {world.policy.name} can select it, wanted one that names it"
        return (Change("clusters", text, value=world.target.name),)
    return min(ways, key=len)


def _term(world: World, number: int, term: Term, index: FleetIndex) -> tuple[Change, ...] | None:
    """Return what one term asks for that the cluster has not; None where the term contradicts itself."""
    name = world.target.name
    changes = []
    if term.names is not None and name not in term.names:
        changes.append(Change("names", f"{name} is not among the names", str(number), name))
    by_key: dict[str, list[Requirement]] = {}
    for requirement in term.requirements:
        by_key.setdefault(requirement.key, []).append(requirement)
    for key, requirements in by_key.items():
        if all(holds(one, world.target) for one in requirements):
            continue
        fitting = [value for value in _values(key, requirements, index) if _all_hold(requirements, key, value)]
        if not fitting:
            return None
        value = min(fitting, key=lambda one: _is_awkward(world.subject, key, one))
        has = f"is {world.target.labels[key]!r}" if key in world.target.labels else "is missing"
        changes.append(Change("label", f"label {key} {has}, wanted {_asked(requirements, fitting)}", key, value))
    return tuple(changes)


def _values(key: str, requirements: Sequence[Requirement], index: FleetIndex) -> Iterator[str | None]:
    """Yield values among which there is one that all the requirements of a key hold for, if there is any."""
    listed = [one.values for one in requirements if one.operator == "In"]
    if listed:
        yield from listed[0]
    elif any(one.operator == "Exists" for one in requirements):
        unwanted = {value for one in requirements if one.operator == "NotIn" for value in one.values}
        yield from (value for value in sorted(index.values.get(key, {})) if value not in unwanted)
        yield from (fresh for n in range(len(unwanted) + 1) if (fresh := f"x{n}") not in unwanted)
    else:
        yield None


def _all_hold(requirements: Sequence[Requirement], key: str, value: str | None) -> bool:
    labels: Mapping[str, str] = {} if value is None else {key: value}
    return all(holds(one, Target("", labels)) for one in requirements)


def _is_awkward(subject: Subject, key: str, value: str | None) -> bool:
    """Tell whether a label value would only lead to the next refusal."""
    if key == ARCH_LABEL:
        return bool(subject.arch) and value not in subject.arch
    return key == PLATFORM_LABEL and value == "host" and subject.delivery in NOT_ON_HOSTS


def _asked(requirements: Sequence[Requirement], fitting: Sequence[str | None]) -> str:
    unwanted = sorted({value for one in requirements if one.operator == "NotIn" for value in one.values})
    operators = {one.operator for one in requirements}
    if "In" in operators:
        return _either([repr(value) for value in fitting])
    if "Exists" in operators:
        return f"any but {_either([repr(value) for value in unwanted])}" if unwanted else "any value"
    return "none" if "DoesNotExist" in operators else "another or none"


def _either(items: Sequence[str]) -> str:
    return " or ".join(items)
