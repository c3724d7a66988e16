"""End everything that a host platform runs for one agent state: ``python -m agent.platforms.host_stop STATE``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Final

from agent.platforms import host_supervise

_GRACE_S: Final = 3.0
_KILLED_S: Final = 5.0
_ROUNDS: Final = 5


def stop_everything(state: Path) -> int:
    """End all processes of the state, the forwarder too, and return how many instances there were.

    The agent must not run: it would start them again. Records stay, so that a later agent brings them back.
    """
    try:
        state_id = (state / "host" / "id").read_text().strip()
    except FileNotFoundError:
        return 0
    found = host_supervise.marked(state_id)
    for number in (signal.SIGTERM, *[signal.SIGKILL] * _ROUNDS):
        left = host_supervise.marked(state_id)
        if not left:
            break
        waiting = host_supervise.signal_marked(state_id, left, number)
        host_supervise.wait_ended(waiting, _GRACE_S if number == signal.SIGTERM else _KILLED_S)
    return len(found)


if __name__ == "__main__":
    print(f"{stop_everything(Path(sys.argv[1]))} stopped")
