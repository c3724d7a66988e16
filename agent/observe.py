"""Looking at the site: what the platform sees of every entry that may be there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.actions import Observed, Onlooker, Platform, Staged
from agent.journal import EntryState
from agent.staging import SystemFault


def observe(
    platform: Platform, states: Iterable[EntryState], staged: Mapping[str, Staged], *, only_look: bool = False
) -> Observed:
    """Return what is there.

    Args:
        platform: that looks.
        states: the journal.
        staged: entry digest → staged.
        only_look: leave everything as it is, also what the platform tends by itself.

    Raises:
        Retry, Wait, Stop: the platform cannot look now; then nothing is known, and nothing is done.
    """
    digests = sorted({digest for state in states for digest in state.digests})
    known = [staged[digest] for digest in digests if digest in staged]
    try:
        if only_look and isinstance(platform, Onlooker):
            return platform.look(known)
        return platform.observe(known)
    except OSError as error:
        raise SystemFault(error.strerror or str(error), where=str(error.filename or platform.name)) from error
