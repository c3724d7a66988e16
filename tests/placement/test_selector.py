"""Selectors mean what they mean in Kubernetes, by the index as cluster by cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.selector import matches, select
from placement.types import Requirement, Target, Term
from tests.placement.worlds import fleets, index_of, terms

TABLE = json.loads((Path(__file__).parents[1] / "cases" / "selectors" / "kubernetes.json").read_text())
CLUSTERS = [Target(name, labels) for name, labels in TABLE["clusters"].items()]


def term_of(case: dict[str, Any]) -> Term:
    requirements = tuple(
        Requirement(one["key"], one["operator"], tuple(one.get("values", ()))) for one in case["expressions"]
    )
    return Term(frozenset(case["names"]) if "names" in case else None, requirements)


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: case["law"])
def test_a_selector_means_what_it_means_in_kubernetes(case: dict[str, Any]) -> None:
    term, index = term_of(case), index_of(CLUSTERS)
    assert index.names(select([term], index)) == case["selected"]
    assert sorted(one.name for one in CLUSTERS if matches(term, one)) == case["selected"]


@given(fleets(), st.lists(terms(), max_size=4))
def test_the_index_selects_what_a_plain_loop_selects(fleet: list[Target], some: list[Term]) -> None:
    index = index_of(fleet)
    naive = sorted(target.name for target in fleet if any(matches(term, target) for term in some))
    assert index.names(select(some, index)) == naive


@given(fleets())
def test_no_terms_key_selects_every_cluster_and_no_terms_none(fleet: list[Target]) -> None:
    index = index_of(fleet)
    assert index.names(select(None, index)) == sorted(target.name for target in fleet)
    assert select([], index) == 0
