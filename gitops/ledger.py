"""What stands in the fleet repository: every cluster's release and every decision, as later steps compare with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from agent.wire.release import decode_release
from gitops.changes import Published, published
from gitops.decisions import DecisionRecord, decode_all


@dataclass(frozen=True, slots=True)
class Ledger:
    """The fleet repository at one head.

    Attributes:
        head: commit id; None before the first publication.
        published: cluster → its release.
        records: decision name → decision.
    """

    head: str | None = None
    published: Mapping[str, Published] = field(default_factory=dict)
    records: Mapping[str, DecisionRecord] = field(default_factory=dict)

    def identities(self) -> dict[str, str]:
        """Return ``kind/NAME@VERSION`` → identity, of every version that was ever published."""
        return {
            f"{record.kind}/{record.subject}@{version}": identity
            for record in self.records.values()
            for version, identity in record.identities.items()
        }

    def after(self, head: str, changed: Mapping[str, Published], records: Mapping[str, DecisionRecord]) -> Ledger:
        """Return the ledger at the next head."""
        return replace(self, head=head, published={**self.published, **changed}, records=records)


def read_ledger(head: str | None, releases: Iterable[tuple[str, bytes]], decisions: Mapping[str, bytes]) -> Ledger:
    """Read everything from a fleet repository's files.

    Args:
        head: the commit they are of.
        releases: (cluster, bytes of release.json).
        decisions: path → bytes of everything below decisions/.

    Raises:
        Malformed: a file is not what it should be; the head's signature was checked before, so it is our own fault.
    """
    found = {cluster: published(decode_release(data, f"{cluster}/release.json")) for cluster, data in releases}
    by_name: dict[str, dict[str, bytes]] = {}
    for path, data in decisions.items():
        by_name.setdefault(path.split("/")[1], {})[path] = data
    return Ledger(head, found, {name: decode_all(name, files) for name, files in sorted(by_name.items())})
