"""Explanations count every cluster, and the smallest change that they name is enough and not too much."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.conflicts import settle
from placement.counterfactual import Change, World, changed
from placement.decide import decide
from placement.explain import explain_cluster, explain_model
from placement.follow import follow
from placement.types import Decision, Policy, Requirement, Subject, Target, Term
from tests.placement.worlds import NOW, fleets, index_of, policies, subjects

DIGITS = Subject("model", "digits", {"1.0.0": "", "2.1.0": ""})
READER = Subject("workload", "reader", {"1.0.0": ""})


def requirement(key: str, operator: str, *values: str) -> Term:
    return Term(requirements=(Requirement(key, operator, values),))  # type: ignore[arg-type]  # one of the four


def policy(*terms: Term, count: int | None = None, version: str = "*", priority: int = 0, name: str = "eu") -> Policy:
    return Policy(name, "model", "digits", version, terms or None, count, priority)


def is_chosen(world: World, before: Decision, others: Sequence[Decision]) -> bool:
    """Decide again with one cluster, its policy and its subject changed; all other decisions stay."""
    index = before.chosen.index.with_changes([world.target])
    again = decide(world.policy, world.subject, index, before, NOW)
    settled = settle([again, *others])
    clashing = any(world.policy.name in (one.first, one.second) for one in settled.clashes
                   if world.target.name in one.clusters)  # fmt: skip
    return world.target.name in settled.decisions[0].chosen and not clashing


def after(world: World, changes: Sequence[Change]) -> World:
    for change in changes:
        world = changed(world, change, NOW)
    return world


@given(st.lists(policies(), min_size=1, max_size=3), subjects(), fleets(min_size=1), st.data())
def test_the_smallest_change_chooses_the_cluster_and_nothing_of_it_can_be_left_out(
    some: list[Policy], subject: Subject, fleet: list[Target], data: st.DataObject
) -> None:
    index = index_of(fleet)
    named = [replace(one, name=f"p{n}") for n, one in enumerate(some)]
    decision, *others = settle([decide(one, subject, index, None, NOW) for one in named]).decisions
    target = data.draw(st.sampled_from(fleet))
    explained = explain_cluster(decision, subject, target.name, [decision, *others], NOW)
    world = World(decision.policy, subject, target)
    if explained.chosen:
        assert explained.changes == ()
    elif not explained.changes:
        assert all(subject.versions.values()), "only a subject without a usable version cannot be helped"
    else:
        assert is_chosen(after(world, explained.changes), decision, others)
        for n in range(len(explained.changes)):
            rest = explained.changes[:n] + explained.changes[n + 1 :]
            assert not is_chosen(after(world, rest), decision, others)


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
    assert explain_cluster(decision, DIGITS, "t", [decision], NOW).text() == f"t: not chosen by eu: {text}"


def test_no_terms_are_answered_by_one_that_names_it() -> None:
    decision = decide(Policy("eu", "model", "digits", "*", ()), DIGITS, index_of([Target("t")]), None, NOW)
    explained = explain_cluster(decision, DIGITS, "t", [], NOW)
    assert [(one.what, one.value) for one in explained.changes] == [("clusters", "t")]


def test_a_rank_names_who_has_the_last_place() -> None:
    index = index_of([Target(f"turin-{n:02d}") for n in range(60)])
    decision = decide(policy(count=4), DIGITS, index, ["turin-50"], NOW)
    assert list(decision.chosen) == ["turin-00", "turin-01", "turin-02", "turin-50"]
    explained = explain_cluster(decision, DIGITS, "turin-07", [decision], NOW)
    assert explained.text() == "turin-07: not chosen by eu: rank 9 of count 4, outranked by turin-50"
    assert (explained.code, explained.reason) == ("count", "60 fit, 4 wanted")


def test_architecture_and_delivery_say_what_there_is_and_what_is_wanted() -> None:
    chart = replace(DIGITS, arch=frozenset({"amd64"}), delivery="chart")
    index = index_of([Target("t", {"edgeferry.dev/platform": "host", "kubernetes.io/arch": "arm64"}), Target("u")])
    decision = decide(policy(), chart, index, None, NOW)
    texts = [explain_cluster(decision, chart, name, [], NOW).text() for name in ("t", "u")]
    assert texts == [
        "t: not chosen by eu: platform is host, which runs no charts; wanted delivery server or file;"
        " arch is arm64, wanted amd64",
        "u: not chosen by eu: arch is not known yet, wanted amd64",
    ]


def test_a_priority_names_who_has_it() -> None:
    index = index_of([Target("t"), Target("u")])
    some = [policy(), policy(Term(frozenset({"t"})), priority=7, name="line")]
    low, high = settle([decide(one, DIGITS, index, None, NOW) for one in some]).decisions
    explained = explain_cluster(low, DIGITS, "t", [low, high], NOW)
    assert (
        explained.text()
        == "t: not chosen by eu: placement line has it with priority 7, wanted more than that instead of 0"
    )
    assert explained.code == "priority"


def test_a_chosen_cluster_says_by_which_term() -> None:
    terms = (requirement("line", "In", "paint"), requirement("tier", "Exists"))
    index = index_of([Target("t", {"tier": "canary"})])
    decision = decide(policy(*terms), DIGITS, index, None, NOW)
    assert explain_cluster(decision, DIGITS, "t", [], NOW).text() == "t: digits 2.1.0 by eu: tier exists"
    everywhere = decide(policy(), DIGITS, index, None, NOW)
    assert (
        explain_cluster(everywhere, DIGITS, "t", [], NOW).text()
        == "t: digits 2.1.0 by eu: it goes to every cluster that fits"
    )


def test_a_follower_points_to_the_placement_that_it_follows() -> None:
    leader = decide(policy(Term(frozenset({"u"}))), DIGITS, index_of([Target("t"), Target("u")]), None, NOW)
    followed = follow("reader.workload", READER, "*", ["digits"], leader, [leader])
    explained = explain_cluster(followed, READER, "t", [leader, followed], NOW)
    assert explained.text() == "t: not chosen by reader.workload: follows placement eu, which does not choose it"


def test_a_summary_reads_as_one_line() -> None:
    subject = replace(DIGITS, arch=frozenset({"amd64"}))
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
        explain_cluster(decision, DIGITS, "nowhere", [], NOW)
