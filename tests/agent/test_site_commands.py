"""The commands of a person at a site: install, doctor, hold, rollback, leave."""

from __future__ import annotations

import configparser
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli import agent
from agent.config import Config, dump_config
from agent.keys import make_key
from agent.orders import read_orders
from agent.state import State, locked
from agent.unit import unit
from agent.wire.errors import EdgeferryError
from agent.wire.fields import write_time
from tests.agent.simulated_site import EPOCH, FLEET, Edge, model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A site that joined by a folder, and runs 2.0.0 after 1.0.0."""
    edge = Edge(tmp_path / "site", probation_s=0.4)
    edge.settle(edge.release(model()))
    overlay = edge.release(model(version="2.0.0"))
    edge.settle(overlay)
    assert edge.site is not None
    edge.site.state.close()
    folder = tmp_path / "folder"
    for path, data in overlay.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    make_key(edge.root)
    (edge.root / "agent.json").write_bytes(dump_config(Config("milan-01", FLEET, folder=str(folder))))
    return edge.root


def run(*arguments: str) -> Result:
    return CliRunner().invoke(agent, [*arguments])


def code(result: Result) -> str:
    assert isinstance(result.exception, EdgeferryError), result.output
    return result.exception.code


def test_hold_and_off(root: Path) -> None:
    assert "held: digits" not in run("hold", "digits", "--why", "line 3", "--state", str(root)).output
    assert read_orders(root).held["model/digits"].why == "line 3"
    run("hold", "--state", str(root))
    assert set(read_orders(root).held) == {"model/digits", "*"}
    run("hold", "--off", "--state", str(root))
    assert not read_orders(root).held


def test_rollback_names_the_version_and_is_undone(root: Path) -> None:
    assert "model/digits to 1.0.0" in run("rollback", "digits", "--state", str(root)).output
    assert read_orders(root).rollbacks["model/digits"].to == model()[0].digest
    run("rollback", "digits", "--undo", "--state", str(root))
    assert not read_orders(root).rollbacks


def test_an_unknown_name_is_refused_with_what_there_is(root: Path) -> None:
    result = run("rollback", "letters", "--state", str(root))
    assert code(result) == "EF4424" and "model/digits" in str(result.exception)


def test_the_unit_starts_offline_and_kills_the_agent_alone(tmp_path: Path) -> None:
    read = configparser.ConfigParser(interpolation=None, strict=False)
    read.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    read.read_string(unit(Path("/opt/edge ferry/bin/edgeferry-agent"), Path("/srv/100%/state")))
    service = read["Service"]
    assert service["ExecStart"] == "'/opt/edge ferry/bin/edgeferry-agent' run --state /srv/100%%/state"
    assert (service["KillMode"], service["Restart"]) == ("process", "always")
    assert "network-online" not in read["Unit"]["After"]


def test_install_writes_the_unit_once_and_without_systemd_says_so(root: Path, tmp_path: Path) -> None:
    for _ in range(2):
        result = run("install", "--state", str(root), "--unit-dir", str(tmp_path / "units"), "--no-start")
        assert result.exit_code == 0
    assert (tmp_path / "units" / "edgeferry-agent.service").read_text() == run(
        "install", "--print", "--state", str(root)
    ).output
    if not Path("/run/systemd/system").is_dir():
        assert code(run("install", "--state", str(root), "--unit-dir", str(tmp_path))) == "EF4430"


def doctor(root: Path) -> dict[str, dict[str, str]]:
    result = run("doctor", "--state", str(root), "--output", "json")
    checks: list[dict[str, str]] = json.loads(result.output)
    return {one["name"]: one for one in checks}


def test_doctor_finds_a_sound_site_sound(root: Path) -> None:
    with locked(root):
        found = doctor(root)
    assert {name: one["verdict"] for name, one in found.items()} == dict.fromkeys(found, "ok")
    assert {"settings", "disk", "state", "key and trust", "clock", "agent", "overlays", "platform"} <= found.keys()


@pytest.mark.parametrize("fault", ["clock", "agent", "overlays", "state", "key and trust", "settings"])
def test_doctor_names_what_is_wrong_and_what_to_do(root: Path, fault: str) -> None:
    match fault:
        case "clock":
            state = State.open(root)
            state.set(clockSeen=write_time(EPOCH.replace(year=2199)))
            state.close()
        case "overlays":
            (root / "agent.json").write_bytes(dump_config(Config("milan-01", FLEET, hub="http://127.0.0.1:9")))
        case "state":
            (root / "state.sqlite").write_bytes(b"not a database" * 100)
        case "key and trust":
            (root / "key").chmod(0o644)
        case "settings":
            (root / "agent.json").unlink()
    if fault == "agent":
        found = doctor(root)
    else:
        with locked(root):
            found = doctor(root)
    assert found[fault]["verdict"] == "wrong" and found[fault]["do"]
    assert code(run("doctor", "--state", str(root))) == "EF4426"


def test_leaving_takes_the_proofs_and_not_what_runs(root: Path) -> None:
    content = sorted(one.name for one in root.iterdir())
    assert "key" in content
    assert run("leave", "--yes", "--state", str(root)).exit_code == 0
    left = {one.name for one in root.iterdir()}
    assert not left & {"key", "agent.json", "trust", "credential"}
    assert code(run("leave", "--yes", "--state", str(root))) == "EF4001"


def test_leaving_is_asked_for(root: Path) -> None:
    assert CliRunner().invoke(agent, ["leave", "--state", str(root)], input="n\n").exit_code == 1
    assert (root / "agent.json").exists()


def test_leaving_waits_for_the_agent_to_end(root: Path) -> None:
    with locked(root):
        assert code(run("leave", "--yes", "--state", str(root))) == "EF4050"
    assert (root / "agent.json").exists()
