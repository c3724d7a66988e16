"""Looking at the site: what the platform sees of every entry that may be there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.actions import Observed, Platform, Staged
from agent.journal import EntryState
from agent.staging import SystemFault


def observe(platform: Platform, states: Iterable[EntryState], staged: Mapping[str, Staged]) -> Observed:
    """Return what is there.

    Args:
        platform: that looks.
        states: the journal.
        staged: entry digest → staged.

    Raises:
        Retry, Wait, Stop: the platform cannot look now; then nothing is known, and nothing is done.
    """
    digests = sorted({digest for state in states for digest in state.digests})
    try:
        return platform.observe([staged[digest] for digest in digests if digest in staged])
    except OSError as error:
        raise SystemFault(error.strerror or str(error), where=str(error.filename or platform.name)) from error
