"""Starting the fleet's processes, and leaving none behind, also when this process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

BIN: Final = Path(sys.executable).parent
"""Where this installation's commands are."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child: this installation's commands first, no inherited Edgeferry settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDGEFERRY_", "GIT_"))}
    kept["PATH"] = f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    kept["GIT_CONFIG_NOSYSTEM"] = "1"
    kept["GIT_TERMINAL_PROMPT"] = "0"
    return kept | dict(extra or {})


def run(command: Sequence[str], *, cwd: Path | None = None, extra: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed.

    Raises:
        RuntimeError: it failed; the message has its output.
    """
    done = subprocess.run(
        list(command),
        cwd=cwd,
        env=environment(extra),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Background:
    """One process that goes on until it is stopped.

    Args:
        command: the program and its arguments.
        log: file that gets everything it prints.
        extra: environment variables besides the usual.
    """

    def __init__(self, command: Sequence[str], log: Path, extra: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment(extra),
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Is it still running?"""
        return self.process.poll() is None

    def stop(self, *, how: int = signal.SIGTERM, within_s: float = 15.0) -> None:
        """End the process; after ``within_s`` by force."""
        if self.alive:
            self.process.send_signal(how)
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def tail(self, lines: int = 15) -> str:
        """Return the last lines that it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Reaper:
    """Stops everything that was started below a directory when this process ends, however it ends.

    A helper process waits for the end of a pipe that only this process holds open. Processes are found by
    ``EDGEFERRY_DEMO=<directory>`` in their environment, and the sites' by their state directories.

    Args:
        root: directory of the fleet.
    """

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gitops.demo.reap", str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env=environment(),
        )

    def close(self) -> None:
        """Reap now, and wait until it is done."""
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait(30)
