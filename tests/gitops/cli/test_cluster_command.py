"""``edgeferry cluster``: what people type on the hub's machine."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.wire.report import EntryReport, Event, Report, encode_report
from agent.wire.signature import SigningKey
from gitops.serve.identity import hash_secret
from gitops.state_dir import StateDir, read_operator_token
from gitops.store.sqlite import SqliteStore

NOW = datetime(2026, 11, 24, 1, 2, 3, tzinfo=UTC)
KEY = SigningKey.generate()


def edgeferry(*arguments: object, state: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from gitops.cli.main import main; main()", *map(str, arguments)]
    environment = {**os.environ, "EDGEFERRY_HUB_STATE": str(state)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def join(state: Path, token: str) -> None:
    store = SqliteStore(state / "hub.sqlite")
    assert store.join(hash_secret(token), "milan-01", KEY.public, (), datetime.now(UTC)) == "joined"
    digest = "sha256:" + "a" * 64
    entry = EntryReport("model", "digits", "1.0.0", digest, digest, "current")
    events = tuple(Event(number, NOW, "switched", "model/digits") for number in (1, 2, 3))
    report = Report("f", "milan-01", "i", 1, NOW, sequence=4, agent="0.1.0", entries=(entry,), events=events)
    store.put_report("milan-01", report, encode_report(report), NOW)
    store.close()


def test_a_token_is_one_line_to_paste_and_joins(state: Path) -> None:
    done = edgeferry("cluster", "token", "milan-01", "--hub-url", "https://hub.example:8443", state=state)
    assert done.returncode == 0, done.stderr
    variable, _, command = done.stdout.partition(" ")
    assert command == "edgeferry-agent join --hub https://hub.example:8443 --cluster milan-01\n"
    token = variable.removeprefix("EDGEFERRY_TOKEN=")
    join(state, token)
    assert token.encode() not in b"".join(path.read_bytes() for path in state.glob("hub.sqlite*"))
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_list_and_show_tell_what_was_reported(state: Path) -> None:
    made = edgeferry("cluster", "token", "milan-01", "--hub-url", "https://hub", "-o", "json", state=state)
    join(state, json.loads(made.stdout)["token"])
    listed = json.loads(edgeferry("cluster", "list", "-o", "json", state=state).stdout)
    assert [(one["name"], one["sequence"], one["lastHealth"], one["key"]) for one in listed] == [
        ("milan-01", 4, "current", KEY.fingerprint)
    ]
    assert "milan-01" in edgeferry("cluster", "list", state=state).stdout
    shown = json.loads(edgeferry("cluster", "show", "milan-01", "--events", 2, "-o", "json", state=state).stdout)
    assert shown["entries"][0]["name"] == "digits"
    assert len(shown["events"]) == 2
    assert "switched" in edgeferry("cluster", "show", "milan-01", state=state).stdout


def test_revoking_ends_the_registration(state: Path) -> None:
    made = edgeferry("cluster", "token", "milan-01", "--hub-url", "https://hub", "-o", "json", state=state)
    join(state, json.loads(made.stdout)["token"])
    assert edgeferry("cluster", "revoke", "milan-01", state=state).returncode == 0
    again = edgeferry("cluster", "revoke", "milan-01", state=state)
    assert (again.returncode, "EF3115 UnknownCluster" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("token", "Milan", "--hub-url", "https://hub"),
        ("token", "x" * 54, "--hub-url", "https://hub"),
        ("token", "milan-01", "--hub-url", "hub"),
        ("token", "milan-01", "--hub-url", "https://hub", "--ttl", "soon"),
        ("token", "milan-01", "--hub-url", "https://hub", "--ttl", "0h"),
        ("token", "milan-01"),
    ],
    ids=" ".join,
)
def test_bad_arguments_are_usage_errors(state: Path, arguments: tuple[str, ...]) -> None:
    assert edgeferry("cluster", *arguments, state=state).returncode == 2
    assert not (state / "hub.sqlite").exists()


def test_a_directory_that_is_no_hubs_is_named(state: Path) -> None:
    done = edgeferry("cluster", "list", state=state)
    assert done.returncode == 1
    assert "EF3116 NoHubState" in done.stderr
    assert not state.exists()


@pytest.mark.parametrize("command", ["token", "list", "show", "revoke"])
def test_help_shows_examples(state: Path, command: str) -> None:
    assert "Examples:\n    edgeferry cluster" in edgeferry("cluster", command, "--help", state=state).stdout


def test_the_operator_token_is_made_once_and_is_secret(state: Path) -> None:
    first = read_operator_token(StateDir(state))
    assert read_operator_token(StateDir(state)) == first
    assert len(first) > 40
    assert stat.S_IMODE((state / "operator.token").stat().st_mode) == 0o600
    assert [path.name for path in state.iterdir()] == ["operator.token"]
