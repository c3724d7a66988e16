"""What stands in the fleet repository: every cluster's release and every decision, as later steps compare with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.wire.canonical import canonical
from agent.wire.fields import Fields
from agent.wire.release import decode_release
from gitops.changes import Published, published
from gitops.commands import Command, decode_command
from gitops.decisions import DecisionRecord, decode_all
from gitops.rollout_records import RolloutRecord, decode_rollout

PROTECTED: Final = "guards/protected.json"


@dataclass(frozen=True, slots=True)
class Ledger:
    """The fleet repository at one head.

    Attributes:
        head: commit id; None before the first publication.
        published: cluster → its release.
        records: decision name → decision.
        rollouts: decision name → rollout, of those that have one.
        commands: everything that people ordered.
        protected: ``Kind/NAME`` of the documents that may not be deleted.
    """

    head: str | None = None
    published: Mapping[str, Published] = field(default_factory=dict)
    records: Mapping[str, DecisionRecord] = field(default_factory=dict)
    rollouts: Mapping[str, RolloutRecord] = field(default_factory=dict)
    commands: tuple[Command, ...] = ()
    protected: frozenset[str] = frozenset()

    def identities(self) -> dict[str, str]:
        """Return ``kind/NAME@VERSION`` → identity, of every version that was ever published."""
        return {
            f"{record.kind}/{record.subject}@{version}": identity
            for record in self.records.values()
            for version, identity in record.identities.items()
        }


def read_ledger(
    head: str | None,
    releases: Iterable[tuple[str, bytes]],
    decisions: Mapping[str, bytes],
    commands: Mapping[str, bytes] | None = None,
    protected: bytes | None = None,
) -> Ledger:
    """Read everything from a fleet repository's files.

    Args:
        head: the commit they are of.
        releases: (cluster, bytes of release.json).
        decisions: path → bytes of everything below decisions/.
        commands: path → bytes of everything below commands/.
        protected: bytes of guards/protected.json; None for none.

    Raises:
        Malformed: a file is not what it should be; the head's signature was checked before, so it is our own fault.
    """
    found = {cluster: published(decode_release(data, f"{cluster}/release.json")) for cluster, data in releases}
    by_name: dict[str, dict[str, bytes]] = {}
    for path, data in decisions.items():
        by_name.setdefault(path.split("/")[1], {})[path] = data
    rollouts = {name: decode_rollout(name, files) for name, files in sorted(by_name.items())}
    return Ledger(
        head,
        found,
        {name: decode_all(name, files) for name, files in sorted(by_name.items())},
        {name: one for name, one in rollouts.items() if one is not None},
        tuple(decode_command(data, path) for path, data in sorted((commands or {}).items())),
        frozenset() if protected is None else frozenset(Fields.parse(protected, PROTECTED).texts("protected")),
    )


def encode_protected(names: Iterable[str]) -> bytes:
    """Return the bytes of guards/protected.json."""
    return canonical({"format": 1, "protected": sorted(names)})
