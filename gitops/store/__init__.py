"""State of the hub that is not in Git: who registered, what they reported, what happened.

Losing it costs every site a new join; nothing that runs stops. All that decides is in Git.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from agent.wire.facts import Fact
from agent.wire.report import Event, Report


@dataclass(frozen=True, slots=True)
class Registration:
    """One cluster that has joined.

    Attributes:
        name: of the cluster.
        key: the agent's public key, ``ssh-ed25519 AAAA…``.
        joined_at: when it registered last.
        seen_at: when it asked or reported last; None before the first time.
        labels: that its join token carried.
    """

    name: str
    key: str
    joined_at: datetime
    seen_at: datetime | None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a cluster proves itself by: the key that it registered."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class JoinToken:
    """One join token: for one cluster, one use, until it expires.

    Attributes:
        sha256: of the token; the token itself is kept nowhere.
        cluster: that may join by it.
        expires_at: UTC.
        labels: for the cluster's document, when it is adopted.
        replace: it may take the place of a cluster that is registered with another key.
    """

    sha256: bytes
    cluster: str
    expires_at: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    replace: bool = False


Joined = Literal["joined", "refused", "taken"]
"""A join's outcome: ``taken``, where another key is registered under the name and the token does not replace it."""


@dataclass(frozen=True, slots=True)
class StoredReport:
    """The newest report of a cluster, and when the hub took it."""

    report: Report
    received_at: datetime


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event, kept exactly once.

    Attributes:
        id: grows in the order of arrival: a cursor.
    """

    id: int
    cluster: str
    incarnation: str
    event: Event
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Audit:
    """One thing that somebody did to the hub itself.

    Attributes:
        who: a user of this machine, or ``cluster/NAME``.
        what: ``token``, ``joined``, ``revoked``, …
        about: what it was done to.
        source: address that it came from; empty for this machine.
    """

    at: datetime
    who: str
    what: str
    about: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class PersonToken:
    """What a person, or a person's program, shows to the hub.

    Attributes:
        sha256: of the token; the token itself is kept nowhere.
        id: names it to people.
        person: whose it is.
        role: what it may do: see gitops/roles.py.
        created_at, expires_at: UTC.
    """

    sha256: bytes
    id: str
    person: str
    role: str
    created_at: datetime
    expires_at: datetime


class Store(Protocol):
    """What the hub needs of its database. Safe from several threads; times are UTC, kept to the second."""

    def registrations(self) -> tuple[Registration, ...]:
        """Return all registered clusters, by name."""

    def registration(self, cluster: str) -> Registration | None:
        """Return one registration."""

    def registrations_mark(self) -> int:
        """Return a number that grows with every join and revocation, also by another process."""

    def identities(self) -> tuple[Identity, ...]:
        """Return what every registered cluster proves itself by."""

    def add_token(self, token: JoinToken, by: str, now: datetime) -> None:
        """Keep a join token."""

    def join(
        self,
        token_sha256: bytes,
        cluster: str,
        key: str,
        facts: tuple[Fact, ...],
        now: datetime,
        *,
        proven: bool = False,
    ) -> Joined:
        """Take the token and register the cluster, both or neither.

        Args:
            token_sha256: of the token that was shown.
            cluster: who joins.
            key: its public key.
            facts: what it says of itself.
            now: by the hub's clock.
            proven: who asks has the private key.

        Returns:
            ``refused`` for a token that is unknown, of another cluster, expired, or used; one that was used is good
            once more where the registered key is this one, and proven: an answer that was lost costs no token.
        """

    def revoke(self, cluster: str, by: str, now: datetime) -> bool:
        """Forget a registration and its open tokens; its reports stay. Returns whether there was one."""

    def touch(self, cluster: str, now: datetime) -> None:
        """Note that a cluster was heard of. Costs no write: ``flush`` writes, at most once a minute for a cluster."""

    def flush(self) -> None:
        """Write what ``touch`` noted."""

    def put_report(self, cluster: str, report: Report, raw: bytes, received_at: datetime) -> bool:
        """Keep a report and its new events, in one transaction; new events survive a power cut.

        A report that is not newer than the one kept (same incarnation, number not higher) changes nothing but
        for events that were missing.

        Args:
            cluster: as the transport proved it.
            report: decoded from ``raw``.
            raw: its bytes, whole: as they were signed, or as they were completed.
            received_at: by the hub's clock.

        Returns:
            Whether anything that placement or a rollout looks at has changed.
        """

    def latest_reports(self) -> Mapping[str, StoredReport]:
        """Return the newest report of every registered cluster; only what changed since the last call is read."""

    def report(self, cluster: str) -> StoredReport | None:
        """Return the newest report of one cluster, also of a revoked one."""

    def facts(self) -> Mapping[str, tuple[Fact, ...]]:
        """Return the newest facts of every registered cluster, by name; only what changed is read."""

    def highest_sequences(self) -> Mapping[str, int]:
        """Return the highest release sequence that each cluster ever reported, also of revoked ones."""

    def highest_sequence(self, cluster: str) -> int:
        """Return the highest release sequence that a cluster ever reported; 0 for none."""

    def events(self, cluster: str | None, after: int, limit: int) -> tuple[StoredEvent, ...]:
        """Return events with an id above ``after``, oldest first; of all clusters for None."""

    def newest_events(self, cluster: str | None, limit: int) -> tuple[StoredEvent, ...]:
        """Return the newest events of a cluster, or of all for None, oldest first."""

    def add_person(self, token: PersonToken, audit: Audit) -> None:
        """Keep a person's token, and the record of it; expired ones go."""

    def drop_person(self, id_: str, audit: Audit) -> bool:
        """Forget the token of that id; return whether there was one."""

    def people(self) -> tuple[PersonToken, ...]:
        """Return all tokens of people, by person and age."""

    def people_mark(self) -> int:
        """Return a number that grows with every change of people's tokens, also by another process."""

    def lead(self) -> bool:
        """Tell whether this process is the hub that decides; where none is, it becomes that until it ends."""

    def published(self) -> None:
        """Note that the fleet repository has news, for the other hubs."""

    def publications_mark(self) -> int:
        """Return a number that grows with every publication, also by another process."""

    def note(self, audit: Audit) -> None:
        """Keep an audit record; of very many the newest."""

    def audits(self, limit: int, before: int | None = None) -> tuple[tuple[int, Audit], ...]:
        """Return the newest audit records with their ids, newest first; those before an id, where one is given."""

    def close(self) -> None:
        """Flush and close."""
