"""``python publisher.py FLEET KEYS FIRST COUNT HOW``: publishes number after number, until it is done or dies.

HOW is ``run``, ``kill:N`` (SIGKILL to itself at the N-th change of the file system) or ``limit:BYTES`` (no file may
grow beyond it, as on a full disk).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gitops.fleet import FleetRepository
from gitops.keys import Keyring
from gitops.publish import Change, FleetMoved, publish

CLUSTERS: Final = 20
AT: Final = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
_TOUCHES: Final = {"os.rename", "os.link", "os.remove", "os.truncate", "os.mkdir", "os.chmod"}


def change(number: int) -> Change:
    """Every overlay bears the same number, so that a mixed snapshot shows."""
    text = b"%d\n" % number
    filling = (b"%d " % number) * 400
    overlays = {f"c{n:02d}": {"release.json": text, "models/m/x.yaml": filling} for n in range(CLUSTERS)}
    return Change(overlays, {"decisions/number": text}, f"Number {number}", AT)


def die_at(touch: int) -> None:
    """Kill this process when it is about to touch the file system for the ``touch``-th time."""
    left = touch

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in _TOUCHES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main(fleet: Path, keys: Path, first: int, count: int, how: str) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nothing outlives the tests
    repository = FleetRepository.open(fleet)
    keyring = Keyring.open(keys)
    kind, _, value = how.partition(":")
    if kind == "kill":
        die_at(int(value))
    elif kind == "limit":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), int(value)))
    for number in range(first, first + count):
        try:
            publish(repository, change(number), keyring.release, repository.head)
        except FleetMoved:
            continue
        print(number, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
