"""The index holds the fleet, however it came to be."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.index import ARCH, FleetIndex, known_value
from placement.postings import Posting, as_bits, bits_of, posting, with_number, without_number
from placement.types import Target
from tests.placement.worlds import NOW, fleets, index_of


def content(index: FleetIndex) -> object:
    """What an index says, in one form for postings of both kinds."""

    def plain(table: Mapping[str, Mapping[str, Posting]]) -> object:
        return {key: {value: as_bits(found) for value, found in values.items()} for key, values in table.items()}

    return (
        index.ordered, index.numbers, index.targets, index.everything, plain(index.values), index.keys,
        plain(index.facts),
    )  # fmt: skip


@given(fleets(), st.data())
def test_the_order_of_the_clusters_is_irrelevant(fleet: list[Target], data: st.DataObject) -> None:
    assert content(index_of(data.draw(st.permutations(fleet)))) == content(index_of(fleet))


@given(fleets(), st.lists(st.tuples(fleets(), st.sets(st.sampled_from(["bari-0", "oslo-3", "nowhere"]))), max_size=3))
def test_a_changed_index_is_the_one_built_anew(fleet: list[Target], steps: list[tuple[list[Target], set[str]]]) -> None:
    index, now = index_of(fleet), {target.name: target for target in fleet}
    before = content(index)
    first = index
    for changed, removed in steps:
        index = index.with_changes(changed, removed)
        now = {name: target for name, target in now.items() if name not in removed}
        now |= {target.name: target for target in changed}
        assert content(index) == content(index_of(list(now.values())))
    assert content(first) == before


@pytest.mark.parametrize("size", [40, 300])
def test_labels_of_many_clusters_move_one_by_one(size: int) -> None:
    values = ("a", "b", "c", "")
    fleet = {f"n{n:03d}": Target(f"n{n:03d}", {"zone": "a", "own": str(n)}) for n in range(size)}
    index = FleetIndex.build(fleet.values())
    for n in range(0, size, 3):
        name = f"n{n:03d}"
        for value in (values[n % 3], values[3 - n % 2], values[1]):
            fleet[name] = Target(name, {"zone": value, "own": str(n)} if value else {}, {ARCH: ("arm64", NOW)})
            index = index.with_changes([fleet[name]])
    assert content(index) == content(FleetIndex.build(fleet.values()))


@given(st.integers(1, 200), st.data())
def test_a_posting_is_the_same_set_in_either_form(size: int, data: st.DataObject) -> None:
    numbers = set(data.draw(st.sets(st.integers(0, size - 1))))
    found = posting(sorted(numbers), size)
    for number in data.draw(st.lists(st.integers(0, size - 1), max_size=20)):
        found = (without_number if number in numbers else with_number)(found, number, size)
        numbers ^= {number}
        assert as_bits(found) == bits_of(numbers)
        assert bool(found) == bool(numbers)


@given(st.sets(st.integers(0, 90)), st.integers(0, 12))
def test_the_first_of_a_set_are_its_first_names(numbers: set[int], count: int) -> None:
    index = index_of([Target(f"n{n:02d}") for n in range(91)])
    bits = bits_of(numbers)
    assert index.names(index.first(bits, count)) == index.names(bits)[:count]
    assert index.bits(index.names(bits)) == bits


def test_a_value_that_few_clusters_have_costs_by_those_clusters() -> None:
    index = index_of([Target(f"n{n:04d}", {"serial": str(n), "tier": "prod"}) for n in range(1000)])
    assert all(isinstance(found, tuple) and len(found) == 1 for found in index.values["serial"].values())
    assert isinstance(index.values["tier"]["prod"], int)


@pytest.mark.parametrize(
    ("labels", "facts", "arch"),
    [
        ({}, {}, ""),
        ({}, {"arch": ("arm64", NOW)}, "arm64"),
        ({"kubernetes.io/arch": "amd64"}, {"arch": ("arm64", NOW)}, "amd64"),
        ({"kubernetes.io/arch": ""}, {"arch": ("arm64", NOW)}, "arm64"),
    ],
    ids=["neither", "fact", "label outranks fact", "empty label says nothing"],
)
def test_a_label_from_git_outranks_a_fact(labels: dict[str, str], facts: dict[str, object], arch: str) -> None:
    target = Target("a", labels, facts)  # type: ignore[arg-type]  # facts are spelled out above
    assert known_value(target, ARCH) == arch
    assert [value for value, _ in index_of([target]).known(ARCH)] == ([arch] if arch else [])
