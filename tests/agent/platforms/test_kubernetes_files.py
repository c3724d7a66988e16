from __future__ import annotations

from pathlib import Path

import pytest

from agent.actions import Staged
from agent.platforms.host_files import PathTaken
from agent.platforms.kubernetes_files import hide, show, shows, stable_path
from agent.wire.release import Entry


def staged(root: Path, number: str, *, one: bool = True) -> Staged:
    """Return a version as staging leaves it: read-only, in a directory named by its digest."""
    content = root / "content" / "trees" / (number * 64)
    (content / "inner").mkdir(parents=True)
    for name in ("model.onnx",) if one else ("model.onnx", "inner/labels.txt"):
        (content / name).write_text(f"{name} {number}")
        (content / name).chmod(0o444)
    for folder in (content / "inner", content):
        folder.chmod(0o555)
    entry = Entry("model", "weights", f"{number}.0.0", "file")
    return Staged(entry, {}, content, content / "model.onnx" if one else content)


def test_the_stable_path_leads_to_the_file_within_a_folder_that_stands_alone(tmp_path: Path) -> None:
    made = staged(tmp_path, "1")
    assert not shows(tmp_path, made)
    show(tmp_path, made)
    path = stable_path(tmp_path, "weights")
    assert shows(tmp_path, made) and path.read_text() == "model.onnx 1"
    assert path.resolve().is_relative_to(tmp_path / "models" / "weights")
    assert path.stat().st_ino == (tmp_path / "content" / "trees" / ("1" * 64) / "model.onnx").stat().st_ino


def test_a_model_of_several_files_is_a_folder(tmp_path: Path) -> None:
    show(tmp_path, staged(tmp_path, "1", one=False))
    path = stable_path(tmp_path, "weights")
    assert {str(one.relative_to(path)) for one in path.rglob("*.*")} == {"model.onnx", "inner/labels.txt"}


def test_a_switch_leaves_one_version_and_the_way_back_is_the_same_again(tmp_path: Path) -> None:
    old, new = staged(tmp_path, "1"), staged(tmp_path, "2")
    for made in (old, new, old, new):
        show(tmp_path, made)
        assert stable_path(tmp_path, "weights").read_text() == f"model.onnx {made.entry.version[0]}"
        assert len(list((tmp_path / "models" / "weights").iterdir())) == 2


def test_what_a_killed_agent_left_half_made_goes(tmp_path: Path) -> None:
    left = tmp_path / "models" / "weights" / ".new-0a1b"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    show(tmp_path, staged(tmp_path, "1"))
    assert not left.exists()


def test_hidden_leaves_nothing_but_what_is_foreign(tmp_path: Path) -> None:
    show(tmp_path, staged(tmp_path, "1", one=False))
    folder = tmp_path / "models" / "weights"
    (folder / "notes.txt").write_text("not ours")
    hide(tmp_path, "weights")
    assert [one.name for one in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    hide(tmp_path, "weights")
    assert not folder.exists()


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    path = stable_path(tmp_path, "weights")
    path.parent.mkdir(parents=True)
    path.write_text("theirs")
    with pytest.raises(PathTaken):
        show(tmp_path, staged(tmp_path, "1"))
    assert path.read_text() == "theirs"
