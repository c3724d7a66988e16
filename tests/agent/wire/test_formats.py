"""The formats: what was written once is read for ever, and the same value is the same bytes."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.errors import EdgeferryError, Malformed, UnsupportedFormat
from agent.wire.release import decode_release, encode_release
from agent.wire.report import decode_report, encode_report
from agent.wire.trust import decode_trust, encode_trust
from gitops.commands import Command, command_path, decode_command, encode_command
from gitops.decisions import DecisionRecord, Placed, Refused, decode_all, encode_all
from gitops.render.entries import Rendered
from gitops.rollout_records import RolloutRecord, decode_rollout, encode_rollout
from placement.rollout_types import LATE, Place, RolloutState

_spec = importlib.util.spec_from_file_location("wire_examples", Path(__file__).with_name("examples.py"))
assert _spec is not None and _spec.loader is not None
examples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(examples)

GOLDEN = Path(__file__).parents[2] / "cases" / "formats" / "1"
COMMAND = Command("c-1", "pause", "placement/defect-detector-eu", "ada@example.org", examples.AT, "line 3 is down", "x")
DECISION = DecisionRecord(
    name="defect-detector-eu",
    kind="model",
    subject="defect-detector",
    version="2.1.0",
    short=1,
    refused=(Refused("labels", "labels: country is not it", 1, ("paris-01",)),),
    identities={"2.1.0": "sha256:" + "5" * 64},
    chosen={"milan-01": Placed("2.1.0", examples.MODEL.digest), "turin-03": Placed("2.1.0", examples.MODEL.digest)},
)
OLD = "sha256:" + "7" * 64
NOTE = {"models/defect-detector/selftest/input.json": b"[1]"}
KEPT = Rendered(
    entry=examples.MODEL,
    encoded=json.loads(encode_release(replace(examples.RELEASE, entries=(examples.MODEL,)))[0])["entries"][0],
    files=NOTE,
    digests={},
    manifests=(),
    objects=frozenset(),
)
ROLLOUT = RolloutRecord(
    RolloutState(
        number=3,
        phase="paused",
        targets=frozenset({examples.MODEL.digest}),
        began=examples.AT,
        since=examples.AT,
        wave=1,
        places={
            "milan-01": Place(0, "done", OLD, examples.MODEL.digest, examples.AT, examples.AT),
            "turin-03": Place(
                LATE, "failed", "", examples.MODEL.digest, examples.AT, examples.AT, "", "it is degraded"
            ),
        },
        held=frozenset({OLD}),
        excused=frozenset({"turin-03"}),
        why="1 of 2 failed",
    ),
    {examples.MODEL.digest: KEPT},
)


def written() -> dict[str, bytes]:
    return {
        "release.json": encode_release(examples.RELEASE)[0],
        "release-chart.json": encode_release(examples.CHARTS)[0],
        "report.json": encode_report(examples.REPORT),
        "trust.json": encode_trust(examples.TRUST),
        command_path(COMMAND): encode_command(COMMAND),
        **encode_all(DECISION),
        **encode_rollout("defect-detector-eu", ROLLOUT),
    }


@pytest.mark.parametrize("path", sorted(written()))
def test_what_is_written_today_is_the_golden_file(path: str) -> None:
    assert written()[path] == (GOLDEN / path).read_bytes()


def test_golden_files_are_read_back_to_the_values_they_were_written_from() -> None:
    content = encode_release(examples.RELEASE)[1]
    assert decode_release((GOLDEN / "release.json").read_bytes()) == replace(examples.RELEASE, content=content)
    content = encode_release(examples.CHARTS)[1]
    assert decode_release((GOLDEN / "release-chart.json").read_bytes()) == replace(examples.CHARTS, content=content)
    assert decode_report((GOLDEN / "report.json").read_bytes()) == examples.REPORT
    assert decode_trust((GOLDEN / "trust.json").read_bytes(), "trust") == examples.TRUST
    assert decode_command((GOLDEN / command_path(COMMAND)).read_bytes(), "command") == COMMAND
    files = {str(path.relative_to(GOLDEN)): path.read_bytes() for path in GOLDEN.rglob("*.json")}
    assert decode_all("defect-detector-eu", files) == DECISION
    rollout = decode_rollout("defect-detector-eu", files)
    assert rollout is not None and rollout.state == ROLLOUT.state
    kept = rollout.entries[examples.MODEL.digest]
    assert (kept.entry, kept.encoded, kept.files) == (KEPT.entry, KEPT.encoded, KEPT.files)


def test_content_digest_does_not_depend_on_sequence_time_or_source_revision() -> None:
    later = replace(
        examples.RELEASE, sequence=8, source_revision={"main": "1" * 40}, published_at=examples.AT.replace(year=2027)
    )
    assert encode_release(later)[1] == encode_release(examples.RELEASE)[1]
    assert encode_release(replace(later, cluster_key="SHA256:other"))[1] != encode_release(examples.RELEASE)[1]


@pytest.mark.parametrize(
    "read",
    [decode_release, decode_report, lambda data: decode_trust(data, "trust")],
    ids=["release", "report", "trust"],
)
def test_a_newer_format_is_refused_with_advice(read) -> None:
    with pytest.raises(UnsupportedFormat, match="upgrade"):
        read(b'{"format": 99}')


@pytest.mark.parametrize("path", ["release.json", "report.json"])
def test_unknown_fields_are_ignored(path: str) -> None:
    value = json.loads((GOLDEN / path).read_bytes())
    value["later"] = {"anything": [1]}
    value["entries"][0]["later"] = True
    read = {"release.json": decode_release, "report.json": decode_report}[path]
    assert read(json.dumps(value).encode()) == read((GOLDEN / path).read_bytes())


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b'{"format":1,"format":1}', b"\xff", b'{"format":1.5}', b'{"format":true}', b"[" * 100_000],
    ids=repr,
)
def test_what_is_not_json_of_ours_is_malformed(data: bytes) -> None:
    for read in (decode_release, decode_report, lambda one: decode_trust(one, "trust")):
        with pytest.raises(Malformed):
            read(data)


@given(st.data())
def test_any_damaged_document_is_read_or_refused_with_a_code(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(["release.json", "report.json", "trust.json"]))
    original = (GOLDEN / path).read_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    damaged = original[:at] + data.draw(st.binary(max_size=6)) + original[at + data.draw(st.integers(0, 9)) :]
    read = {
        "release.json": decode_release,
        "report.json": decode_report,
        "trust.json": lambda one: decode_trust(one, "trust"),
    }[path]
    try:
        read(damaged)
    except EdgeferryError as error:
        assert error.code in ("EF2001", "EF2002")
