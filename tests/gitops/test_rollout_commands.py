"""Orders about rollouts: what people type becomes a commit that says who, when and why, and is obeyed."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.wire.errors import Retry
from gitops.cli.rollout import freeze, rollout
from gitops.cli.simulate import simulate
from gitops.commands import Command, decode_command
from gitops.demo.documents import placement, version
from gitops.hubless import publish_once
from gitops.opening import FleetHome, MainSource
from gitops.orders import ordered
from gitops.service import Service
from gitops.store.sqlite import SqliteStore
from tests.gitops.test_hub import NOW, Repository, opened
from tests.gitops.test_hub_rollouts import ROLLOUT

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def command(verb: str, about: str, argument: str = "", minutes: int = 0) -> Command:
    return Command(f"{minutes}-{verb}", verb, about, "ada", AT + timedelta(minutes=minutes), "x", argument)  # type: ignore[arg-type]


def test_the_last_order_about_a_thing_counts_in_whatever_order_they_are_read() -> None:
    commands = [command("pause", "placement/p", minutes=1), command("resume", "placement/p", minutes=2)]
    assert "p" not in ordered(commands, AT).paused and "p" not in ordered(commands[::-1], AT).paused
    assert ordered([*commands, command("pause", "placement/p", minutes=3)], AT).paused == {"p"}


def test_an_order_about_one_rollout_never_hits_the_next() -> None:
    found = ordered([command("pause", "rollout/p", "3"), command("abort", "rollout/p", "3")], AT)
    assert found.of("p", 3).halted and not found.of("p", 4).halted
    assert found.of("p", 3).aborted == {3}


def test_an_approval_of_too_much_at_once_lasts_a_week() -> None:
    approved = [command("approve", "fleet", "0123456789abcdef")]
    assert ordered(approved, AT + timedelta(days=6)).approved
    assert not ordered(approved, AT + timedelta(days=8)).approved


def test_freeze_halts_everything_until_it_is_off() -> None:
    assert ordered([command("freeze", "fleet")], AT).of("p", 1).halted
    assert not ordered([command("freeze", "fleet"), command("thaw", "fleet", minutes=1)], AT).of("p", 1).halted


@pytest.fixture
def fleet(tmp_path: Path) -> list[str]:
    """A fleet without a hub, and the options that lead to it."""
    repository = Repository(tmp_path / "models")
    repository.commit({"workloads": None, **placement("digits", model="digits", rollout=ROLLOUT)})
    source = MainSource(str(repository.folder))
    publish_once(source, FleetHome(str(tmp_path / "fleet.git")), tmp_path / "keys", tmp_path / "artifacts", NOW)
    return ["--fleet", str(tmp_path / "fleet.git"), "--keys", str(tmp_path / "keys")]


def test_without_a_hub_an_order_is_a_commit_that_the_next_publication_obeys(tmp_path: Path, fleet: list[str]) -> None:
    done = CliRunner().invoke(rollout, ["pause", "digits", "--placement", "--why", "audit", *fleet])
    assert done.exit_code == 0, done.output
    seen = json.loads(CliRunner().invoke(rollout, ["list", *fleet[:2], "-o", "json"]).output)
    assert [(one["name"], one["halted"]) for one in seen["rollouts"]] == [("digits", True)]
    assert CliRunner().invoke(freeze, ["--why", "inventory", *fleet]).exit_code == 0
    assert json.loads(CliRunner().invoke(rollout, ["list", *fleet[:2], "-o", "json"]).output)["frozen"]
    source = MainSource(str(tmp_path / "models"))
    later = NOW + timedelta(hours=1)
    publish_once(source, FleetHome(str(tmp_path / "fleet.git")), tmp_path / "keys", tmp_path / "artifacts", later)


@pytest.mark.parametrize(
    "arguments",
    [["abort", "nobody"], ["approve", "nobody"], ["retry", "digits"], ["show", "nobody"]],
    ids=" ".join,
)
def test_an_order_that_applies_to_nothing_is_refused(fleet: list[str], arguments: list[str]) -> None:
    why = [] if arguments[0] == "show" else ["--why", "x"]
    done = CliRunner().invoke(rollout, [*arguments, *why, *fleet])
    assert done.exit_code == 1 and "EF3203" in str(done.exception)


def test_a_hub_answers_an_order_once_it_is_recorded_and_obeys_it_in_the_same_commit(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "models")
    repository.commit({"workloads": None, **placement("digits", model="digits", rollout=ROLLOUT)})
    found = opened(tmp_path, repository)
    woken = threading.Event()
    service = Service(found.hub, SqliteStore(tmp_path / "hub.sqlite"), lambda _: woken.wait(20), lambda _: None)
    service.start()
    try:
        head = service.order(woken.set, "freeze", "fleet", "user/ada", "inventory", "")
        assert head == found.repository.head and service.state.frozen
        (data,) = found.repository.walk("commands").values()
        told = decode_command(data, "x")
        assert (told.by, told.why, told.verb) == ("user/ada", "inventory", "freeze")
        assert "user/ada orders freeze" in found.repository.commit(head).decode()
    finally:
        service.stop(woken.set)


def test_a_hub_that_cannot_record_an_order_says_so_and_forgets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(tmp_path, Repository(tmp_path / "models"))
    monkeypatch.setattr("gitops.service.ORDER_S", 0.01)
    service = Service(found.hub, SqliteStore(tmp_path / "hub.sqlite"), lambda _: None, lambda _: None)
    with pytest.raises(Retry, match="EF3202"):
        service.order(lambda: None, "freeze", "fleet", "user/ada", "inventory", "")
    assert not service.step().ordered.frozen


def test_the_same_seed_prints_the_same_course() -> None:
    asked = ["--clusters", "50", "--offline", "10%", "--seed", "3"]
    one, two = (CliRunner().invoke(simulate, asked) for _ in range(2))
    assert one.exit_code == 0 and one.output == two.output and "complete" in one.output


def test_a_placements_own_rollout_is_simulated(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(placement("p", model="m", rollout={"waves": [{"percent": 10}], "soak": "1m"})["placements/p.yaml"])
    done = CliRunner().invoke(simulate, ["--rollout", str(file), "--clusters", "20", "--version", "crashes"])
    assert done.exit_code == 0 and "reverted" in done.output
    file.write_text(placement("p", model="m")["placements/p.yaml"])
    assert "EF3205" in str(CliRunner().invoke(simulate, ["--rollout", str(file)]).exception)


def test_a_version_that_moves_is_seen_in_the_list(tmp_path: Path, fleet: list[str]) -> None:
    repository = Repository.__new__(Repository)
    repository.folder = tmp_path / "models"
    repository.commit(version("digits", "2.0.0"))
    source = MainSource(str(repository.folder))
    publish_once(source, FleetHome(fleet[1]), tmp_path / "keys", tmp_path / "artifacts", NOW + timedelta(hours=1))
    shown = CliRunner().invoke(rollout, ["show", "digits", *fleet[:2]])
    assert "rollout 2 of digits" in shown.output, shown.output
