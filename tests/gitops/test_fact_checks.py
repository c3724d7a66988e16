"""Hostile facts are left out one by one, with a code, and nothing else is lost."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.facts import Fact
from agent.wire.report import Report, decode_report, encode_report
from gitops.fact_checks import admitted
from gitops.snapshot import BadSnapshot, encode_snapshot, read_snapshot

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GOOD = Fact("arch", "amd64", NOW)


@pytest.mark.parametrize(
    ("fact", "code"),
    [
        (Fact("memory.capacity", "1" + "0" * 29, NOW), "EF3140"),
        (Fact("memory.capacity", "16Gi", NOW), "EF3140"),
        (Fact("memory.capacity", "plenty", NOW), "EF3140"),
        (Fact("memory.capacity", "-1", NOW), "EF3140"),
        (Fact("memory.capacity", "1e99999999", NOW), "EF3140"),
        (Fact("kubernetes.version", "latest", NOW), "EF3140"),
        (Fact("Not A Name", "x", NOW), "EF3140"),
        (Fact("a" * 64, "x", NOW), "EF3140"),
        (Fact("coolant", "x" * 1025, NOW), "EF3140"),
        (Fact("coolant", "a\x1b[2Jb", NOW), "EF3140"),
        (Fact("os", "", NOW), "EF3140"),
        (Fact("accelerator.kind", ",".join(map(str, range(99))), NOW), "EF3140"),
        (Fact("coolant", "oil", NOW + timedelta(days=365)), "EF3141"),
    ],
    ids=["absurd", "unit", "type", "negative", "exponent", "version", "name", "long name", "long value", "control",
         "empty", "list", "future"],
)  # fmt: skip
def test_a_hostile_fact_is_refused_by_itself(fact: Fact, code: str) -> None:
    facts, faults = admitted([GOOD, fact], NOW)
    assert GOOD in facts
    assert [one.code for one in faults] == [code]
    assert all(one.measured_at <= NOW for one in facts)
    assert len(facts) == (2 if code == "EF3141" else 1)


def test_of_thousands_what_every_agent_measures_is_kept_first() -> None:
    facts, faults = admitted([*(Fact(f"a{n:05d}", "1", NOW) for n in range(5000)), GOOD], NOW)
    assert len(facts) == 512 and GOOD in facts
    assert [one.code for one in faults] == ["EF3142"]


@given(
    st.lists(
        st.builds(
            Fact, st.text(max_size=70), st.text(max_size=1100), st.datetimes().map(lambda d: d.replace(tzinfo=UTC))
        )
    )
)
def test_whatever_comes_nothing_is_raised_and_what_is_kept_is_sound(facts: list[Fact]) -> None:
    kept, _ = admitted(facts, NOW)
    assert all(one.measured_at <= NOW and one.name and one.value.isprintable() for one in kept)
    assert admitted(kept, NOW)[0] == kept


def test_a_fact_of_the_wrong_type_does_not_lose_the_report() -> None:
    value = json.loads(encode_report(Report("f", "c", "i", 1, NOW, facts=(GOOD,))))
    value["facts"] += [{"name": "cpu.capacity", "value": 4, "measuredAt": "2026-03-01T12:00:00Z"}, "x", {"name": "a"}]
    report = decode_report(json.dumps(value).encode())
    assert report.facts == (GOOD,)
    assert len(report.unread) == 3
    assert [one.code for one in admitted(report.facts, NOW, report.unread)[1]] == ["EF3140"] * 3


def test_a_snapshot_reads_what_was_exported_and_leaves_out_what_does_not_count(tmp_path: Path) -> None:
    clusters = {"a": (GOOD, Fact("memory.capacity", "16Gi", NOW)), "b": ()}
    (tmp_path / "facts.json").write_text(json.dumps(encode_snapshot("f", NOW, clusters)))
    found = read_snapshot(tmp_path / "facts.json")
    assert (found.at, found.clusters) == (NOW, {"a": {"arch": ("amd64", NOW)}, "b": {}})
    assert len(found.faults) == 1 and "EF3140" in found.faults[0]


NO_SNAPSHOTS = (
    "", "[]", "{}", '{"format": 9}', '{"format": 1, "at": "x"}', "[" * 10_000,
    '{"format": 1, "at": "2026-03-01T12:00:00Z", "clusters": {"a": 1}}',
)  # fmt: skip


@pytest.mark.parametrize("text", NO_SNAPSHOTS, ids=range(7))
def test_what_is_no_snapshot_is_said_to_be_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text(text)
    with pytest.raises(BadSnapshot):
        read_snapshot(tmp_path / "facts.json")
