"""A real agent process on a simulated site: the world is a file, so that it outlives the process. Killed by the tests.

``python -m tests.agent.agent_process ROOT OVERLAYS``: the site is at ROOT; OVERLAYS has a file ``now`` that names the
overlay's folder beside it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.clock import Clock, read_wall
from agent.courier import Courier, FolderPost
from agent.fetch import Received
from agent.loop import Bell, ended_by_signals, run
from agent.reconcile import open_site
from agent.speak import Voice
from agent.state import State, locked
from agent.wire.signature import SigningKey
from tests.agent.simulated_site import Edge

_PR_SET_PDEATHSIG: Final = 1


class Folder:
    """Overlays from a folder, looked at often."""

    def __init__(self, overlays: Path) -> None:
        self._overlays = overlays

    def poll(self, revision: str, wait_s: float) -> Received | None:
        name = (self._overlays / "now").read_text()
        if name == revision:
            time.sleep(0.02)
            return None
        root = self._overlays / name
        files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        return Received(files, name, "folder")

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


def main(root: Path, overlays: Path) -> None:
    edge = Edge(root)
    config = replace(edge.config, probation_s=0.3, start_deadline_s=2.0, look_s=0.2, wait_s=0.0)
    with locked(root):
        state = State.open(root)
        bell = Bell()
        ended_by_signals(bell)
        instant = Clock(state).instant(*read_wall())
        site = open_site(root, config, "", state, edge.platform, edge.bytes, bell.ring, instant)
        courier = Courier(FolderPost(root), SigningKey.generate(), bell.ring)
        run(site, Folder(overlays), courier, Voice(0, "test", False), bell, lambda line: print(line, flush=True))


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:
        sys.exit(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
