"""Who gets a cluster that two placements claim for the same model, what follows a placement, and who has the room."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.follow import Follower
from placement.room import amounts
from placement.slices import value_of
from placement.together import Ask, Together, decide_together, in_order
from placement.types import Decision, Needs, Policy, Subject, Target, Term
from tests.placement import naive
from tests.placement.worlds import GIB, NOW, fleets, index_of, needs, policies, subjects

DIGITS = Subject("model", "digits", {"1.0.0": "", "2.0.0": ""})
LETTERS = Subject("model", "letters", {"1.0.0": ""})
READER = Subject("workload", "reader", {"1.0.0": "", "1.1.0": ""})
INDEX = index_of([Target(name) for name in "abcdef"])


def claim(name: str, clusters: str, priority: int = 0, count: int | None = None, subject: Subject = DIGITS) -> Policy:
    return Policy(name, subject.kind, subject.name, "*", (Term(frozenset(clusters)),), count, priority)


def together(*asks: tuple[Policy, Subject], followers: tuple[Follower, ...] = (), index=INDEX) -> Together:  # type: ignore[no-untyped-def]  # an index
    return decide_together([Ask(policy, subject) for policy, subject in asks], followers, index, NOW)


def names(decision: Decision) -> list[str]:
    return list(decision.chosen)


@given(st.lists(policies(), max_size=4), subjects(), fleets(), st.randoms())
def test_no_cluster_gets_the_same_subject_twice_and_all_have_every_cluster_once(
    some: list[Policy], subject: Subject, fleet: list[Target], dice: object
) -> None:
    index = index_of(fleet)
    asks = [Ask(replace(policy, name=f"p{n}"), subject) for n, policy in enumerate(some)]
    found = decide_together(asks, (), index, NOW)
    assert max(Counter(name for one in found.decisions.values() for name in one.chosen).values(), default=1) == 1
    for decision in found.decisions.values():
        once = Counter(decision.chosen) + Counter(name for one in decision.refused for name in one.clusters)
        assert once == Counter(target.name for target in fleet)
        assert decision.policy.count is None or len(decision.chosen) + decision.short == decision.policy.count
    dice.shuffle(asks)  # type: ignore[attr-defined]  # hypothesis gives a Random
    back = decide_together(asks, (), index, NOW)
    assert {name: said(one) for name, one in back.decisions.items()} == {
        name: said(one) for name, one in found.decisions.items()
    }
    assert sorted(map(repr, back.clashes)) == sorted(map(repr, found.clashes))


def said(decision: Decision) -> object:
    refused = [(one.code, one.text, list(one.clusters)) for one in decision.refused]
    return decision.version, names(decision), refused, naive.variants_of(decision)


@given(st.lists(policies(), min_size=2, max_size=4), subjects(), fleets())
def test_deciding_again_moves_nothing(some: list[Policy], subject: Subject, fleet: list[Target]) -> None:
    index = index_of(fleet)
    asks = [Ask(replace(policy, name=f"p{n}", rebalance=None), subject) for n, policy in enumerate(some)]
    first = decide_together(asks, (), index, NOW).decisions
    again = decide_together([replace(ask, previous=first[ask.policy.name]) for ask in asks], (), index, NOW).decisions
    assert {name: names(one) for name, one in again.items()} == {name: names(one) for name, one in first.items()}


@given(st.lists(st.tuples(policies(), needs()), min_size=1, max_size=5), fleets(min_size=1), st.booleans())
def test_no_capacity_is_promised_twice(
    some: list[tuple[Policy, Needs]], fleet: list[Target], again: bool
) -> None:  # fmt: skip
    index = index_of(fleet)
    subjects = [Subject("model", f"m{n}", {"1.0.0": ""}, needs=one) for n, (_, one) in enumerate(some)]
    asks = [
        Ask(replace(policy, name=f"p{n}", subject=f"m{n}", version="*", rebalance=None), subjects[n])
        for n, (policy, _) in enumerate(some)
    ]
    found = decide_together(asks, (), index, NOW)
    if again:
        asks = [replace(ask, previous=found.decisions[ask.policy.name].incumbents()) for ask in asks]
        found = decide_together(asks, (), index, NOW)
    for number, name in enumerate(index.ordered):
        spent: Counter[str] = Counter()
        capacity = {}
        for ask in asks:
            if name in found.decisions[ask.policy.name].chosen:
                for _, resource, amount in amounts(ask.subject.needs):
                    spent[resource.fact] += amount
                    capacity[resource.fact] = value_of(index.measures.capacity(resource.fact, resource.unit), number)
        assert all(amount <= capacity[fact] for fact, amount in spent.items())


def test_the_room_goes_by_priority_and_then_by_name_and_incumbents_keep_theirs() -> None:
    needy = [Subject("model", name, {"1.0.0": ""}, needs=Needs(memory_bytes=3 * GIB)) for name in ("x", "y", "z")]
    index = index_of([Target("a", {}, {"memory.capacity": (str(7 * GIB), NOW)})])
    asks = [
        Ask(Policy("pz", "model", "z", "*", priority=5), needy[2]),
        Ask(Policy("py", "model", "y", "*"), needy[1]),
        Ask(Policy("px", "model", "x", "*"), needy[0]),
    ]
    first = decide_together(asks, (), index, NOW)
    assert [name for name, one in first.decisions.items() if len(one.chosen)] == ["px", "pz"]
    assert first.decisions["py"].refused[0].text == "3Gi do not fit beside what is placed there"
    holding = [replace(ask, previous=["a"] if ask.policy.name in ("px", "py") else None) for ask in asks]
    then = decide_together(holding, (), index, NOW)
    assert [name for name, one in then.decisions.items() if len(one.chosen)] == ["px", "py"]


def test_the_higher_priority_keeps_the_cluster_and_the_other_names_it() -> None:
    found = together((claim("low", "abc"), DIGITS), (claim("high", "bcd", 10), DIGITS))
    low, high = found.decisions["low"], found.decisions["high"]
    assert (names(low), names(high)) == (["a"], ["b", "c", "d"])
    refusal = next(one for one in low.refused if one.code == "priority")
    assert (list(refusal.clusters), refusal.text) == (["b", "c"], "placement high has it, priority 10 over 0")


def test_a_policy_with_a_count_takes_the_next_for_what_it_loses() -> None:
    low = together((claim("low", "abcde", 0, 3), DIGITS), (claim("high", "bd", 1), DIGITS)).decisions["low"]
    assert (names(low), low.short) == (["a", "c", "e"], 0)
    assert naive.codes_of(low) == {"b": "priority", "d": "count", "f": "names"}


def test_what_cannot_be_replaced_is_said_to_be_short() -> None:
    low = together((claim("low", "abc", 0, 3), DIGITS), (claim("high", "b", 1), DIGITS)).decisions["low"]
    assert (names(low), low.short) == (["a", "c"], 1)


def test_equal_priority_is_a_clash_that_names_both() -> None:
    found = together((claim("zeta", "abc"), DIGITS), (claim("alpha", "bcd"), DIGITS))
    assert [(one.first, one.second, list(one.clusters)) for one in found.clashes] == [("alpha", "zeta", ["b", "c"])]


def test_other_subjects_do_not_meet() -> None:
    found = together(
        (claim("one", "abc"), DIGITS),
        (claim("two", "abc", subject=LETTERS), LETTERS),
        (claim("three", "abc", subject=READER), READER),
    )
    assert found.clashes == ()
    assert [names(one) for one in found.decisions.values()] == [["a", "b", "c"]] * 3


def test_a_follower_goes_where_all_its_models_are() -> None:
    follower = Follower("reader.workload", READER, "*", ("digits", "letters"), ("eu",))
    found = together(
        (claim("eu", "abcd"), DIGITS), (claim("letters", "bcf", subject=LETTERS), LETTERS), followers=(follower,)
    )
    followed = found.decisions["reader.workload"]
    assert (followed.version, names(followed)) == ("1.1.0", ["b", "c"])
    assert {one.text: list(one.clusters) for one in followed.refused} == {
        "follows placement eu, which does not choose it": ["e", "f"],
        "model letters is not placed there": ["a", "d"],
    }


@pytest.mark.parametrize("wish", ["2.0.0", "channel: stable"])
def test_a_follower_without_a_version_goes_nowhere_and_says_why(wish: str) -> None:
    follower = Follower("reader.workload", READER, wish, ("digits",), ("eu",))
    followed = together((claim("eu", "abcd"), DIGITS), followers=(follower,)).decisions["reader.workload"]
    assert not followed.chosen.bits
    assert "reader" in followed.fault
    assert naive.codes_of(followed) == dict.fromkeys("abcdef", "version")


def test_a_policy_may_look_at_where_a_workload_runs_whatever_their_ranks() -> None:
    beside = Policy("a-beside", "model", "letters", "*", (Term(runs_workload="reader"),), priority=9)
    follower = Follower("reader.workload", READER, "*", ("digits",), ("eu",))
    found = together((beside, LETTERS), (claim("eu", "bd"), DIGITS), followers=(follower,))
    assert names(found.decisions["a-beside"]) == ["b", "d"]
    assert naive.codes_of(found.decisions["a-beside"])["a"] == "workload"


def test_policies_that_wait_for_each_other_are_named_in_a_circle_and_the_others_are_decided() -> None:
    first = Policy("first", "model", "digits", "*", (Term(runs_workload="reader"),))
    second = Policy("second", "workload", "reader", "*", (Term(runs_workload="other"),))
    other = Policy("third", "workload", "other", "*", (Term(runs_workload="reader"),))
    asks = [Ask(first, DIGITS), Ask(second, READER), Ask(other, replace(READER, name="other"))]
    assert sorted(in_order(asks, ())[1]) == ["second", "third"]
    found = decide_together([*asks, Ask(claim("eu", "ab", subject=LETTERS), LETTERS)], (), INDEX, NOW)
    assert names(found.decisions["eu"]) == ["a", "b"]
    assert not found.decisions["first"].chosen.bits
