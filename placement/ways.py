"""A refusal → every way to please it, each as the changes that it takes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from placement.expressions import compile_expression
from placement.facts import quantity, satisfied, shown_test, shown_value
from placement.index import FleetIndex
from placement.needs_ways import needed, versions_in
from placement.selector import fact_holds, holds
from placement.terms import ask, shown_expression, shown_span
from placement.types import Decision, FactTest, Refusal, Requirement, Target, Term
from placement.versions import newest
from placement.world import Change, World, changed

Way = tuple[Change, ...]
_MOST_VALUES: Final = 12
_OF_NEEDS: Final = frozenset({"arch", "accelerator", "memory", "disk", "cpu", "runtime"})


def ways(
    world: World, current: Decision, refusal: Refusal, before: Decision, now: datetime,
    decided: Callable[[World], Decision],
) -> Iterable[Way]:  # fmt: skip
    """Return ways to please a refusal, those that change the cluster first; empty where there is none.

    Args:
        world: as it is.
        current: the decision in it.
        refusal: of the cluster.
        before: the decision that everybody keeps the places of.
        decided: decides another world.
    """
    index = current.chosen.index
    match refusal.code:
        case "version":
            return _version(world, current.fault)
        case "labels" | "names" | "workload" | "facts" | "expression":
            return _terms(world, index, now)
        case "delivery":
            text = f"platform is host, which runs no {world.subject.delivery}s; wanted delivery server or file"
            return ((Change("delivery", text, value="server"),),)
        case "taint":
            taint = refusal.text.removeprefix("taint ")
            return ((Change("taint", f"taint {taint} is not tolerated", taint),),)
        case "spread":
            return _spread(world, current, index, decided, now)
        case "priority":
            return _priority(world)
        case "count":
            return _count(world, before, decided)
        case code if code in _OF_NEEDS:
            return needed(world, current.version, index)
        case _:
            return ()


def _version(world: World, fault: str) -> Iterator[Way]:
    usable = [version for version, withdrawn in world.subject.versions.items() if not withdrawn]
    if usable:
        wanted = newest(usable)
        text = f"version {world.policy.version}: {fault}; the newest is {wanted}"
        yield (Change("version", text, value=wanted),)


def _priority(world: World) -> Iterator[Way]:
    name = world.target.name
    holders = [one.policy for one in world.scene.held if name in one.chosen]
    if holders:
        holder = max(holders, key=lambda one: one.priority)
        text = (
            f"placement {holder.name} has it with priority {holder.priority}, wanted more than that"
            f" instead of {world.policy.priority}"
        )
        yield (Change("priority", text, value=str(holder.priority + 1)),)


def _count(world: World, before: Decision, decided: Callable[[World], Decision]) -> Iterator[Way]:
    """Return how far down the list of those that can have a place the cluster is."""
    count, name = world.policy.count, world.target.name
    if count is None:
        return

    def with_count(most: int) -> Decision:
        return decided(replace(world, policy=replace(world.policy, count=most)))

    high = _least(lambda most: name in with_count(most).chosen, count, len(before.chosen.index.ordered))
    if high is None:
        return
    ahead = set(with_count(count).chosen)
    last = ""
    if ahead:
        kept = ahead & set(before.chosen)
        last = f", outranked by {_last_in(with_count, count, ahead, kept)}"
    yield (Change("count", f"rank {high} of count {count}{last}", value=str(high)),)


def _last_in(with_count: Callable[[int], Decision], count: int, ahead: set[str], kept: set[str]) -> str:
    """Return who has the last place: the newcomer that one place less would not have, else the last name."""
    newcomers = ahead - kept
    if newcomers and count > 0:
        gone = newcomers - set(with_count(count - 1).chosen)
        if gone:
            return max(gone)
    return max(ahead)


def _spread(
    world: World, current: Decision, index: FleetIndex, decided: Callable[[World], Decision], now: datetime
) -> Iterator[Way]:
    """Return the label that would do, or the skew that would let the cluster in."""
    for rule in world.policy.spread:
        if not rule.refuse:
            continue
        has = world.target.labels.get(rule.key)
        chosen = [index.targets[name].labels.get(rule.key) for name in current.chosen]
        counts = {value: chosen.count(value) for value in index.values.get(rule.key, {})}
        least = min(counts.values(), default=0)
        if has is None:
            text = f"label {rule.key} is missing, which the placement spreads over"
            other = sorted(counts, key=lambda value: (counts[value], value))
            yield from ((Change("label", text, rule.key, value),) for value in other[:_MOST_VALUES])
            yield (Change("spread", f"{text}; wanted a spread without it", rule.key),)
            continue
        text = f"{rule.key} {has} has {counts.get(has, 0)}, the fewest are {least}: maxSkew {rule.max_skew}"

        def with_skew(skew: int, key: str = rule.key) -> bool:
            after = changed(world, Change("spread", "", key, str(skew)), now)
            refusal = next((one for one in decided(after).refused if world.target.name in one.clusters), None)
            return refusal is None or refusal.code != "spread"

        wanted = _least(with_skew, rule.max_skew, len(index.ordered))
        if wanted is not None:
            yield (Change("spread", f"{text}, wanted {wanted}", rule.key, str(wanted)),)


def _least(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the least number above ``low`` for which something holds that holds for all above; None for none."""
    if high <= low or not holds(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _terms(world: World, index: FleetIndex, now: datetime) -> Sequence[Way]:
    """Return what each term asks for that the cluster has not."""
    found = [
        way for number, term in enumerate(world.policy.terms or ()) for way in _term(world, number, term, index, now)
    ]
    if found:
        return sorted(found, key=len)
    text = f"no term of placement {world.policy.document} can select it, wanted one that names it"
    return ((Change("clusters", text, value=world.target.name),),)


def _term(world: World, number: int, term: Term, index: FleetIndex, now: datetime) -> Iterator[Way]:
    """Yield ways for one term; nothing where it contradicts itself."""
    name = world.target.name
    parts: list[Sequence[Way]] = []
    if term.names is not None and name not in term.names:
        parts.append([(Change("names", f"{name} is not among the names", str(number), name),)])
    for key, requirements in _by_key(term.requirements).items():
        if not all(holds(one, world.target) for one in requirements):
            parts.append(_label(world, key, requirements, index))
    if term.runs_workload and not world.scene.running.get(term.runs_workload, 0) >> world.number & 1:
        text = f"workload {term.runs_workload} is not placed there"
        parts.append([(Change("workload", text, term.runs_workload),)])
    for fact, tests in _by_fact(term.facts).items():
        if not all(fact_holds(test, world.target, now) for test in tests):
            parts.append(_fact(world, fact, tests, now))
    whole: list[Way] = [()]
    for part in parts:
        whole = [(*way, *one) for way in whole for one in part][: _MOST_VALUES * 4]
    if not term.expression:
        yield from (way for way in whole if way)
        return
    for way in whole:
        yield from _with_expression(world, number, term, way, index, now)


def _label(world: World, key: str, requirements: Sequence[Requirement], index: FleetIndex) -> Sequence[Way]:
    values = [value for value in _values(world, key, requirements, index) if _all_hold(requirements, key, value)]
    has = f"is {world.target.labels[key]!r}" if key in world.target.labels else "is missing"
    text = f"label {key} {has}, wanted {_asked(requirements, values)}"
    return [(Change("label", text, key, value),) for value in list(dict.fromkeys(values))[:_MOST_VALUES]]


def _values(
    world: World, key: str, requirements: Sequence[Requirement], index: FleetIndex
) -> Iterator[str | None]:  # fmt: skip
    """Yield values among which there is one that all the requirements of a key hold for, if there is any."""
    listed = [one.values for one in requirements if one.operator == "In"]
    if listed:
        yield from listed[0]
        return
    if not any(one.operator == "Exists" for one in requirements):
        yield None
    unwanted = {value for one in requirements if one.operator == "NotIn" for value in one.values}
    yield from (value for value in sorted(index.values.get(key, {}))[:_MOST_VALUES] if value not in unwanted)
    forms = [world.subject.needs, *(form.needs for some in world.subject.variants.values() for form in some)]
    yield from sorted({arch for needs in forms for arch in needs.arch} - unwanted)
    yield from (fresh for n in range(len(unwanted) + 1) if (fresh := f"x{n}") not in unwanted)


def _fact(world: World, fact: str, tests: Sequence[FactTest], now: datetime) -> Sequence[Way]:
    found = world.target.facts.get(fact)
    wanted = " and ".join(shown_test(test).removeprefix(f"{fact} ").removeprefix("== ") for test in tests)
    aged = [test for test in tests if test.max_age_s is not None]
    stale = next((test for test in aged if fact_holds(test, world.target, now) is None), None)
    if found is None:
        is_now = f"fact {fact} is not known yet"
    elif stale is not None:
        is_now = f"fact {fact} was measured more than {shown_span(stale.max_age_s or 0)} ago"
    else:
        is_now = f"fact {fact} is {shown_value(tests[0], found[0])}"
    text = f"{is_now}, wanted {wanted}"
    candidates = [found[0]] if found is not None else []
    candidates += [one for test in tests for value in test.values for one in _near(test, value)]
    fitting = [value for value in dict.fromkeys(candidates) if all(satisfied(test, value) for test in tests)]
    return [(Change("fact", text, fact, value),) for value in fitting[:3]]


def _near(test: FactTest, value: str) -> Iterator[str]:
    """Yield texts at and around a test's value."""
    if test.kind == "number":
        found = quantity(value)
        if found is not None:
            for one in (found, found + 1, found - 1):
                if one >= 0:
                    yield format(one.normalize(), "f")
    elif test.kind == "version":
        yield from versions_in(test.operator, value)
    else:
        yield value if test.operator != "!=" else f"not-{value}"


def _with_expression(
    world: World, number: int, term: Term, way: Way, index: FleetIndex, now: datetime
) -> Iterator[Way]:  # fmt: skip
    """Yield a way with what makes the term's expression true, by one label more; else without the expression."""
    after = world
    for change in way:
        after = changed(after, change, now)
    expression = compile_expression(term.expression)

    def is_true(one: World) -> bool:
        return ask(expression, one.subject, index.with_changes([one.target]), 1 << one.number)[0] != 0

    if is_true(after):
        if way:
            yield way
        return
    shown = shown_expression(term.expression)
    tried = 0
    for key in expression.keys:
        for value in (None, *(word for word in expression.words if word not in expression.keys)):
            if value == after.target.labels.get(key) or tried > 60:
                continue
            tried += 1
            has = f"is {after.target.labels[key]!r}" if key in after.target.labels else "is missing"
            wanted = "none" if value is None else repr(value)
            change = Change("label", f"label {key} {has}, wanted {wanted} for `{shown}`", key, value)
            if is_true(changed(after, change, now)):
                yield (*way, change)
    text = f"`{shown}` does not hold, wanted an expression that does"
    yield (*way, Change("expression", text, str(number)))


def _by_key(requirements: Sequence[Requirement]) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for one in requirements:
        found.setdefault(one.key, []).append(one)
    return found


def _by_fact(tests: Sequence[FactTest]) -> dict[str, list[FactTest]]:
    found: dict[str, list[FactTest]] = {}
    for one in tests:
        found.setdefault(one.name, []).append(one)
    return found


def _all_hold(requirements: Sequence[Requirement], key: str, value: str | None) -> bool:
    labels: Mapping[str, str] = {} if value is None else {key: value}
    return all(holds(one, Target("", labels)) for one in requirements)


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
