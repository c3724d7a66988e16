"""Daemons of a test cluster: started in sessions of their own, found again by a file, stopped without a trace."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.cluster.binary import KUBECLUSTER

# In the environment of everything that is started: the folder that it was started for.
_MARK: Final = "EDGEFERRY_CLUSTER_FOLDER"


class NotUp(Exception):
    """A component did not come up; the end of its log is in the text."""


def start(
    folder: Path,
    name: str,
    command: Sequence[str | Path],
    *,
    dies_with_us: bool,
    environment: Mapping[str, str] | None = None,
    enter: Sequence[str] = (),
) -> int:
    """Start a component and return its process id; ``pids/NAME`` and ``logs/NAME.log`` in the folder name it.

    Args:
        folder: of the cluster.
        name: of the component; one that runs already is left as it is.
        command: the binary and its arguments.
        dies_with_us: the kernel kills it when this process ends, however that happens. The kernel means the thread that
            starts it, so only the main thread may.
        environment: beside our own.
        enter: words before the command that bring it into a namespace and then become the command.
    """
    running = pid(folder, name)
    if running:
        return running
    for part in ("pids", "logs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **(environment or {}), _MARK: str(folder)}
    words = [*enter, *map(str, command)]
    if dies_with_us:
        assert threading.current_thread() is threading.main_thread()
        if Path(command[0]).name == KUBECLUSTER.name:
            environment["KUBECLUSTER_PARENT"] = str(os.getpid())
        else:
            words = ["setpriv", "--pdeathsig", "KILL", *words]
    log = str(folder / "logs" / f"{name}.log")
    number = os.posix_spawnp(
        words[0],
        words,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    (folder / "pids" / name).write_text(f"{number} {_born(number)}")
    return number


def pid(folder: Path, name: str) -> int:
    """Return the process id of a component that runs, else 0; an id that another process has by now does not count."""
    try:
        number, born = (folder / "pids" / name).read_text().split()
        return int(number) if _born(int(number)) == born else 0
    except (OSError, ValueError):
        return 0


def identity() -> str:
    """Return the id and start time of this process, for `is_alive`."""
    return f"{os.getpid()} {_born(os.getpid())}"


def is_alive(identity: str) -> bool:
    """Return whether the process of this id and start time still runs."""
    number, born = identity.split()
    try:
        return _born(int(number)) == born
    except OSError:
        return False


def names(folder: Path) -> list[str]:
    """Return the components that were ever started, in order of their names."""
    return sorted(path.name for path in (folder / "pids").glob("*"))


def stop(folder: Path, name: str, how: signal.Signals = signal.SIGKILL) -> None:
    """End a component and wait until it is gone. State on disk stays."""
    number = pid(folder, name)
    if number:
        os.kill(number, how)
        until(lambda: not pid(folder, name), f"end of {name}", folder, name, limit_s=30)
    (folder / "pids" / name).unlink(missing_ok=True)


def all_of(folder: Path) -> list[int]:
    """Return every process that was started for this folder or one below it, also those that no file names."""
    return [number for number in _every() if _is_of(number, folder)]


def end_all_of(folder: Path) -> None:
    """End what `all_of` returns."""
    while numbers := all_of(folder):
        for number in numbers:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.02)


def _every() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _is_of(number: int, folder: Path) -> bool:
    try:
        _born(number)
        words = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    wanted = f"{_MARK}={folder}".encode()
    return any(word == wanted or word.startswith(wanted + b"/") for word in words)


def until(ready: Callable[[], bool], what: str, folder: Path, name: str, limit_s: float = 60.0) -> None:
    """Poll until it is so.

    Raises:
        NotUp: the component ended, or the time is over.
    """
    deadline = time.monotonic() + limit_s
    while not ready():
        if time.monotonic() > deadline or (not pid(folder, name) and not ready()):
            log = folder / "logs" / f"{name}.log"
            tail = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
            raise NotUp(f"gave up on {what}; {name} {'runs' if pid(folder, name) else 'has ended'}\n" + "\n".join(tail))
        time.sleep(0.03)


def _born(number: int) -> str:
    """Return the start time of a process in clock ticks since boot; raises OSError when it is gone or a zombie."""
    state, *fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    if state == "Z":
        with suppress(ChildProcessError):
            os.waitpid(number, os.WNOHANG)
        raise ProcessLookupError(number)
    return fields[18]
