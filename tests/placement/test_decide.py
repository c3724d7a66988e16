"""A decision has every cluster once, agrees with a plain loop, and moves as little as possible."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.decide import decide
from placement.index import FleetIndex
from placement.selector import matches
from placement.types import Decision, Incumbent, Needs, Policy, Requirement, Subject, Target, Term
from tests.placement import naive
from tests.placement.worlds import (
    NAMES,
    NOW,
    Around,
    arounds,
    fleets,
    index_of,
    policies,
    previous,
    subjects,
    targets,
)

previous_names = st.frozensets(st.sampled_from((*NAMES, "gone")))
DIGITS = Subject("model", "digits", {"1.0.0": "", "2.0.0": ""})


def line(*values: str) -> Term:
    return Term(requirements=(Requirement("line", "In", values),))


def policy(terms: tuple[Term, ...] | None = None, count: int | None = None, version: str = "*") -> Policy:
    return Policy("here", "model", "digits", version, terms, count)


def said(decision: Decision) -> object:
    """Everything that a decision says, without the index that it says it over."""
    refused = [(one.code, one.text, list(one.clusters)) for one in decision.refused]
    return decision.version, list(decision.chosen), refused, decision.short, decision.fault


@given(policies(), subjects(), fleets(), previous(), arounds())
def test_every_cluster_is_chosen_or_refused_exactly_once(
    one: Policy, subject: Subject, fleet: list[Target], before: dict[str, Incumbent], around: Around
) -> None:
    index = index_of(fleet)
    decision = decide(one, subject, index, before, NOW, around.scene(index))
    counted = Counter(decision.chosen) + Counter(name for refusal in decision.refused for name in refusal.clusters)
    assert counted == Counter(target.name for target in fleet)
    assert all(refusal.text and refusal.code and refusal.clusters.bits for refusal in decision.refused)


@settings(max_examples=500)
@given(policies(), subjects(), fleets(), previous(), arounds())
def test_the_index_decides_what_a_plain_loop_decides(
    one: Policy, subject: Subject, fleet: list[Target], before: dict[str, Incumbent], around: Around
) -> None:
    index = index_of(fleet)
    decision = decide(one, subject, index, before, NOW, around.scene(index))
    plain = naive.Plain(one, subject, fleet, before, around)
    assert (decision.version, list(decision.chosen)) == (plain.version, plain.chosen)
    assert naive.codes_of(decision) == plain.codes
    if subject.variants.get(decision.version):
        assert naive.variants_of(decision) == {name: plain.variants[name] for name in plain.chosen}


@given(policies(), subjects(), fleets(), fleets(), previous_names)
def test_an_index_kept_up_to_date_decides_as_one_built_anew(
    one: Policy, subject: Subject, fleet: list[Target], changed: list[Target], previous: frozenset[str]
) -> None:
    kept = index_of(fleet).with_changes(changed, {"bari-0"})
    now = {target.name: target for target in fleet if target.name != "bari-0"}
    now |= {target.name: target for target in changed}
    built = index_of(list(now.values()))
    assert said(decide(one, subject, kept, previous, NOW)) == said(decide(one, subject, built, previous, NOW))


@given(policies(), subjects(), fleets(min_size=9), arounds(), st.lists(targets(), min_size=1, max_size=4))
def test_columns_and_verdicts_kept_from_one_decision_to_the_next_decide_the_same(
    one: Policy, subject: Subject, fleet: list[Target], around: Around, changed: list[Target]
) -> None:
    kept, now = index_of(fleet), {target.name: target for target in fleet}
    for target in changed:
        if target.name not in now:
            continue
        decide(one, subject, kept, None, NOW, around.scene(kept))
        kept = kept.with_changes([target])
        now[target.name] = target
        built = index_of(list(now.values()))
        again = decide(one, subject, built, None, NOW, around.scene(built))
        assert said(decide(one, subject, kept, None, NOW, around.scene(kept))) == said(again)


@given(policies(), subjects(), fleets(), previous_names, st.data())
def test_the_order_of_the_input_is_irrelevant(
    one: Policy, subject: Subject, fleet: list[Target], previous: frozenset[str], data: st.DataObject
) -> None:
    shuffled = [
        replace(target, labels=dict(data.draw(st.permutations(list(target.labels.items())))))
        for target in data.draw(st.permutations(fleet))
    ]
    again = decide(one, subject, index_of(shuffled), sorted(previous, reverse=True), NOW)
    assert said(again) == said(decide(one, subject, index_of(fleet), previous, NOW))


@given(policies(), subjects(), fleets(), previous_names, targets(name="zero"))
def test_a_cluster_that_is_not_selected_changes_nothing_for_the_others(
    one: Policy, subject: Subject, fleet: list[Target], previous: frozenset[str], newcomer: Target
) -> None:
    if one.terms is None or any(matches(term, newcomer) for term in one.terms):
        return
    without = decide(one, subject, index_of(fleet), previous, NOW)
    joined = decide(one, subject, index_of([*fleet, newcomer]), previous, NOW)
    assert list(joined.chosen) == list(without.chosen)
    codes = naive.codes_of(joined)
    assert codes.pop("zero")
    assert codes == naive.codes_of(without)


@given(policies(), subjects(), fleets(), fleets())
def test_incumbents_keep_their_place_when_others_are_relabelled(
    one: Policy, subject: Subject, fleet: list[Target], others: list[Target]
) -> None:
    before = decide(one, subject, index_of(fleet), None, NOW)
    relabelled = [target for target in others if target.name not in before.chosen]
    after = decide(one, subject, before.chosen.index.with_changes(relabelled), before, NOW)
    assert set(before.chosen) <= set(after.chosen)


@given(policies(), subjects(), fleets())
def test_deciding_again_changes_nothing(one: Policy, subject: Subject, fleet: list[Target]) -> None:
    first = decide(one, subject, index_of(fleet), None, NOW)
    for before in (first, first.incumbents()):
        assert said(decide(one, subject, first.chosen.index, before, NOW)) == said(first)
        assert said(decide(one, subject, index_of(fleet), before, NOW)) == said(first)


@given(policies(), subjects(), fleets(), previous_names)
def test_count_is_never_exceeded_and_what_is_missing_is_said(
    one: Policy, subject: Subject, fleet: list[Target], previous: frozenset[str]
) -> None:
    decision = decide(one, subject, index_of(fleet), previous, NOW)
    if one.count is None:
        assert decision.short == 0
    else:
        assert len(decision.chosen) + decision.short == one.count
        assert not decision.short or "count" not in naive.codes_of(decision).values()


def test_free_places_go_to_the_first_names_behind_the_incumbents() -> None:
    index = index_of([Target(name) for name in "abcdef"])
    assert list(decide(policy(count=3), DIGITS, index, ["e", "f"], NOW).chosen) == ["a", "e", "f"]
    assert list(decide(policy(count=1), DIGITS, index, ["e", "f"], NOW).chosen) == ["e"]
    assert list(decide(policy(count=0), DIGITS, index, ["e", "f"], NOW).chosen) == []


def test_an_incumbent_that_no_longer_fits_makes_room() -> None:
    index = index_of([Target("a", {"line": "weld"}), Target("b", {"line": "pack"}), Target("c", {"line": "weld"})])
    decision = decide(policy((line("weld"),), 1), DIGITS, index, ["b"], NOW)
    assert list(decision.chosen) == ["a"]
    assert naive.codes_of(decision) == {"b": "labels", "c": "count"}


def test_an_incumbent_keeps_its_place_while_its_architecture_is_unknown() -> None:
    subject = replace(DIGITS, needs=Needs(arch=frozenset({"amd64"})))
    index = index_of([Target("old"), Target("new"), Target("arm", facts={"arch": ("arm64", NOW)})])
    decision = decide(policy(), subject, index, ["old", "arm"], NOW)
    assert list(decision.chosen) == ["old"]
    assert {one.text: list(one.clusters) for one in decision.refused} == {
        "arch arm64, wanted amd64": ["arm"],
        "arch is not known yet, wanted amd64": ["new"],
    }


@pytest.mark.parametrize("delivery", ["container", "chart"])
def test_a_delivery_that_needs_kubernetes_is_refused_on_hosts_only(delivery: str) -> None:
    index = index_of(
        [Target("host", {"edgeferry.dev/platform": "host"}), Target("k3s", facts={"platform": ("kubernetes", NOW)}),
         Target("unknown")]
    )  # fmt: skip
    decision = decide(policy(), replace(DIGITS, delivery=delivery), index, None, NOW)
    assert list(decision.chosen) == ["k3s", "unknown"]
    assert [(one.code, one.text) for one in decision.refused] == [("delivery", f"platform host runs no {delivery}s")]


def test_where_no_version_fits_nothing_is_chosen_and_the_fault_says_why() -> None:
    decision = decide(policy(count=2, version=">=3"), DIGITS, index_of([Target("a"), Target("b")]), ["a"], NOW)
    assert decision.fault == "no version of digits is in >=3"
    assert (decision.version, list(decision.chosen), decision.short) == ("", [], 2)
    assert naive.codes_of(decision) == {"a": "version", "b": "version"}


@pytest.mark.parametrize(
    ("terms", "code", "text"),
    [
        ((), "labels", "wanted no cluster"),
        ((Term(names=frozenset({"x", "y"})),), "names", "wanted named x, y"),
        ((line("weld", "paint"),), "labels", "wanted line=weld|paint"),
        ((line("weld"), Term(frozenset({"x"}))), "labels", "wanted line=weld or named x"),
        (
            (Term(requirements=(Requirement("a", "NotIn", ("1",)), Requirement("b", "Exists"),
                                Requirement("c", "DoesNotExist"))),),
            "labels", "wanted a!=1 and b exists and no c",
        ),
        (tuple(line(value) for value in "abcdefg"), "labels",
         "wanted line=a or line=b or line=c or line=d or line=e or 2 more"),
    ],
    ids=["none", "names", "label", "or", "operators", "many"],
)  # fmt: skip
def test_the_reason_says_what_was_wanted(terms: tuple[Term, ...], code: str, text: str) -> None:
    decision = decide(policy(terms), DIGITS, index_of([Target("zero", {"c": "1"})]), None, NOW)
    assert [(one.code, one.text) for one in decision.refused] == [(code, text)]


def test_an_empty_fleet_is_decided_without_a_refusal() -> None:
    decision = decide(policy(), DIGITS, FleetIndex.build([]), None, NOW)
    assert (list(decision.chosen), decision.refused, decision.version) == ([], (), "2.0.0")
