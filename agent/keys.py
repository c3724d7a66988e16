"""The agent's secrets on disk: its key, made here and never sent, and the credential that it was given."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from agent.durable import sync_directory
from agent.layout import CREDENTIAL, KEY
from agent.wire.errors import Stop
from agent.wire.signature import SigningKey


class NoAgentKey(Stop):
    """The agent's key is missing or unreadable."""

    code = "EF4034"


def agent_key(state: Path) -> SigningKey:
    """Return the key of a joined agent.

    Raises:
        NoAgentKey: there is none, or it cannot be read.
        Malformed: the file holds something else.
    """
    path = state / KEY
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NoAgentKey(
            f"no readable key: {error.strerror}", where=str(path), do="join again with a new token"
        ) from None
    return SigningKey.load(data, str(path))


def make_key(state: Path) -> SigningKey:
    """Return the agent's key, made now where there is none. An existing file is never written.

    Raises:
        Malformed: a file is there that is no usable key.
    """
    path = state / KEY
    if not path.exists():
        beside = state / f".{KEY}.{secrets.token_hex(4)}.new"
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(SigningKey.generate().dump())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(beside, path)  # unlike a rename, this fails where another process was quicker
            sync_directory(state)
        except FileExistsError:
            pass
        finally:
            beside.unlink()
    return agent_key(state)


def read_credential(state: Path) -> str:
    """Return the credential; empty where the agent has none."""
    try:
        return (state / CREDENTIAL).read_text().strip()
    except FileNotFoundError:
        return ""
