"""The matrix of faults and phases, as data. A cell that is not played says why.

What it does not cover: writes lost in a power cut below the file system (tests/agent/test_state.py and
tests/agent/test_durable.py hold what is flushed and in what order; here a power cut kills every process at once);
wrong clocks (the processes share this machine's clock: tests/agent/test_clock.py); reordered bytes (TCP hands none on);
expired certificates and renewal (tests/agent/test_proof.py); the API server's faults
(tests/agent/platforms/test_kubernetes_faults.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PHASES: Final = ("idle", "fetching", "staging", "switching", "probation", "pruning", "joining")

FAULTS: Final = {
    "link-cut": "the connection is cut, and refused",
    "link-half-open": "connections stay, nothing comes through",
    "link-slow": "25 kB/s",
    "link-garbled": "what comes from the hub has flipped bits",
    "name-unknown": "the hub's name is not known any more",
    "hub-gone": "the hub is killed, and started again",
    "hub-restored": "the hub's database and fleet repository are those of an hour ago",
    "hub-deaf": "the hub is stopped (SIGSTOP), and goes on later",
    "history-rewritten": "the model repository's branch is rewritten by force",
    "store-wrong": "the hub's store hands out other bytes",
    "disk-full": "the site's disk is full",
    "disk-read-only": "the site comes up again with a disk that takes no writes",
    "file-corrupted": "a file of what is staged was changed",
    "agent-killed": "kill -9 of the agent",
    "agent-stopped": "the agent is stopped (SIGSTOP), and goes on later",
    "power-cut": "kill -9 of everything at the site",
    "model-killed": "kill -9 of the model's process",
    "second-agent": "a second agent on the same state",
}

_ONLY_STAGED: Final = "there is nothing of it at the site yet"
_NOT: Final = {
    ("store-wrong", "idle"): "nothing is fetched",
    ("store-wrong", "switching"): "nothing is fetched any more",
    ("store-wrong", "probation"): "nothing is fetched any more",
    ("store-wrong", "pruning"): "nothing is fetched",
    ("store-wrong", "joining"): "nothing is fetched",
    ("file-corrupted", "joining"): _ONLY_STAGED,
    ("file-corrupted", "pruning"): "it is being removed",
    ("model-killed", "switching"): "a version whose process dies before its commit has failed, and is not tried again",
    ("model-killed", "probation"): "a version whose process dies before its commit has failed, and is not tried again",
    ("model-killed", "joining"): _ONLY_STAGED,
    ("model-killed", "pruning"): "it is being removed",
    ("power-cut", "joining"): "a join is a command: it is killed and done again (tests/agent/test_join.py)",
    ("agent-killed", "joining"): "a join is a command: it is killed and done again (tests/agent/test_join.py)",
    ("agent-stopped", "joining"): "there is no agent yet",
    ("second-agent", "joining"): "there is no agent yet",
    ("disk-full", "joining"): "tests/agent/test_join.py",
    ("disk-read-only", "joining"): "tests/agent/test_join.py",
    ("history-rewritten", "joining"): "a join asks no source",
    ("hub-restored", "joining"): "its token would be gone with the backup: a person asks for another",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault in one phase."""

    fault: str
    phase: str

    @property
    def name(self) -> str:
        """For people, and for ``--cells``."""
        return f"{self.fault}×{self.phase}"

    @property
    def left_out(self) -> str:
        """Why it is not played; empty where it is."""
        return _NOT.get((self.fault, self.phase), "")


MATRIX: Final = tuple(Cell(fault, phase) for fault in FAULTS for phase in PHASES)
PLAYED: Final = tuple(cell for cell in MATRIX if not cell.left_out)
