"""Whether a model's signature lets a site switch to it: by the model keys of the trust in force. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from agent.wire.errors import EdgeferryError
from agent.wire.model_signature import NAME, REQUIREMENT, verify_model
from agent.wire.release import Entry
from agent.wire.trust import Trust


def signature_fault(entry: Entry, files: Mapping[str, bytes], trust: Trust) -> EdgeferryError | None:
    """Return why an entry may not be switched to; None where it may, or need not be signed.

    That the signature covers the very files is compared when they are staged: see agent/stage.py.

    Args:
        entry: of a verified release.
        files: path within the overlay → bytes, of this entry.
        trust: in force now: a key that it does not name any more signs nothing.
    """
    if REQUIREMENT not in entry.requires:
        return None
    where = f"{entry.directory}/{NAME}"
    try:
        verify_model(files.get(where, b""), trust.model_keys, where)
    except EdgeferryError as fault:
        return fault
    return None
