"""``edgeferry status``: what a running hub tells a person, in a table and in JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.wire.report import EntryReport, Report, encode_report
from gitops.changes import Published
from gitops.serve.view import HubState, SourceState

DIGEST = "sha256:" + "a" * 64


def edgeferry(*arguments: str, token: str = "op-token") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from gitops.cli.main import main; main()", "status", *arguments]
    environment = {**os.environ, "EDGEFERRY_OPERATOR_TOKEN": token}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def fleet(hub: Any) -> Any:
    one = Published(2, "c", "", {("model", "digits"): ("1.0.0", DIGEST)})
    hub.state = HubState(
        head="f" * 40,
        sources=(
            SourceState("main", "a" * 40, "a" * 40, note="branch main was rewritten: cccc is not in aaaa"),
            SourceState("robotics", "b" * 40, "a" * 40, ("models/x.yaml:1:1: EF1003 TabInIndentation: a tab",)),
        ),
        published=dict.fromkeys(("lyon-01", "milan-01", "turin-01"), one),
        named={"digits": frozenset({("model", "digits")})},
    )
    for name in ("milan-01", "turin-01"):
        hub.join(name)
        hub.store.touch(name, hub.now)
        health = "current" if name == "milan-01" else "degraded"
        since = hub.now if health == "current" else None
        entry = EntryReport("model", "digits", "1.0.0", DIGEST, DIGEST, health, since, "" if since else "EF4110", "cut")
        report = Report("fleet-1", name, "i1", 1, hub.now, sequence=2, entries=(entry,))
        hub.store.put_report(name, report, encode_report(report), hub.now)
    hub.now += timedelta(seconds=300)
    return hub


def test_the_overview_shows_what_is_wrong_first(fleet: Any) -> None:
    done = edgeferry("--hub", fleet.url)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "fleet fleet-1, published ffffffffffff"
    assert lines[1:3] == ["source main at aaaaaaaaaaaa", "  branch main was rewritten: cccc is not in aaaa"]
    assert lines[3] == "source robotics is held back at bbbbbbbbbbbb and stays at aaaaaaaaaaaa:"
    assert "EF1003" in lines[4]
    assert lines[5] == "3 clusters: 1 current, 1 unknown, 1 degraded"
    table = [line.split() for line in lines[7:11]]
    assert [row[:3] for row in table] == [
        ["CLUSTER", "HEALTH", "RELEASE"],
        ["turin-01", "degraded", "2"],
        ["lyon-01", "unknown", "none"],
        ["milan-01", "current", "2"],
    ]
    assert table[3][3:] == ["5", "min", "digits", "1.0.0"]
    assert "turin-01 model/digits: EF4110 cut" in lines and "lyon-01 has not joined" in done.stdout


def test_a_silent_cluster_is_unknown_since(fleet: Any) -> None:
    fleet.now += timedelta(days=9)
    shown = edgeferry("milan-01", "--hub", fleet.url).stdout
    assert "milan-01 is unknown since 2026-11-24T01:02:03Z, 9 d ago" in shown
    row = next(line.split() for line in shown.splitlines() if line.startswith("milan-01  model"))
    assert row[:7] == ["milan-01", "model", "digits", "1.0.0", "1.0.0", "unknown", "–"]


def test_a_name_leaves_what_belongs_to_it_also_as_json(fleet: Any) -> None:
    shown = json.loads(edgeferry("digits", "--hub", fleet.url, "-o", "json").stdout)
    assert [(one["name"], one["entries"][0]["health"]) for one in shown["clusters"]] == [
        ("lyon-01", "unknown"),
        ("milan-01", "current"),
        ("turin-01", "degraded"),
    ]


@pytest.mark.parametrize(
    ("arguments", "token", "code"),
    [
        (
            ["digts"],
            "op-token",
            "EF3135 NothingNamed: no cluster, model, workload or application 'digts'; did you mean",
        ),
        ([], "wrong", "EF3134 HubRefused: EF3101 Unauthenticated"),
    ],
    ids=["unknown name", "wrong token"],
)
def test_a_refusal_is_one_line_with_the_hubs_code(fleet: Any, arguments: list[str], token: str, code: str) -> None:
    done = edgeferry(*arguments, "--hub", fleet.url, token=token)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert code in done.stderr


def test_a_hub_that_does_not_answer_is_named(tmp_path: Path) -> None:
    done = edgeferry("--hub", "http://127.0.0.1:9")
    assert done.returncode == 1 and "http://127.0.0.1:9: EF3133 HubUnreachable" in done.stderr
    assert "EF3136 NoOperatorToken" in edgeferry("--state", str(tmp_path), token="").stderr
    assert "EF3134" in edgeferry("--hub", "file:///etc/passwd").stderr
