"""Explanations count every cluster, and the smallest change that they name is enough and not too much."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from itertools import combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from placement.counterfactual import smallest
from placement.decide import decide
from placement.explain import Explanation, explain_cluster, explain_model
from placement.follow import Follower
from placement.scene import Scene
from placement.together import Ask, decide_together
from placement.types import (
    Accelerator,
    Decision,
    FactTest,
    Needs,
    Policy,
    Requirement,
    Spread,
    Subject,
    Taint,
    Target,
    Term,
    Variant,
)
from placement.world import Change, World, changed
from tests.placement.worlds import (
    FACTS,
    GIB,
    KEYS,
    NOW,
    Around,
    arounds,
    fleets,
    index_of,
    policies,
    previous,
    subjects,
)

DIGITS = Subject("model", "digits", {"1.0.0": "", "2.1.0": ""})
READER = Subject("workload", "reader", {"1.0.0": ""})


def requirement(key: str, operator: str, *values: str) -> Term:
    return Term(requirements=(Requirement(key, operator, values),))  # type: ignore[arg-type]  # one of the four


def policy(*terms: Term, count: int | None = None, version: str = "*", priority: int = 0, name: str = "eu") -> Policy:
    return Policy(name, "model", "digits", version, terms or None, count, priority)


def explained(
    decision: Decision, subject: Subject, cluster: str, scene: Scene | None = None, **more: object
) -> Explanation:
    return explain_cluster(decision, subject, cluster, scene or Scene(), NOW, **more)  # type: ignore[arg-type]  # others


def is_chosen(world: World, before: Decision) -> bool:
    """Decide again with one cluster, its policy and its subject changed; all other decisions stay."""
    index = before.chosen.index.with_changes([world.target])
    return world.target.name in decide(world.policy, world.subject, index, before, NOW, world.scene).chosen


def after(world: World, changes: tuple[Change, ...]) -> World:
    for one in changes:
        world = changed(world, one, NOW)
    return world


def world_of(decision: Decision, subject: Subject, name: str, scene: Scene) -> World:
    index = decision.chosen.index
    return World(decision.policy, subject, index.targets[name], scene, index.numbers[name])


def single_changes(world: World) -> Iterator[Change]:
    """Yield everything that may be otherwise with the cluster alone, as far as these fleets know it."""
    for key, values in KEYS.items():
        for value in (*values, "other", None):
            if world.target.labels.get(key) != value:
                yield Change("label", "", key, value)
    for fact, texts in FACTS.items():
        for text in (*texts, str(64 * GIB), "64", "9.9.9", "air"):
            if fact not in world.target.facts or world.target.facts[fact][0] != text:
                yield Change("fact", "", fact, text)
    for taint in world.target.taints:
        yield Change("taint", "", str(taint))
    yield Change("workload", "", "reader")


@settings(max_examples=40)
@given(policies(), subjects(), fleets(min_size=1), previous(), arounds(), st.data())
def test_the_smallest_change_suffices_and_none_of_it_can_be_left_out(
    one: Policy, subject: Subject, fleet: list[Target], before: object, around: Around, data: st.DataObject
) -> None:
    index = index_of(fleet)
    scene = around.scene(index)
    decision = decide(one, subject, index, before, NOW, scene)  # type: ignore[arg-type]  # of previous()
    name = data.draw(st.sampled_from(sorted(index.ordered)))
    explanation = explained(decision, subject, name, scene)
    world = world_of(decision, subject, name, scene)
    assert explanation.text()
    assert json.loads(json.dumps(asdict(explanation)))["chosen"] == explanation.chosen
    if name in decision.chosen:
        assert explanation.chosen and not explanation.changes
    elif not explanation.changes:
        assert all(subject.versions.values()), "only a subject without a usable version cannot be helped"
    else:
        assert is_chosen(after(world, explanation.changes), decision)
        for n in range(len(explanation.changes)):
            rest = explanation.changes[:n] + explanation.changes[n + 1 :]
            assert not is_chosen(after(world, rest), decision)


@settings(max_examples=25)
@given(policies(), subjects(), fleets(min_size=1), previous(), arounds(), st.data())
def test_nothing_smaller_would_do(
    one: Policy, subject: Subject, fleet: list[Target], before: object, around: Around, data: st.DataObject
) -> None:
    index = index_of(fleet)
    scene = around.scene(index)
    decision = decide(one, subject, index, before, NOW, scene)  # type: ignore[arg-type]  # of previous()
    others = sorted(set(index.ordered) - set(decision.chosen))
    assume(others)
    name = data.draw(st.sampled_from(others))
    found = smallest(decision, subject, name, scene, NOW)
    assume(len(found) > 1)
    world = world_of(decision, subject, name, scene)
    singles = list(single_changes(world))
    for size in range(1, min(len(found), 3)):
        some = (
            combinations(singles, size)
            if size == 1
            else ((a, b) for a, b in combinations(singles, 2) if a.key != b.key)
        )
        for tried in some:
            assert not is_chosen(after(world, tuple(tried)), decision), f"{tried} is smaller than {found}"


@given(policies(), subjects(), fleets())
def test_a_summary_counts_every_cluster_once(one: Policy, subject: Subject, fleet: list[Target]) -> None:
    summary = explain_model(decide(one, subject, index_of(fleet), None, NOW))
    assert summary.chosen + sum(group.clusters for group in summary.refused) == len(fleet)
    assert [group.clusters for group in summary.refused] == sorted((g.clusters for g in summary.refused), reverse=True)
    assert json.loads(json.dumps(asdict(summary)))["chosen"] == summary.chosen
    assert summary.text()


@pytest.mark.parametrize(
    ("target", "one", "text"),
    [
        (Target("t", {"line": "packing"}), policy(requirement("line", "In", "welding", "paint")),
         "label line is 'packing', wanted 'welding' or 'paint'"),
        (Target("t"), policy(requirement("line", "In", "welding")), "label line is missing, wanted 'welding'"),
        (Target("t", {"line": "lab"}), policy(requirement("line", "NotIn", "lab")),
         "label line is 'lab', wanted another or none"),
        (Target("t"), policy(requirement("line", "Exists")), "label line is missing, wanted any value"),
        (Target("t", {"line": "x"}), policy(requirement("line", "DoesNotExist")), "label line is 'x', wanted none"),
        (Target("t", {"line": "x"}),
         policy(Term(requirements=(Requirement("line", "Exists"), Requirement("line", "NotIn", ("x", "y"))))),
         "label line is 'x', wanted any but 'x' or 'y'"),
        (Target("t", {"a": "1", "b": "2"}),
         policy(Term(requirements=(Requirement("a", "In", ("9",)), Requirement("b", "In", ("9",)))),
                requirement("b", "In", "8")),
         "label b is '2', wanted '8'"),
        (Target("t"), policy(Term(frozenset({"a"}))), "t is not among the names"),
        (Target("t"), policy(Term(frozenset({"a"}), (Requirement("line", "Exists"),))),
         "t is not among the names; label line is missing, wanted any value"),
        (Target("t"), policy(Term(requirements=(Requirement("a", "Exists"), Requirement("a", "DoesNotExist")))),
         "no term of placement eu can select it, wanted one that names it"),
        (Target("t"), policy(version=">=3"),
         "version >=3: no version of digits is in >=3; the newest is 2.1.0"),
    ],
    ids=["In", "In, missing", "NotIn", "Exists", "DoesNotExist", "Exists and NotIn", "nearest term", "names",
         "names and label", "contradiction", "version"],
)  # fmt: skip
def test_the_smallest_change_is_said_in_words(target: Target, one: Policy, text: str) -> None:
    decision = decide(one, DIGITS, index_of([target]), None, NOW)
    assert explained(decision, DIGITS, "t").text() == f"t: not chosen by eu: {text}"


def test_no_terms_are_answered_by_one_that_names_it() -> None:
    decision = decide(Policy("eu", "model", "digits", "*", ()), DIGITS, index_of([Target("t")]), None, NOW)
    assert [(one.what, one.value) for one in explained(decision, DIGITS, "t").changes] == [("clusters", "t")]


def test_a_rank_names_who_has_the_last_place() -> None:
    index = index_of([Target(f"turin-{n:02d}") for n in range(60)])
    decision = decide(policy(count=4), DIGITS, index, ["turin-50"], NOW)
    assert list(decision.chosen) == ["turin-00", "turin-01", "turin-02", "turin-50"]
    explanation = explained(decision, DIGITS, "turin-07")
    assert explanation.text() == "turin-07: not chosen by eu: rank 9 of count 4, outranked by turin-50"
    assert (explanation.code, explanation.reason) == ("count", "60 fit, 4 wanted")


def test_architecture_and_delivery_say_what_there_is_and_what_is_wanted() -> None:
    chart = replace(DIGITS, needs=Needs(arch=frozenset({"amd64"})), delivery="chart")
    index = index_of([Target("t", {"edgeferry.dev/platform": "host", "kubernetes.io/arch": "arm64"}), Target("u")])
    decision = decide(policy(), chart, index, None, NOW)
    texts = [explained(decision, chart, name).text() for name in ("t", "u")]
    assert texts == [
        "t: not chosen by eu: platform is host, which runs no charts; wanted delivery server or file;"
        " arch is arm64, wanted amd64",
        "u: not chosen by eu: arch is not known yet, wanted amd64",
    ]


def test_a_priority_names_who_has_it() -> None:
    index = index_of([Target("t"), Target("u")])
    asks = [Ask(one, DIGITS) for one in (policy(), policy(Term(frozenset({"t"})), priority=7, name="line"))]
    found = decide_together(asks, (), index, NOW)
    explanation = explained(found.decisions["eu"], DIGITS, "t", found.scenes["eu"])
    text = "placement line has it with priority 7, wanted more than that instead of 0"
    assert explanation.text() == f"t: not chosen by eu: {text}"
    assert explanation.code == "priority"


def test_a_chosen_cluster_says_by_which_term() -> None:
    terms = (requirement("line", "In", "paint"), requirement("tier", "Exists"))
    index = index_of([Target("t", {"tier": "canary"})])
    decision = decide(policy(*terms), DIGITS, index, None, NOW)
    assert explained(decision, DIGITS, "t").text() == "t: digits 2.1.0 by eu: tier exists"
    everywhere = decide(policy(), DIGITS, index, None, NOW)
    assert explained(everywhere, DIGITS, "t").text() == "t: digits 2.1.0 by eu: it goes to every cluster that fits"


def test_a_follower_points_to_the_placement_that_it_follows() -> None:
    follower = Follower("reader.workload", READER, "*", ("digits",), ("eu",))
    index = index_of([Target("t"), Target("u")])
    found = decide_together([Ask(policy(Term(frozenset({"u"}))), DIGITS)], [follower], index, NOW)
    explanation = explained(found.decisions["reader.workload"], READER, "t")
    assert explanation.text() == "t: not chosen by reader.workload: follows placement eu, which does not choose it"


MEMORY = FactTest("memory.capacity", "number", ">=", ("1Gi",), 86400.0)
DAY_OLD = NOW - timedelta(hours=30)


@pytest.mark.parametrize(
    ("target", "one", "subject", "text"),
    [
        (Target("t", {}, {"memory.capacity": (str(420 << 20), NOW)}), policy(Term(facts=(MEMORY,))), DIGITS,
         "fact memory.capacity is 420Mi, wanted >= 1Gi"),
        (Target("t"), policy(Term(facts=(MEMORY,))), DIGITS, "fact memory.capacity is not known yet, wanted >= 1Gi"),
        (Target("t", {}, {"memory.capacity": (str(2 * GIB), DAY_OLD)}), policy(Term(facts=(MEMORY,))), DIGITS,
         "fact memory.capacity was measured more than 1d ago, wanted >= 1Gi"),
        (Target("t", {}, {"kubernetes.version": ("v1.27.3+k3s1", NOW)}),
         policy(Term(facts=(FactTest("kubernetes.version", "version", "==", (">=1.28",)),))), DIGITS,
         "fact kubernetes.version is v1.27.3+k3s1, wanted >=1.28"),
        (Target("t", taints=(Taint("maintenance", "", "NoSelect"),)), policy(), DIGITS,
         "taint maintenance:NoSelect is not tolerated"),
        (Target("t"), policy(Term(runs_workload="reader")), DIGITS, "workload reader is not placed there"),
        (Target("t", {"tier": "lab"}), policy(Term(expression="cluster.labels['tier'] != 'lab'")), DIGITS,
         "label tier is 'lab', wanted none for `cluster.labels['tier'] != 'lab'`"),
        (Target("t", {}, {"memory.capacity": (str(420 << 20), NOW)}), policy(),
         replace(DIGITS, needs=Needs(memory_bytes=GIB)), "needs 604Mi more memory: 420Mi of 420Mi are free"),
        (Target("t", {}, {"accelerator.kind": ("intel", NOW)}), policy(),
         replace(DIGITS, needs=Needs(accelerator=Accelerator("nvidia"))),
         "it has no accelerator of kind nvidia; accelerator.count is not known yet, wanted 1;"
         " accelerator.nvidia.count is not known yet, wanted 1"),
        (Target("t", {}, {"runtime.onnx.version": ("1.16.0", NOW)}), policy(),
         replace(DIGITS, needs=Needs(runtimes=(("onnx", ">=1.17"),))), "runtime.onnx.version is 1.16.0, wanted >=1.17"),
        (Target("t"), replace(policy(), spread=(Spread("country"),)), DIGITS,
         "label country is missing, which the placement spreads over; wanted a spread without it"),
    ],
    ids=["fact", "absent fact", "stale fact", "version", "taint", "workload", "expression", "memory", "accelerator",
         "runtime", "spread"],
)  # fmt: skip
def test_every_reason_has_one_clear_sentence(target: Target, one: Policy, subject: Subject, text: str) -> None:
    decision = decide(one, subject, index_of([target]), None, NOW)
    assert explained(decision, subject, "t").text() == f"t: not chosen by eu: {text}"


def test_who_has_the_room_is_named() -> None:
    big = Subject("model", "letters", {"1.0.0": ""}, needs=Needs(memory_bytes=3 * GIB))
    small = replace(DIGITS, needs=Needs(memory_bytes=2 * GIB))
    index = index_of([Target("t", {}, {"memory.capacity": (str(4 * GIB), NOW)})])
    asks = [Ask(Policy("a", "model", "letters", "*"), big), Ask(policy(), small)]
    found = decide_together(asks, (), index, NOW)
    others = [(one, found.subjects[name]) for name, one in found.decisions.items()]
    explanation = explained(found.decisions["eu"], small, "t", found.scenes["eu"], others=others)
    assert explanation.reason == "2Gi do not fit beside what is placed there; letters has 3Gi"
    assert explanation.text() == "t: not chosen by eu: needs 1Gi more memory: 1Gi of 4Gi are free (letters has 3Gi)"


def test_a_spread_names_the_counts_and_the_label_that_would_do() -> None:
    fleet = [Target(f"it-{n}", {"country": "it"}) for n in range(4)] + [Target("fr-0", {"country": "fr"})]
    decision = decide(replace(policy(), spread=(Spread("country"),)), DIGITS, index_of(fleet), None, NOW)
    assert list(decision.chosen) == ["fr-0", "it-0", "it-1"]
    explanation = explained(decision, DIGITS, "it-3")
    assert explanation.reason == "country it has 2, fr 1: maxSkew 1"
    assert explanation.text() == "it-3: not chosen by eu: country it has 2, the fewest are 1: maxSkew 1, wanted 3"


def test_a_variant_is_named_and_a_chosen_cluster_that_facts_contradict_says_so() -> None:
    forms = (Variant("", Needs(memory_bytes=2 * GIB)), Variant("int8", Needs(memory_bytes=GIB // 4)))
    subject = replace(DIGITS, variants={"2.1.0": forms})
    index = index_of([Target("t", {}, {"memory.capacity": (str(GIB // 2), NOW)})])
    decision = decide(policy(), subject, index, None, NOW)
    assert explained(decision, subject, "t").text().startswith("t: digits 2.1.0 (int8) by eu")
    kept = decide(policy(Term(facts=(MEMORY,))), DIGITS, index, ["t"], NOW)
    assert explained(kept, DIGITS, "t").text() == (
        "t: digits 2.1.0 by eu: memory.capacity >= 1Gi; it keeps its place although memory.capacity 512Mi < 1Gi"
    )


def test_a_summary_reads_as_one_line() -> None:
    subject = replace(DIGITS, needs=Needs(arch=frozenset({"amd64"})))
    fleet = [Target(f"t{n}", {"country": "it" if n < 6 else "fr", "kubernetes.io/arch": "amd64" if n < 4 else "arm64"})
             for n in range(9)]  # fmt: skip
    index = index_of(fleet)
    decision = decide(policy(requirement("country", "In", "it")), subject, index, None, NOW)
    assert explain_model(decision).text() == (
        "eu: digits 2.1.0: 4 chosen; 5 refused: 3 labels (wanted country=it), 2 arch (arch arm64, wanted amd64)"
    )
    short = decide(policy(requirement("country", "In", "it"), count=5), subject, index, None, NOW)
    assert "4 chosen, short by 1;" in explain_model(short).text()
    lost = decide(policy(version="9.0.0"), subject, index, None, NOW)
    assert explain_model(lost).text() == "eu: digits: nothing chosen: no version of digits is in 9.0.0"


def test_an_unknown_cluster_is_a_key_error() -> None:
    decision = decide(policy(), DIGITS, index_of([Target("t")]), None, NOW)
    with pytest.raises(KeyError):
        explained(decision, DIGITS, "nowhere")
