"""A file is the old one or the new one, whole; and what a killed write leaves is swept away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from agent import durable


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """A disk that is full, shown by a limit on the size of files."""
    path = tmp_path / "file"
    durable.write(path, b"old")
    script = (
        "import resource, signal, sys; from pathlib import Path; from agent import durable\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "durable.write(Path(sys.argv[1]), b'new' * 1000)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60)
    assert "File too large" in done.stderr
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_file_is_private_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    durable.write(tmp_path / "a", b"")
    durable.write(tmp_path / "b", b"", 0o644)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o600, 0o644]


def test_what_killed_writes_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    kept = {tmp_path / ".profile", tmp_path / "a.new", tmp_path / "host" / "entries" / "x.json"}
    left = {tmp_path / ".key.0a.new", tmp_path / "host" / ".id.1.new", tmp_path / "host" / "entries" / ".x.json.2.new"}
    (tmp_path / "host" / "entries").mkdir(parents=True)
    for path in kept | left:
        path.write_text("x")
    durable.sweep(tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == kept
