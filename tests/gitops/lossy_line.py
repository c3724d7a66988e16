"""Between an agent and the hub's store: reports that are lost, doubled, late, or whose answers are lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from agent.courier import Letter
from agent.wire.errors import EdgeferryError
from agent.wire.report import Report, decode_report
from agent.wire.report_delta import BaseForgotten, whole
from gitops.store import JoinToken
from gitops.store.sqlite import SqliteStore

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def join(store: SqliteStore, cluster: str) -> None:
    token = cluster.encode().ljust(32, b".")
    store.add_token(JoinToken(token, cluster, datetime(2030, 1, 1, tzinfo=UTC)), "ann", NOW)
    store.join(token, cluster, f"ssh-ed25519 {cluster}", (), NOW)


@dataclass
class Line:
    """Between the agent and the hub: it does to each letter what the schedule says, in place of a courier's thread."""

    store: SqliteStore
    cluster: str = "milan-01"
    fate: str = "arrives"
    late: list[bytes] = field(default_factory=list)
    _waiting: Letter | None = None
    _delivered: list[Letter] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        return self._waiting is None

    def take(self, letter: Letter) -> None:
        self._waiting = letter

    def delivered(self) -> tuple[Letter, ...]:
        found, self._delivered = tuple(self._delivered), []
        return found

    def forget(self) -> None:
        """The agent was killed: what it had in memory is gone."""
        self._waiting, self._delivered = None, []

    def carry(self) -> None:
        letter = self._waiting
        if letter is None or self.fate == "lost":
            return
        data = letter.data()
        if self.fate == "late":
            self.late.append(data)
            return
        for _ in range(2 if self.fate == "twice" else 1):
            try:
                self._at_hub(data)
            except BaseForgotten:
                self._at_hub(Letter(letter.report).data())
        if self.fate != "answer lost":
            self._delivered.append(letter)
            self._waiting = None

    def arrive_late(self) -> None:
        while self.late:
            try:
                self._at_hub(self.late.pop())
            except EdgeferryError:
                continue

    def _at_hub(self, data: bytes) -> None:
        report = decode_report(data)
        stored = self.store.report(self.cluster)
        known: Report | None = None if stored is None else stored.report
        repeated = known is not None and known.incarnation == report.incarnation and known.number >= report.number
        full = report if repeated else whole(report, known)
        self.store.put_report(self.cluster, full, Letter(full).data(), NOW)
