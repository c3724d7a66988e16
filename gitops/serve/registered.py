"""Who is registered, in memory: what a poll asks must not cost a query."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from gitops.store import Identity, Store


@dataclass(frozen=True, slots=True)
class Registered:
    """All registrations as of one moment.

    Attributes:
        mark: of the store at that moment.
        by_name: cluster → identity.
        by_credential: sha256 of the credential → identity.
    """

    mark: int = -1
    by_name: Mapping[str, Identity] = field(default_factory=dict)
    by_credential: Mapping[bytes, Identity] = field(default_factory=dict)

    def with_certificate(self, name: str, key: str) -> str | None:
        """Return the cluster that a client certificate proves: its name registered with its key."""
        found = self.by_name.get(name)
        return name if found is not None and hmac.compare_digest(found.key, key) else None

    def with_credential(self, credential_sha256: bytes, claimed: str | None) -> str | None:
        """Return the cluster that a credential belongs to.

        Args:
            credential_sha256: of what was shown.
            claimed: the name that came with it; None where none did.
        """
        found = self.by_credential.get(credential_sha256)
        return None if found is None or (claimed is not None and claimed != found.name) else found.name

    def changed_since(self, earlier: Registered) -> frozenset[str]:
        """Return the clusters whose registration is another one than it was, or is gone."""
        names = self.by_name.keys() | earlier.by_name.keys()
        return frozenset(name for name in names if self.by_name.get(name) != earlier.by_name.get(name))


class Roll:
    """The registrations of a store, read again only when they changed. Safe for several threads.

    Attributes:
        recent: as of the last look, which costs nothing to ask.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.recent = Registered()

    def newest(self) -> Registered:
        """Return who is registered now: one small query while nothing changed."""
        mark = self._store.registrations_mark()  # first: what changes meanwhile is read again next time
        if mark != self.recent.mark:
            everybody = self._store.identities()
            self.recent = Registered(
                mark, {one.name: one for one in everybody}, {one.credential_sha256: one for one in everybody}
            )
        return self.recent
