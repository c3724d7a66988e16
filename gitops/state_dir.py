"""Where a hub keeps its things: one directory, readable by its user alone."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StateDir:
    """The paths of one hub.

    Attributes:
        root: the state directory itself.
    """

    root: Path

    @property
    def database(self) -> Path:
        """Registrations, tokens, reports, facts, events, audit."""
        return self.root / "hub.sqlite"

    @property
    def keys(self) -> Path:
        """Release key, root key, fleet id: secrets."""
        return self.root / "keys"

    @property
    def own_certificate(self) -> Path:
        """The hub's certificate, where its own authority signs it; absent where another does, or without TLS."""
        return self.keys / "server.pem"

    @property
    def own_key(self) -> Path:
        """The key of ``own_certificate``."""
        return self.keys / "server.key"

    @property
    def fleet(self) -> Path:
        """The fleet repository, bare."""
        return self.root / "fleet.git"

    @property
    def sources(self) -> Path:
        """Mirrors of the model repositories."""
        return self.root / "sources"

    @property
    def artifacts(self) -> Path:
        """The embedded OCI store."""
        return self.root / "artifacts"

    @property
    def operator_token(self) -> Path:
        """What people on this machine show to the hub: a secret."""
        return self.root / "operator.token"

    def make(self) -> None:
        """Make the directory with mode 0700 where it is absent; a present one keeps its mode."""
        if not self.root.is_dir():
            self.root.mkdir(parents=True, mode=0o700)


def read_operator_token(state: StateDir) -> str:
    """Return the operator token; it is made, mode 0600, on the first call."""
    state.make()
    path = state.operator_token
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    if not path.exists():
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:  # noqa: PTH123  # a descriptor, so that the mode is right from the start
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(beside, path)
        except FileExistsError:
            pass  # another process was first: its token counts
        finally:
            beside.unlink()
    return path.read_text().strip()
