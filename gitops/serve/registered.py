"""Who is registered, in memory: what a poll asks must not cost a query."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from agent.wire.access import MOST_CHARACTERS, Access, read_access
from agent.wire.errors import EdgeferryError
from gitops.store import Identity, Store

_MOST_KNOWN: Final = 50_000


@dataclass(frozen=True, slots=True)
class Tokens:
    """Access tokens that were proven lately, so that each costs one check of a signature.

    Attributes:
        fleet: that they must be of.
        now: clock, UTC.
    """

    fleet: str
    now: Callable[[], datetime]
    _known: dict[str, tuple[str, Access]] = field(default_factory=dict)

    def cluster(self, token: str, key_of: Callable[[str], str | None]) -> str | None:
        """Return the cluster that a token proves; None where it proves none."""
        now = self.now().timestamp()
        known = self._known.get(token)
        if known is not None and now < known[1].until and key_of(known[1].cluster) == known[0]:
            return known[1].cluster
        self._known.pop(token, None)
        if not token or len(token) > MOST_CHARACTERS:
            return None
        try:
            access = read_access(token, key_of, self.fleet, now)
        except EdgeferryError:
            return None
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[token] = (key_of(access.cluster) or "", access)
        return access.cluster


@dataclass(frozen=True, slots=True)
class Registered:
    """All registrations as of one moment.

    Attributes:
        tokens: checks what clusters show.
        mark: of the store at that moment.
        by_name: cluster → identity.
    """

    tokens: Tokens
    mark: int = -1
    by_name: Mapping[str, Identity] = field(default_factory=dict)

    def with_certificate(self, name: str, key: str, until: float) -> str | None:
        """Return the cluster that a client certificate proves: its name registered with its key, and not expired."""
        found = self.by_name.get(name)
        proven = found is not None and hmac.compare_digest(found.key, key)
        return name if proven and self.tokens.now().timestamp() <= until else None

    def with_token(self, token: str, claimed: str | None) -> str | None:
        """Return the cluster that an access token proves.

        Args:
            token: what was shown.
            claimed: the name that came with it; None where none did.
        """
        found = self.tokens.cluster(token, self._key)
        return None if claimed is not None and claimed != found else found

    def changed_since(self, earlier: Registered) -> frozenset[str]:
        """Return the clusters whose registration is another one than it was, or is gone."""
        names = self.by_name.keys() | earlier.by_name.keys()
        return frozenset(name for name in names if self.by_name.get(name) != earlier.by_name.get(name))

    def _key(self, cluster: str) -> str | None:
        found = self.by_name.get(cluster)
        return None if found is None else found.key


class Roll:
    """The registrations of a store, read again only when they changed. Safe for several threads.

    Args:
        store: that has them.
        fleet: whose access tokens count.
        now: clock, UTC.

    Attributes:
        recent: as of the last look, which costs nothing to ask.
    """

    def __init__(self, store: Store, fleet: str, now: Callable[[], datetime]) -> None:
        self._store = store
        self.recent = Registered(Tokens(fleet, now))

    def newest(self) -> Registered:
        """Return who is registered now: one small query while nothing changed."""
        mark = self._store.registrations_mark()  # first: what changes meanwhile is read again next time
        if mark != self.recent.mark:
            everybody = self._store.identities()
            self.recent = Registered(self.recent.tokens, mark, {one.name: one for one in everybody})
        return self.recent
