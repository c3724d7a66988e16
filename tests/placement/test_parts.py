"""Columns, slices, quantities, expressions and handovers by themselves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.columns import Column
from placement.decide import decide
from placement.expressions import BadExpression, compile_expression
from placement.facts import quantity, release, satisfied
from placement.postings import bits_of
from placement.scene import Scene
from placement.slices import minus, not_less, plus, slices_of, value_of, with_value
from placement.types import FactTest, Incumbent, Needs, Policy, Requirement, Subject, Target, Term, Variant
from tests.placement.worlds import GIB, NOW, index_of

DIGITS = Subject("model", "digits", {"1.0.0": "", "2.0.0": ""})
values = st.dictionaries(st.integers(0, 700), st.sampled_from((0.0, 1.0, 2.5, 7.0)) | st.floats(0, 1e12), max_size=700)


@given(
    values, st.lists(st.tuples(st.integers(0, 700), st.none() | st.floats(0, 1e12)), max_size=40), st.floats(0, 1e12)
)
def test_a_column_compares_as_a_loop_does_however_it_came_to_be(
    known: dict[int, float], changes: list[tuple[int, float | None]], value: float
) -> None:
    column = Column((one, number) for number, one in known.items())
    for number, new in changes:
        column = column.with_changes([(number, known.get(number), new)])
        known = {key: one for key, one in known.items() if key != number} | ({} if new is None else {number: new})
    for wanted in (value, 2.5, *list(known.values())[:3]):
        assert column.below(wanted) == bits_of([n for n, one in known.items() if one < wanted])
        assert column.below(wanted, inclusive=True) == bits_of([n for n, one in known.items() if one <= wanted])
    assert column.known == bits_of(list(known))


@given(
    st.dictionaries(st.integers(0, 60), st.integers(0, 5000), max_size=40),
    st.lists(st.tuples(st.integers(0, 3000), st.sets(st.integers(0, 60))), max_size=6),
    st.integers(0, 60),
    st.integers(0, 9000),
)
def test_slices_add_take_away_and_compare_as_numbers_do(
    start: dict[int, int], steps: list[tuple[int, set[int]]], number: int, other: int
) -> None:
    slices, plain = slices_of(start), {n: start.get(n, 0) for n in range(61)}
    for amount, where in steps:
        slices = plus(slices, amount, bits_of(where))
        plain |= {n: plain[n] + amount for n in where}
    assert {n: value_of(slices, n) for n in plain} == plain
    right = slices_of(start)
    everybody = bits_of(range(61))
    assert not_less(slices, right, everybody) == bits_of([n for n in plain if plain[n] >= start.get(n, 0)])
    for amount, where in steps:
        slices = minus(slices, amount, bits_of(where))
    assert {n: value_of(slices, n) for n in plain} == {n: start.get(n, 0) for n in plain}
    assert value_of(with_value(slices, number, other), number) == other


@pytest.mark.parametrize(
    ("text", "number"),
    [("512Mi", 512 << 20), ("1.5Gi", 3 << 29), ("500m", "0.5"), ("2", 2), ("1e3", 1000), ("1E", 10**18), ("10k", 10**4),
     ("", None), ("-1", None), ("Gi", None), ("1GiB", None), ("0x10", None), ("1e999", None), ("١", None)],
)  # fmt: skip
def test_quantities_are_those_of_kubernetes(text: str, number: object) -> None:
    found = quantity(text)
    assert found is None if number is None else str(found.normalize()) == str(type(found)(str(number)).normalize())


@pytest.mark.parametrize(
    ("text", "version"),
    [("v1.29.3+k3s1", "1.29.3"), ("1.17", "1.17.0"), ("v1.27.3-gke.100", "1.27.3"), ("5.15.0-91-generic", "5.15.0"),
     ("2.0.0-rc.1", "2.0.0-rc.1"), ("550.54.14", "550.54.14"), ("latest", None), ("1." + "9" * 40, None)],
)  # fmt: skip
def test_versions_are_read_out_of_what_programs_say(text: str, version: str | None) -> None:
    found = release(text)
    shown = None if found is None else f"{found.major}.{found.minor}.{found.patch}"
    assert shown == (None if version is None else version.partition("-")[0])
    assert found is None or bool(found.pre) == ("-rc" in (version or ""))


@pytest.mark.parametrize(
    ("test", "text", "holds"),
    [
        (FactTest("kubernetes.version", "version", "==", (">=1.28",)), "v1.29.0-rc.1", True),
        (FactTest("kubernetes.version", "version", "==", ("v1.28.3",)), "1.28.3+k3s2", True),
        (FactTest("kubernetes.version", "version", "<", ("1.29",)), "v1.29.0-rc.1", True),
        (FactTest("accelerator.kind", "list", "==", ("nvidia",)), "amd, nvidia", True),
        (FactTest("accelerator.kind", "list", "!=", ("nvidia",)), "", True),
        (FactTest("memory.capacity", "number", "in", ("1Gi", "2Gi")), str(GIB), True),
        (FactTest("memory.capacity", "number", ">", ("1Gi",)), "many", None),
    ],
)
def test_a_test_of_a_fact_reads_it_by_its_kind(test: FactTest, text: str, holds: bool | None) -> None:
    assert satisfied(test, text) is holds


HOSTILE = (
    "(" * 100 + "true" + ")" * 100, "[" * 100, "!" * 1000 + "true", " && ".join(["true"] * 500), "x" * 5000,
    "cluster.name.matches('(" + "a+)+" * 50, "cluster", "cluster.labels", "1", "'", '"""', "\0",
    "cluster.labels[", "//",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_an_expression_that_nests_or_never_ends_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(BadExpression):
        compile_expression(text)


def test_an_expression_that_takes_too_many_steps_is_a_refusal_with_its_reason() -> None:
    hundred = "[" + ",".join(map(str, range(100))) + "]"
    long = f"{hundred}.all(a, {hundred}.all(b, {hundred}.all(c, a + b + c >= 0)))"
    policy = Policy("p", "model", "digits", "*", (Term(expression=long),))
    decision = decide(policy, DIGITS, index_of([Target("a")]), None, NOW)
    (refusal,) = decision.refused
    assert (refusal.code, refusal.text.endswith("it takes too many steps")) == ("expression", True)


@given(st.text(max_size=60))
def test_whatever_is_written_it_is_an_expression_or_a_bad_one(text: str) -> None:
    try:
        compile_expression(text)
    except BadExpression as error:
        assert error.line >= 1 and error.column >= 1 and str(error)


IN_ITALY = Policy("p", "model", "digits", "*", (Term(requirements=(Requirement("country", "In", ("it",)),)),))


def test_make_before_break_leaves_one_for_each_that_has_not_arrived() -> None:
    policy = replace(IN_ITALY, make_before_break=True)
    fleet = [Target("a", {"country": "it"}), Target("b", {"country": "fr"})]
    first = decide(policy, DIGITS, index_of(fleet), None, NOW)
    assert list(first.chosen) == ["a"] and not first.leaving
    moved = index_of([Target("a", {"country": "fr"}), Target("b", {"country": "it"})])
    second = decide(policy, DIGITS, moved, first.incumbents(), NOW)
    assert (list(second.chosen), set(second.arriving), set(second.leaving)) == (["a", "b"], {"b"}, {"a"})
    waiting = decide(policy, DIGITS, moved, second.incumbents(), NOW)
    assert (list(waiting.chosen), set(waiting.leaving)) == (["a", "b"], {"a"})
    arrived = decide(policy, DIGITS, moved, second.incumbents(), NOW, Scene(current=moved.bits(["b"])))
    assert (list(arrived.chosen), arrived.leaving, arrived.arriving) == (["b"], frozenset(), frozenset())
    independent = decide(IN_ITALY, DIGITS, moved, first.incumbents(), NOW)
    assert list(independent.chosen) == ["b"]


def test_facts_remove_only_where_they_were_measured_to_say_no_for_so_long() -> None:
    test = FactTest("memory.capacity", "number", ">=", ("2Gi",))
    policy = Policy("p", "model", "digits", "*", (Term(facts=(test,)),), evict_after_s=86400.0)

    def step(hours: int, measured: int, memory: int, before: object) -> object:
        fleet = [Target("a", {}, {"memory.capacity": (str(memory), NOW + timedelta(hours=measured))})]
        decision = decide(policy, DIGITS, index_of(fleet), before, NOW + timedelta(hours=hours))  # type: ignore[arg-type]
        return decision.incumbents()

    kept = step(0, 0, 4 * GIB, None)
    kept = step(1, 1, GIB, kept)
    assert kept == {"a": Incumbent("2.0.0", "", NOW + timedelta(hours=1))}
    silent = step(48, 1, GIB, kept)
    assert silent == kept, "silence is no measurement"
    assert step(2, 2, 4 * GIB, kept) == {"a": Incumbent("2.0.0")}, "taken back"
    assert step(26, 26, GIB, kept) == {}, "measured again a day later"


def test_a_variant_is_kept_until_the_version_changes() -> None:
    forms = (Variant("", Needs(memory_bytes=4 * GIB)), Variant("int8", Needs(memory_bytes=GIB)))
    subject = replace(DIGITS, variants={"1.0.0": forms, "2.0.0": forms})
    policy = Policy("p", "model", "digits", "1.0.0")
    small = index_of([Target("a", {}, {"memory.capacity": (str(2 * GIB), NOW)})])
    big = index_of([Target("a", {}, {"memory.capacity": (str(8 * GIB), NOW)})])
    first = decide(policy, subject, small, None, NOW)
    assert {name: list(one) for name, one in first.variants.items()} == {"int8": ["a"]}
    grown = decide(policy, subject, big, first.incumbents(), NOW)
    assert list(grown.variants) == ["int8"]
    newer = decide(replace(policy, version="2.0.0"), subject, big, grown.incumbents(), NOW)
    assert list(newer.variants) == [""]
