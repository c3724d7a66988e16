"""Processes that outlive the agent: started with a mark, known by pid and start time, found again by the mark.

The mark is the variable ``EDGEFERRY_INSTANCE=STATE-ID/NONCE`` in the environment. Whatever an instance starts inherits
it, so that nothing of ours can run unknown, wherever the agent was killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from agent.wire.errors import Retry, Stop

MARK: Final = "EDGEFERRY_INSTANCE"
LOG_BYTES: Final = 1 << 20
LOGS_KEPT: Final = 2

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class ProgramMissing(Stop):
    """The program of an entry cannot be run on this host."""

    code = "EF4103"


class CannotStart(Retry):
    """The system could not start a process now."""

    code = "EF4104"


@dataclass(frozen=True, slots=True)
class Process:
    """Identity of a process: a pid that is used again is another process.

    Attributes:
        started: clock ticks since boot.
        boot: id of that boot.
    """

    pid: int
    started: int
    boot: str


def boot_id() -> str:
    """Return the id of this boot."""
    return _BOOT_ID.read_text().strip()


def uptime_ms() -> int:
    """Return milliseconds since boot, the same for every process."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def age_ms(process: Process) -> int:
    """Return how long ago the process was started, in milliseconds."""
    return uptime_ms() - process.started * 1000 // _TICKS


def alive(process: Process, boot: str) -> bool:
    """Tell whether just this process runs (a zombie does not)."""
    return process.pid > 0 and process.boot == boot and _started(process.pid) == process.started


def identify(pid: int, boot: str) -> Process | None:
    """Return the identity of what runs as ``pid``; None where nothing does."""
    started = _started(pid)
    return None if started is None else Process(pid, started, boot)


def spawn(
    command: Sequence[str], environment: Mapping[str, str], mark: str, directory: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Start a process that outlives us, its output appended to ``log``.

    Args:
        command: program and arguments; no shell.
        environment: all of it, but the mark.
        mark: ``STATE-ID/NONCE``.
        directory: that it runs in.
        log: made where missing.

    Raises:
        ProgramMissing: there is no such program, or it may not or cannot be run.
        CannotStart: too many processes, no memory.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(log, flags, 0o600), "ab") as out:
        try:
            return subprocess.Popen(
                command,
                env={**environment, MARK: mark},
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
            raise ProgramMissing(
                f"{command[0]} cannot be run: {error.strerror}",
                do="install it on the host, or mend the runtime's command",
            ) from None
        except OSError as error:
            if error.errno in (8, 7, 36, 40):  # not executable code, too long, too many links
                raise ProgramMissing(f"{command[0]} cannot be run: {error.strerror}", do="mend the command") from None
            raise CannotStart(f"{command[0]}: {error.strerror}", do="free memory or processes on the host") from None


def marked(state_id: str) -> dict[str, list[int]]:
    """Return nonce → pids of every process with a mark of this state, the leader of its session first."""
    prefix = f"{MARK}={state_id}/".encode()
    found: dict[str, list[int]] = {}
    for pid in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]:
        nonce = _nonce(pid, prefix)
        if nonce is not None:
            found.setdefault(nonce, []).append(pid)
    for pids in found.values():
        pids.sort(key=lambda pid: (_session(pid) != pid, pid))
    return found


def signal_marked(state_id: str, nonces: Collection[str], number: signal.Signals) -> list[int]:
    """Send a signal to every process of these instances; return descriptors that become readable when each has ended.

    The caller closes them.
    """
    prefix = f"{MARK}={state_id}/".encode()
    descriptors = []
    for nonce, pids in marked(state_id).items():
        if nonce not in nonces:
            continue
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                descriptor = os.pidfd_open(pid)
                descriptors.append(descriptor)
                if _nonce(pid, prefix) == nonce:  # the pid may have been used again before we had hold of it
                    signal.pidfd_send_signal(descriptor, number)
    return descriptors


def wait_ended(descriptors: Sequence[int], most_s: float) -> bool:
    """Wait until the processes have ended and close the descriptors; return False where the time was not enough."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    waiting, deadline = set(descriptors), time.monotonic() + most_s
    try:
        while waiting and (left_s := deadline - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left_s * 1000):
                poll.unregister(descriptor)
                waiting.discard(descriptor)
        return not waiting
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def catches(pid: int, number: signal.Signals) -> bool:
    """Tell whether the process has a handler for the signal; what has none would be ended by it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    mask = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(mask, 16) >> (number - 1) & 1)


def rotate(log: Path) -> None:
    """Keep a log within ``LOG_BYTES``: its end moves to ``.1``, that to ``.2``; its writer goes on undisturbed."""
    try:
        if log.stat().st_size <= LOG_BYTES:
            return
    except OSError:
        return
    first, *older = (log.with_name(f"{log.name}.{number}") for number in range(1, LOGS_KEPT + 1))
    for newer, old in reversed(list(pairwise([first, *older]))):
        if newer.exists():
            newer.replace(old)
    with log.open("rb+") as source:
        source.seek(-LOG_BYTES, os.SEEK_END)
        with os.fdopen(os.open(first, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
            copy.write(source.read(LOG_BYTES))
        source.truncate(0)


def last_line(log: Path) -> str:
    """Return the last line of a log that says something, at most 300 characters of printable text."""
    try:
        with log.open("rb") as source:
            source.seek(max(0, source.seek(0, os.SEEK_END) - 8192))
            lines = [line.strip() for line in source.read().decode(errors="replace").splitlines()]
    except OSError:
        return ""
    line = next((line for line in reversed(lines) if line), "")
    return "".join(character if character.isprintable() else " " for character in line)[:300]


def ending(code: int) -> str:
    """Say how a process ended.

    Args:
        code: as ``subprocess`` has it, negative for a signal.
    """
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _started(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _nonce(pid: int, prefix: bytes) -> str | None:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    for variable in environment.split(b"\0"):
        if variable.startswith(prefix):
            return variable[len(prefix) :].decode("ascii", "replace")
    return None
