"""The command line as people use it: every command has help with an example, faults are one line and exit 1."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def call(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BIN / "edgeferry"), *arguments], cwd=cwd, capture_output=True, text=True, check=False)


COMMANDS = [
    ["init"], ["validate"], ["plan"], ["explain"], ["publish"], ["status"], ["demo"], ["hub", "serve"],
    ["cluster", "token"], ["cluster", "list"], ["cluster", "show"], ["cluster", "revoke"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    shown = call(*command, "--help")
    assert shown.returncode == 0
    assert f"edgeferry {' '.join(command)}" in shown.stdout.split("Example")[1]


def test_a_person_starts_a_repository_validates_plans_publishes_and_asks_why(tmp_path: Path) -> None:
    assert call("init", "models", cwd=tmp_path).returncode == 0
    models = tmp_path / "models"
    assert "no faults" in call("validate", cwd=models).stdout
    ignored = subprocess.run(["git", "check-ignore", "hub-state/keys/release.key"], cwd=models, capture_output=True)
    assert ignored.returncode == 0, "the keys of a hub that is tried out here never get into a commit"
    for command in (["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "start"]):
        subprocess.run(["git", *command], cwd=models, check=True)
    published = call("publish", ".", "--fleet", "../fleet.git", "--keys", "../keys", "--output", "json", cwd=models)
    assert published.returncode == 0, published.stderr
    assert len(json.loads(published.stdout)["overlays"]) == 3
    again = call("publish", ".", "--fleet", "../fleet.git", "--keys", "../keys", cwd=models)
    assert again.stdout == "Nothing to publish.\n"
    (models / "placements" / "digits.yaml").unlink()
    shutil.rmtree(models / "workloads")
    planned = call("plan", "--fleet", "../fleet.git", cwd=models)
    assert "removed" in planned.stdout and "milan-01" in planned.stdout, planned.stderr
    why = call("explain", "digits", "turin-01", "--revision", "main", cwd=models)
    assert why.stdout.startswith("turin-01: not chosen by digits"), why.stderr


def test_a_fault_is_one_line_with_its_code_and_exit_1(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("there already")
    done = call("init", str(tmp_path))
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "EF1090" in done.stderr
    assert (tmp_path / "README.md").read_text() == "there already"


def test_a_usage_error_exits_2() -> None:
    assert call("plan").returncode == 2
    assert call("demo", "--scenario", "S99").returncode == 2


def test_faults_in_documents_exit_1_with_their_places(tmp_path: Path) -> None:
    call("init", "models", cwd=tmp_path)
    (tmp_path / "models" / "clusters" / "milan-01.yaml").write_text(
        "apiVersion: edgeferry.dev/v1alpha1\nkind: Clutser\n"
    )
    done = call("validate", "models", cwd=tmp_path)
    assert done.returncode == 1
    assert "clusters/milan-01.yaml:2:7: EF1008" in done.stdout
