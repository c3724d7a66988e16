"""Who gets a cluster that two placements claim for the same model, and what follows a placement."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.conflicts import settle
from placement.decide import decide
from placement.follow import follow
from placement.types import Policy, Subject, Target, Term
from tests.placement import naive
from tests.placement.worlds import NOW, fleets, index_of, policies, subjects

DIGITS = Subject("model", "digits", {"1.0.0": "", "2.0.0": ""})
LETTERS = Subject("model", "letters", {"1.0.0": ""})
READER = Subject("workload", "reader", {"1.0.0": "", "1.1.0": ""})
INDEX = index_of([Target(name) for name in "abcdef"])


def claim(name: str, clusters: str, priority: int = 0, count: int | None = None, subject: Subject = DIGITS) -> Policy:
    return Policy(name, subject.kind, subject.name, "*", (Term(frozenset(clusters)),), count, priority)


@given(st.lists(policies(), max_size=4), subjects(), fleets())
def test_no_cluster_gets_the_same_subject_twice_and_all_have_every_cluster_once(
    some: list[Policy], subject: Subject, fleet: list[Target]
) -> None:
    index = index_of(fleet)
    named = [replace(policy, name=f"p{n}") for n, policy in enumerate(some)]
    decided = [decide(policy, subject, index, None, NOW) for policy in named]
    settled = settle(decided)
    assert [one.policy.name for one in settled.decisions] == [policy.name for policy in named]
    assert max(Counter(name for one in settled.decisions for name in one.chosen).values(), default=1) == 1
    for decision in settled.decisions:
        once = Counter(decision.chosen) + Counter(name for one in decision.refused for name in one.clusters)
        assert once == Counter(target.name for target in fleet)
        assert decision.policy.count is None or len(decision.chosen) + decision.short == decision.policy.count
    assert settle(settled.decisions).decisions == settled.decisions
    back = settle(decided[::-1])
    assert back.decisions[::-1] == settled.decisions
    assert sorted(map(repr, back.clashes)) == sorted(map(repr, settled.clashes))


@given(st.lists(policies(), min_size=2, max_size=4), subjects(), fleets())
def test_deciding_again_after_settling_moves_nothing(some: list[Policy], subject: Subject, fleet: list[Target]) -> None:
    index = index_of(fleet)
    named = [replace(policy, name=f"p{n}") for n, policy in enumerate(some)]
    first = settle([decide(policy, subject, index, None, NOW) for policy in named])
    again = settle([decide(one.policy, subject, index, one, NOW) for one in first.decisions])
    assert [list(one.chosen) for one in again.decisions] == [list(one.chosen) for one in first.decisions]


def test_the_higher_priority_keeps_the_cluster_and_the_other_names_it() -> None:
    decided = [decide(one, DIGITS, INDEX, None, NOW) for one in (claim("low", "abc"), claim("high", "bcd", 10))]
    low, high = settle(decided).decisions
    assert (list(low.chosen), list(high.chosen)) == (["a"], ["b", "c", "d"])
    refusal = next(one for one in low.refused if one.code == "priority")
    assert (list(refusal.clusters), refusal.text) == (["b", "c"], "placement high has it, priority 10 over 0")


def test_a_policy_with_a_count_takes_the_next_for_what_it_loses() -> None:
    decided = [decide(one, DIGITS, INDEX, None, NOW) for one in (claim("low", "abcde", 0, 3), claim("high", "bd", 1))]
    low, _ = settle(decided).decisions
    assert (list(low.chosen), low.short) == (["a", "c", "e"], 0)
    assert naive.codes_of(low) == {"b": "priority", "d": "count", "f": "names"}


def test_what_cannot_be_replaced_is_said_to_be_short() -> None:
    decided = [decide(one, DIGITS, INDEX, None, NOW) for one in (claim("low", "abc", 0, 3), claim("high", "b", 1))]
    low, _ = settle(decided).decisions
    assert (list(low.chosen), low.short) == (["a", "c"], 1)


def test_equal_priority_is_a_clash_that_names_both() -> None:
    decided = [decide(one, DIGITS, INDEX, None, NOW) for one in (claim("zeta", "abc"), claim("alpha", "bcd"))]
    settled = settle(decided)
    assert [(one.first, one.second, list(one.clusters)) for one in settled.clashes] == [("alpha", "zeta", ["b", "c"])]


def test_other_subjects_do_not_meet() -> None:
    decided = [
        decide(claim("one", "abc"), DIGITS, INDEX, None, NOW),
        decide(claim("two", "abc", subject=LETTERS), LETTERS, INDEX, None, NOW),
        decide(claim("three", "abc", subject=READER), READER, INDEX, None, NOW),
    ]
    settled = settle(decided)
    assert settled.clashes == ()
    assert settled.decisions == tuple(decided)


def test_a_follower_goes_where_all_its_models_are() -> None:
    leader = decide(claim("eu", "abcd"), DIGITS, INDEX, None, NOW)
    letters = decide(claim("letters", "bcf", subject=LETTERS), LETTERS, INDEX, None, NOW)
    followed = follow("reader.workload", READER, "*", ["digits", "letters"], leader, [leader, letters])
    assert (followed.version, list(followed.chosen)) == ("1.1.0", ["b", "c"])
    assert {one.text: list(one.clusters) for one in followed.refused} == {
        "follows placement eu, which does not choose it": ["e", "f"],
        "model letters is not placed there": ["a", "d"],
    }


@pytest.mark.parametrize("wish", ["2.0.0", "channel: stable"])
def test_a_follower_without_a_version_goes_nowhere_and_says_why(wish: str) -> None:
    leader = decide(claim("eu", "abcd"), DIGITS, INDEX, None, NOW)
    followed = follow("reader.workload", READER, wish, ["digits"], leader, [leader])
    assert not followed.chosen.bits
    assert "reader" in followed.fault
    assert naive.codes_of(followed) == dict.fromkeys("abcdef", "version")
