"""Reports that say only what changed lead to the same as whole ones."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.facts import Fact
from agent.wire.report import HEALTHS, EntryReport, Report, decode_report, encode_report
from agent.wire.report_delta import BaseForgotten, since, whole
from tests.agent.wire.examples import AT

digests = st.integers(0, 5).map(lambda number: f"sha256:{number:064x}")
names = st.sampled_from(["a", "a-b", "b", "digits"])
entries = st.builds(
    EntryReport,
    st.sampled_from(["model", "workload"]),
    names,
    st.just("1.0.0"),
    digests,
    digests,
    st.sampled_from(HEALTHS),
)
facts = st.builds(Fact, names, st.sampled_from("xyz"), st.integers(0, 3).map(lambda s: AT + timedelta(seconds=s)))


def reports(number: int) -> st.SearchStrategy[Report]:
    def made(found: tuple[list[EntryReport], list[Fact], list[str], int]) -> Report:
        keyed = {(one.kind, one.name): one for one in found[0]}
        known = {one.name: one for one in found[1]}
        return Report(
            "f",
            "milan-01",
            "i1",
            number,
            AT,
            sequence=found[3],
            entries=tuple(keyed[key] for key in sorted(keyed)),
            facts=tuple(known[name] for name in sorted(known)),
            artifacts=tuple(sorted(set(found[2]))),
        )

    parts = st.tuples(
        st.lists(entries, max_size=6), st.lists(facts, max_size=5), st.lists(digests, max_size=5), st.integers(0, 9)
    )
    return parts.map(made)


@given(reports(7), reports(3))
def test_a_difference_and_its_base_give_the_whole(report: Report, base: Report) -> None:
    sent = decode_report(encode_report(since(report, base)))
    assert whole(sent, base) == report


@given(reports(3))
def test_a_quiet_report_is_small_whatever_runs(report: Report) -> None:
    assert len(encode_report(since(report, report))) < 600


@given(reports(7), reports(3), reports(4))
def test_a_difference_to_another_report_is_refused(report: Report, base: Report, other: Report) -> None:
    for wrong in (other, None):
        with pytest.raises(BaseForgotten):
            whole(since(report, base), wrong)


def test_a_whole_report_needs_no_base() -> None:
    report = Report("f", "milan-01", "i1", 1, AT)
    assert whole(report, None) == report
