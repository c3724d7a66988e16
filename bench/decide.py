"""Deciding: one policy over 10,000 and 100,000 clusters, and 1,000 policies over 10,000.

`python -m bench.decide [--clusters N]`: the fleet is random, and the same in every run.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from bench.figure import cpu_ms, figure
from placement.decide import decide
from placement.index import ARCH, FleetIndex, known_value
from placement.selector import fact_holds, matches
from placement.together import Ask, decide_together
from placement.types import (
    Decision,
    FactTest,
    Needs,
    Policy,
    Preference,
    Requirement,
    Subject,
    Taint,
    Target,
    Term,
    Toleration,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
COUNTRIES = tuple(f"c{n:02d}" for n in range(20))
LINES = ("welding", "paint", "packing", "press", "assembly")
TIERS = ("canary", "prod", "prod", "prod", "lab")
TARGETS_MS = {10_000: 1.7, 100_000: 20.0}
PUBLISHED = {
    10_000: {"published-open-cluster-management": 34.0, "published-karmada": 91.0},
    100_000: {"published-open-cluster-management": 750.0, "published-karmada": 1100.0},
}
NOTE = "two labels, one fact, architecture, taints; ranked by two preferences and a PreferNoSelect taint"
SUBJECT = Subject(
    "model", "m0000", {"1.0.0": "", "2.0.0": "", "2.1.0": ""}, needs=Needs(arch=frozenset({"amd64"}))
)  # fmt: skip
FACT = FactTest("memory.capacity", "number", ">=", ("4Gi",), 86400.0)
TAINTS = (
    Taint("maintenance", "", "NoSelect"),
    Taint("drain", "", "NoSelectIfNew"),
    Taint("slow", "", "PreferNoSelect"),
)
PREFER = (
    Preference(Term(requirements=(Requirement("tier", "In", ("canary",)),)), 10),
    Preference(Term(requirements=(Requirement("line", "In", ("paint",)),)), 5),
)
POLICY = Policy(
    "one",
    "model",
    "m0000",
    ">=2 <3",
    (
        Term(
            requirements=(
                Requirement("country", "In", ("c03",)),
                Requirement("line", "In", ("welding", "paint")),
            ),
            facts=(FACT,),
        ),
    ),
    count=10,
    prefer=PREFER,
)
MATRIX = 1_000
SAMPLE = 20


def fleet(size: int, seed: int = 1) -> list[Target]:
    dice = random.Random(seed)
    return [
        Target(
            f"{dice.choice(COUNTRIES)}-{number:06d}",
            {
                "country": dice.choice(COUNTRIES),
                "line": dice.choice(LINES),
                "tier": dice.choice(TIERS),
                "edgeferry.dev/site": f"site-{number // 3}",
            },
            {
                "arch": (dice.choice(("amd64", "amd64", "arm64")), NOW),
                "memory.capacity": (
                    str(dice.randrange(1 << 30, 64 << 30, 4096)),
                    NOW - timedelta(hours=dice.randrange(30)),
                ),
            },
            (dice.choice(TAINTS),) if dice.random() < 0.05 else (),
        )
        for number in range(size)
    ]


def naive(policy: Policy, subject: Subject, targets: Sequence[Target]) -> tuple[list[str], dict[str, list[str]]]:
    """Decide cluster by cluster: the chosen, and the others by reason."""
    fitting: list[tuple[int, str]] = []
    refused: dict[str, list[str]] = {"labels": [], "facts": [], "taint": [], "arch": [], "count": []}
    for target in targets:
        terms = None if policy.terms is None else [term for term in policy.terms if matches(term, target)]
        if terms is not None and not terms:
            refused["labels"].append(target.name)
        elif terms is not None and not any(all(fact_holds(one, target, NOW) for one in term.facts) for term in terms):
            refused["facts"].append(target.name)
        elif any(one.effect != "PreferNoSelect" for one in _untolerated(policy, target)):
            refused["taint"].append(target.name)
        elif subject.needs.arch and known_value(target, ARCH) not in subject.needs.arch:
            refused["arch"].append(target.name)
        else:
            score = sum(one.weight for one in policy.prefer if matches(one.term, target))
            score -= 100 * len(_untolerated(policy, target))
            fitting.append((-score, target.name))
    fitting.sort()
    count = len(fitting) if policy.count is None else policy.count
    refused["count"] = [name for _, name in fitting[count:]]
    return sorted(name for _, name in fitting[:count]), refused


def _untolerated(policy: Policy, target: Target) -> list[Taint]:
    return [one for one in target.taints if not any(other.tolerates(one) for other in policy.tolerations)]


def by_hand(targets: Sequence[Target]) -> list[str]:
    """Decide POLICY by a loop written for it alone, without reasons: the fastest that has no index."""
    lines = frozenset(("welding", "paint"))
    best = heapq.nsmallest(
        10,
        (
            (
                (one.labels.get("tier") == "canary") * -10
                - (one.labels.get("line") == "paint") * 5
                + 100 * len(one.taints),
                one.name,
            )
            for one in targets
            if one.labels.get("country") == "c03"
            and one.labels.get("line") in lines
            and one.facts["arch"][0] == "amd64"
            and fact_holds(FACT, one, NOW)
            and not (one.taints and one.taints[0].effect != "PreferNoSelect")
        ),
    )
    return sorted(name for _, name in best)


def one_policy(size: int) -> None:
    targets = fleet(size)
    index = FleetIndex.build(targets)
    chosen, refused = naive(POLICY, SUBJECT, targets)
    decision = decide(POLICY, SUBJECT, index, None, NOW)
    assert list(decision.chosen) == chosen == by_hand(targets)
    counted: Counter[str] = Counter()
    for one in decision.refused:
        counted[one.code] += len(one.clusters)
    assert counted == {code: len(names) for code, names in refused.items()}
    figure(
        f"decide-{size}",
        cpu_ms(lambda: [decide(POLICY, SUBJECT, index, None, NOW) for _ in range(10)], 9) / 10,
        "ms",
        TARGETS_MS.get(size),
        {
            "naive": cpu_ms(lambda: naive(POLICY, SUBJECT, targets), 3),
            "loop-by-hand-without-reasons": cpu_ms(lambda: by_hand(targets), 5),
            **PUBLISHED.get(size, {}),
        },
        NOTE,
    )
    changed = [
        replace(one, labels={**one.labels, "line": "press", "tier": "lab"}, taints=TAINTS[:1])
        for one in targets[:: size // 100]
    ]
    figure(
        f"index-update-{size}",
        cpu_ms(lambda: index.with_changes(changed), 5),
        "ms",
        None,
        {"build": cpu_ms(lambda: FleetIndex.build(targets), 2)},
        "100 clusters with two changed labels and another taint; columns of facts in use",
    )
    measured = [_measured(one) for one in targets[:: size // 100]]
    figure(
        f"index-facts-{size}",
        cpu_ms(lambda: decide(POLICY, SUBJECT, index.with_changes(measured), None, NOW), 5),
        "ms",
        None,
        {"build": cpu_ms(lambda: decide(POLICY, SUBJECT, FleetIndex.build(targets), None, NOW), 2)},
        "100 clusters report another memory; then POLICY is decided",
    )


def _measured(target: Target) -> Target:
    value, at = target.facts["memory.capacity"]
    return replace(target, facts={**target.facts, "memory.capacity": (str(int(value) // 2), at)})


def policies(dice: random.Random) -> list[Policy]:
    """Return placements as fleets have them: by country, line or tier, some by name, some with a count."""
    found = []
    for number in range(MATRIX):
        countries = tuple(dice.sample(COUNTRIES, dice.randint(1, 4)))
        lines = tuple(dice.sample(LINES, dice.randint(1, 2)))
        terms = dice.choice(
            (
                (Term(requirements=(Requirement("country", "In", countries),)),),
                (Term(requirements=(Requirement("country", "In", countries), Requirement("line", "In", lines))),),
                (Term(requirements=(Requirement("line", "In", lines), Requirement("tier", "NotIn", ("lab",)))),),
                (
                    Term(requirements=(Requirement("tier", "In", ("canary",)),)),
                    Term(requirements=(Requirement("country", "In", countries), Requirement("line", "Exists"))),
                ),
                (
                    Term(
                        requirements=(Requirement("country", "In", countries),),
                        facts=(FactTest("memory.capacity", "number", ">=", (f"{dice.randrange(2, 48)}Gi",)),),
                    ),
                ),
                None,
            )
        )
        found.append(
            Policy(
                f"p{number:04d}",
                "model",
                f"m{number:04d}",
                dice.choice((">=2 <3", "2.0.0", "channel: stable")),
                terms,
                dice.choice((None, None, 10, 500)),
                tolerations=dice.choice(((), (), (Toleration("maintenance", "Exists"),))),
                prefer=PREFER,
            )
        )
    return found


def matrix(size: int) -> None:
    dice = random.Random(2)
    targets = fleet(size)
    index = FleetIndex.build(targets)
    placed = policies(dice)
    subjects = {
        one.subject: Subject(
            "model",
            one.subject,
            {f"{major}.{minor}.0": "" for major in (1, 2) for minor in range(5)},
            {"stable": "2.1.0"},
            Needs(arch=dice.choice((frozenset(), frozenset({"amd64"}), frozenset({"arm64", "amd64"})))),
        )
        for one in placed
    }

    asks = [Ask(one, subjects[one.subject]) for one in placed]

    def decide_all() -> tuple[Decision, ...]:
        return tuple(decide_together(asks, (), index, NOW).decisions.values())

    decisions = decide_all()
    for one, decision in list(zip(placed, decisions, strict=True))[:SAMPLE]:
        assert list(decision.chosen) == naive(one, subjects[one.subject], targets)[0]

    def decide_some() -> None:
        for one in placed[:SAMPLE]:
            naive(one, subjects[one.subject], targets)

    def again() -> object:
        return decide_together([replace(ask, previous=before[ask.policy.name]) for ask in asks], (), index, NOW)

    before = decide_together(asks, (), index, NOW).decisions
    figure(
        "decide-matrix",
        cpu_ms(decide_all, 3) / 1000,
        "s",
        2.0 if size == 10_000 else None,
        {
            f"naive-of-{SAMPLE}-scaled": cpu_ms(decide_some, 1) / 1000 * MATRIX / SAMPLE,
            "with-incumbents": cpu_ms(again, 3) / 1000,
        },
        f"{MATRIX} models, each by a placement of its own, {size} clusters; {NOTE}",
    )
    needy = [
        replace(ask, subject=replace(ask.subject, needs=replace(ask.subject.needs, memory_bytes=64 << 20 + n % 4)))
        for n, ask in enumerate(asks)
    ]
    figure(
        "decide-matrix-needs",
        cpu_ms(lambda: decide_together(needy, (), index, NOW), 2) / 1000,
        "s",
        None,
        {},
        "the same, and each model needs 64 to 512 MiB that no other one may have",
    )


def main() -> None:
    options = argparse.ArgumentParser(prog="bench.decide", description=__doc__)
    options.add_argument("--clusters", type=int, help="only this many clusters, instead of 10,000 and 100,000")
    size = options.parse_args().clusters
    for one in (size,) if size else (10_000, 100_000):
        one_policy(one)
    matrix(size or 10_000)


if __name__ == "__main__":
    main()
