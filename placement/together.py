"""All policies of a fleet → their decisions, in the order that they depend on each other. Pure.

A policy that looks at where a workload runs comes after everything that places the workload; otherwise the higher
priority comes first, then the name. What one takes, the next does not have: neither clusters of the same subject, nor
memory.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from placement.conflicts import Clash, clashes, rank
from placement.decide import decide
from placement.follow import Follower, follow
from placement.index import FleetIndex
from placement.room import Room, amounts
from placement.scene import Scene
from placement.selector import select
from placement.standing import Previous, standing
from placement.types import Decision, Needs, Policy, Subject
from placement.versions import parse_wish, resolve


@dataclass(frozen=True, slots=True)
class Ask:
    """One policy to be decided.

    Attributes:
        current: names of the clusters that report what it gave them as current; only a handover looks at it.
    """

    policy: Policy
    subject: Subject
    previous: Previous = None
    current: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Together:
    """All decisions of one step.

    Attributes:
        decisions: name → decision, sorted by name.
        clashes: policies of equal priority that claim the same; the first name has it here.
        scenes: name → what was decided before that one, for explanations; nothing for those that follow.
        subjects: name → what it places.
    """

    decisions: Mapping[str, Decision]
    clashes: tuple[Clash, ...]
    scenes: Mapping[str, Scene]
    subjects: Mapping[str, Subject]


_Key = tuple[str, str]
_Promises = list[tuple[Needs, int]]


def decide_together(
    asks: Sequence[Ask], followers: Sequence[Follower], index: FleetIndex, now: datetime
) -> Together:  # fmt: skip
    """Decide every policy, and place the workloads that follow one.

    Args:
        asks: in any order, names unique.
        followers: in any order; their leaders are among ``asks``.
        index: of all clusters.
        now: for the ages of facts.
    """
    by_name: dict[str, Ask | Follower] = {one.policy.name: one for one in asks}
    by_name.update({one.name: one for one in followers})
    room, promises = _promised(asks, index)
    found: dict[str, Decision] = {}
    held: dict[_Key, list[Decision]] = {}
    running: dict[str, int] = {}
    scenes: dict[str, Scene] = {}
    clashing: list[Clash] = []
    for name in in_order(asks, followers)[0]:
        one = by_name[name]
        key = _key(one)
        before = tuple(held.get(key, ()))
        if isinstance(one, Ask):
            mine = promises.get(key, [])
            for needs, bits in mine:
                room.give_back(needs, bits)
            current = index.bits(one.current) if one.current else 0
            scene = scenes[name] = Scene(dict(running), room.copy(), before, current)
            decision = decide(one.policy, one.subject, index, one.previous, now, scene)
            _promise(room, one.subject, decision)
            promises[key] = [(needs, bits & ~decision.chosen.bits) for needs, bits in mine]
            for needs, bits in promises[key]:
                room.take(needs, bits)
        else:
            leaders = [found[leader] for leader in one.leaders if leader in found]
            decision = follow(one, leaders, tuple(found.values()), before)
        clashing += clashes(decision, before)
        found[name] = decision
        held[key] = [*before, decision]
        if key[0] == "workload":
            running[key[1]] = running.get(key[1], 0) | decision.chosen.bits
    subjects = {name: one.subject for name, one in by_name.items()}
    return Together({name: found[name] for name in sorted(found)}, tuple(clashing), scenes, subjects)


def in_order(asks: Sequence[Ask], followers: Sequence[Follower]) -> tuple[list[str], tuple[str, ...]]:
    """Return the names in the order that they are decided in, and those that wait for each other in a circle."""
    ranks = {one.policy.name: rank(one.policy) for one in asks}
    ranks.update({one.name: (0, one.name) for one in followers})
    waits = _waits(asks, followers, ranks)
    left = {name: len(before) for name, before in waits.items()}
    after: dict[str, list[str]] = {}
    for name, before in waits.items():
        for one in before:
            after.setdefault(one, []).append(name)
    heap = [(ranks[name], name) for name, count in left.items() if not count]
    heapq.heapify(heap)
    order: list[str] = []
    while heap:
        _, name = heapq.heappop(heap)
        order.append(name)
        for one in after.get(name, ()):
            left[one] -= 1
            if not left[one]:
                heapq.heappush(heap, (ranks[one], one))
    waiting = sorted(waits.keys() - set(order), key=lambda name: ranks[name])
    leading = [name for name in waiting if name not in {one.name for one in followers}]
    following = [name for name in waiting if name not in leading]
    return [*order, *leading, *following], tuple(_circle(waiting, waits))


def _waits(
    asks: Sequence[Ask], followers: Sequence[Follower], ranks: Mapping[str, tuple[int, str]]
) -> dict[str, set[str]]:
    """Return name → the names that are decided before it."""
    waits: dict[str, set[str]] = {one.policy.name: set() for one in asks}
    waits.update({one.name: set(one.leaders) for one in followers})
    by_subject: dict[_Key, list[str]] = {}
    every: list[Ask | Follower] = [*asks, *followers]
    for one in every:
        by_subject.setdefault(_key(one), []).append(one.policy.name if isinstance(one, Ask) else one.name)
    for names in by_subject.values():
        names.sort(key=lambda name: ranks[name])
        for first, second in pairwise(names):
            waits[second].add(first)
    for follower in followers:
        for model in follower.models:
            waits[follower.name].update(by_subject.get(("model", model), ()))
    for ask in asks:
        terms = [*(ask.policy.terms or ()), *(one.term for one in ask.policy.prefer)]
        for workload in {term.runs_workload for term in terms if term.runs_workload}:
            waits[ask.policy.name].update(by_subject.get(("workload", workload), ()))
    return waits


def _circle(waiting: Sequence[str], waits: Mapping[str, set[str]]) -> Iterator[str]:
    """Yield one circle among those that could not be ordered, in the order in which each waits for the next."""
    if not waiting:
        return
    seen: dict[str, int] = {}
    left, name = set(waiting), waiting[0]
    path: list[str] = []
    while name not in seen:
        seen[name] = len(path)
        path.append(name)
        name = min(waits[name] & left)
    yield from path[seen[name] :]


def _key(one: Ask | Follower) -> _Key:
    return one.subject.kind, one.subject.name


def _promised(asks: Sequence[Ask], index: FleetIndex) -> tuple[Room, dict[_Key, _Promises]]:
    """Return the room with what is promised to those that are likely to stay, and the promises by subject."""
    room = Room()
    promises: dict[_Key, _Promises] = {}
    seen: dict[_Key, int] = {}
    for ask in sorted(asks, key=lambda one: rank(one.policy)):
        if not ask.previous or not _uses(ask.subject):
            continue
        version, _ = resolve(parse_wish(ask.policy.version), ask.subject)
        before = standing(ask.previous, version, index)
        key = _key(ask)
        staying = before.bits if ask.policy.make_before_break else before.bits & select(ask.policy.terms, index)
        staying &= ~seen.get(key, 0)
        seen[key] = seen.get(key, 0) | staying
        forms = ask.subject.forms(version)
        for form in (*forms[1:], forms[0]):
            has = staying & (staying if form is forms[0] else before.variants.get(form.name, 0))
            staying &= ~has
            promises.setdefault(key, []).append((form.needs, has))
            room.take(form.needs, has)
    return room, promises


def _uses(subject: Subject) -> bool:
    every = [subject.needs, *(form.needs for forms in subject.variants.values() for form in forms)]
    return any(amounts(needs) for needs in every)


def _promise(room: Room, subject: Subject, decision: Decision) -> None:
    chosen = decision.chosen.bits
    for form in subject.forms(decision.version) if decision.version else ():
        has = decision.variants[form.name].bits if form.name in decision.variants else 0
        has = chosen if not decision.variants else has & chosen
        room.take(form.needs, has)
        chosen &= ~has
