"""No flapping: facts of 10,000 clusters jitter at every step for 1,000 steps, and nothing moves without a reason.

`python -m bench.flapping [--clusters N] [--steps N] [--table]`: every step is five minutes. What people do meanwhile
(labels, taints, a placement that wants more, memory that is taken out for good) moves what it should, and is in the
table of moves and reasons. The reference is the same run deciding anew at each step, as if nobody had a place.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from bench.figure import figure
from placement.index import FleetIndex
from placement.together import Ask, decide_together
from placement.types import (
    Decision,
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
)

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
STEP = timedelta(minutes=5)
GIB = 1 << 30
COUNTRIES = ("it", "fr", "de", "es", "pl")
ITALY = (Requirement("country", "In", ("it",)),)
MEMORY = FactTest("memory.capacity", "number", ">=", ("8Gi",), 86400.0)
FREE = FactTest("disk.free", "number", ">", ("20Gi",))
EXPRESSION = "cluster.facts['load'] < 0.5"


def policies(clusters: int) -> list[tuple[Policy, Subject]]:
    """Return one policy of every kind that could flap."""
    models = {name: Subject("model", name, {"1.0.0": ""}) for name in ("all", "best", "even", "asked", "strict")}
    needy = Subject("model", "needy", {"1.0.0": ""}, needs=Needs(memory_bytes=5 * GIB))
    canary = Preference(Term(requirements=(Requirement("tier", "In", ("canary",)),)), 10)
    roomy = Preference(Term(facts=(replace(FREE, values=("60Gi",)),)), 40)
    few = max(4, clusters // 100)
    return [
        (Policy("all-that-fit", "model", "all", "*", (Term(facts=(MEMORY,)),)), models["all"]),
        (Policy("best-by-facts", "model", "best", "*", (Term(facts=(FREE,)),), few, prefer=(canary, roomy),
                rebalance=Rebalance(10, 5)), models["best"]),
        (Policy("even", "model", "even", "*", (Term(facts=(MEMORY,)),), 5 * few, spread=(Spread("country", 2),)),
         models["even"]),
        (Policy("needy", "model", "needy", "*", (Term(requirements=ITALY),), 3 * few), needy),
        (Policy("asked", "model", "asked", "*", (Term(requirements=ITALY, expression=EXPRESSION),), few),
         models["asked"]),
        (Policy("strict", "model", "strict", "*", (Term(requirements=ITALY, facts=(MEMORY,)),), 2 * few,
                evict_after_s=86400.0), models["strict"]),
    ]  # fmt: skip


@dataclass(slots=True)
class Play:
    """One run.

    Attributes:
        moves: (policy, came or went, reason) → how often.
        unexplained: moves that no person would accept.
    """

    clusters: int
    steps: int
    seed: int = 1
    moves: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    unexplained: int = 0
    _targets: dict[str, Target] = field(default_factory=dict)
    _base: dict[str, int] = field(default_factory=dict)

    def run(self, *, keep: bool = True) -> Play:
        """Play all steps; with ``keep`` everybody keeps places as decided before, else each step decides anew."""
        dice = random.Random(self.seed)
        self._build(dice)
        asks = policies(self.clusters)
        events = self._events(dice)
        before: Mapping[str, Decision] = {}
        index = FleetIndex.build(self._targets.values())
        said = ""
        for step in range(self.steps):
            now = BEGIN + STEP * step
            if step in events:
                said, asks = events[step](asks)
            index = index.with_changes([self._jittered(name, now, dice) for name in self._targets])
            decided = decide_together(
                [Ask(policy, subject, before.get(policy.name) if keep else None) for policy, subject in asks],
                (),
                index,
                now,
            ).decisions
            if before:
                for name, decision in decided.items():
                    self._count(before[name], decision, said)
            before = decided
        return self

    def _build(self, dice: random.Random) -> None:
        for number in range(self.clusters):
            name = f"c{number:05d}"
            labels = {"country": dice.choice(COUNTRIES), "tier": dice.choice(("canary", "prod", "prod"))}
            self._targets[name] = Target(name, labels)
            self._base[name] = dice.randrange(4 * GIB, 12 * GIB)

    def _jittered(self, name: str, now: datetime, dice: random.Random) -> Target:
        """Return the cluster with other facts; one in twenty is silent, and its facts grow old."""
        target = self._targets[name]
        if target.facts and dice.random() < 0.05:
            return target
        facts = {
            "memory.capacity": (str(int(self._base[name] * dice.uniform(0.8, 1.2))), now),
            "disk.free": (str(dice.randrange(0, 100 * GIB)), now),
            "load": (f"{dice.random():.2f}", now),
        }
        self._targets[name] = replace(target, facts=facts)
        return self._targets[name]

    def _events(self, dice: random.Random) -> dict[int, Callable[..., tuple[str, list[tuple[Policy, Subject]]]]]:
        names = sorted(self._targets)
        some = [dice.sample(names, max(1, self.clusters // 50)) for _ in range(3)]

        def relabel(asks: list[tuple[Policy, Subject]]) -> tuple[str, list[tuple[Policy, Subject]]]:
            for name in some[0]:
                labels = self._targets[name].labels
                country = "fr" if labels["country"] == "it" else "it"
                self._targets[name] = replace(self._targets[name], labels={**labels, "country": country})
            return "labels changed in Git", asks

        def taint(asks: list[tuple[Policy, Subject]]) -> tuple[str, list[tuple[Policy, Subject]]]:
            for name in some[1]:
                self._targets[name] = replace(self._targets[name], taints=(Taint("maintenance", "", "NoSelect"),))
            return "taints set in Git", asks

        def shrink(asks: list[tuple[Policy, Subject]]) -> tuple[str, list[tuple[Policy, Subject]]]:
            for name in some[2]:
                self._base[name] = GIB
            return "memory taken out of sites", asks

        def grow(asks: list[tuple[Policy, Subject]]) -> tuple[str, list[tuple[Policy, Subject]]]:
            more = [(replace(one, count=None if one.count is None else one.count + 3), model) for one, model in asks]
            return "counts raised in Git", more

        marks = [self.steps * n // 5 for n in range(1, 5)]
        return dict(zip(marks, (relabel, taint, shrink, grow), strict=True))

    def _count(self, before: Decision, after: Decision, said: str) -> None:
        policy = after.policy
        went, came = set(before.chosen) - set(after.chosen), set(after.chosen) - set(before.chosen)
        if not went and not came:
            return
        codes = {name: one.code for one in after.refused for name in one.clusters}
        freed = Counter[str]()
        for name in went:
            reason = self._why_gone(codes[name], policy, said)
            self.moves[policy.name, "went", reason] += 1
            freed[reason] += 1
            self.unexplained += reason.startswith("?")
        for _ in came:
            if policy.count is None:
                reason = "its facts fit for the first time"
            elif freed:
                reason = f"took a place: {freed.most_common(1)[0][0]}"
            elif before.short or before.policy.count != policy.count:
                reason = "a place was free"
            elif policy.spread:
                reason = "a place was free that evenness kept free" if before.short else "? came"
            else:
                reason = "? came"
            self.moves[policy.name, "came", reason] += 1
            self.unexplained += reason.startswith("?")

    def _why_gone(self, code: str, policy: Policy, said: str) -> str:
        if code == "labels" and "labels" in said:
            return said
        if code == "taint" and "taints" in said:
            return said
        if code == "facts" and policy.evict_after_s is not None:
            return "facts said no for a day (evictOnFacts)"
        if code == "count" and policy.rebalance is not None:
            return "a cluster with a better label score took its place (rebalance)"
        return f"? {code}"


def table(play: Play) -> str:
    """Return the moves and their reasons as Markdown."""
    lines = ["| placement | moves | | reason |", "|---|---|---|---|"]
    rows = sorted(play.moves.items(), key=lambda one: (one[0][0], -one[1]))
    lines += [f"| {policy} | {count} | {way} | {reason} |" for (policy, way, reason), count in rows]
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(prog="bench.flapping", description=__doc__)
    options.add_argument("--clusters", type=int, default=10_000)
    options.add_argument("--steps", type=int, default=1_000)
    options.add_argument("--table", action="store_true", help="print the table of moves and reasons, too")
    given = options.parse_args()
    play = Play(given.clusters, given.steps).run()
    anew = Play(given.clusters, max(5, given.steps // 50)).run(keep=False)
    figure(
        "flapping",
        play.unexplained,
        "moves without a reason",
        0,
        {"deciding-anew-per-step": sum(anew.moves.values()) / (anew.steps - 1)},
        f"{given.clusters} clusters, {given.steps} steps, {sum(play.moves.values())} moves in all",
    )
    if given.table:
        print(table(play))


if __name__ == "__main__":
    main()
