"""Putting a fleet together from its directories: keys, fleet repository, sources, artifact store, hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.wire.signature import SigningKey
from agent.wire.trust import Trust
from gitops import kinds
from gitops.artifacts import ArtifactStore
from gitops.fleet import FleetRepository, current_trust, verify_head
from gitops.folder import read_folder
from gitops.hub import Hub, Step, World
from gitops.ingest import Ingest
from gitops.intake import Intake, Source
from gitops.keys import Keyring, first_trust
from gitops.lfs import open_large
from gitops.source import SourceMirror
from gitops.tree import Tree


@dataclass(frozen=True, slots=True)
class MainSource:
    """Where the first model repository is.

    Attributes:
        url: a path, or anything `git clone` takes.
        branch: that is watched.
        path: directory within it that is read.
    """

    url: str
    branch: str = "main"
    path: str = "."


@dataclass(frozen=True, slots=True)
class Opened:
    """One fleet, ready to step."""

    hub: Hub
    keyring: Keyring
    repository: FleetRepository
    artifacts: ArtifactStore


@dataclass(frozen=True, slots=True)
class Worktree:
    """A folder as a source: what stands in it now."""

    folder: Path

    def newest(self) -> Tree:
        """Return what stands in the folder."""
        return read_folder(self.folder)

    def at(self, revision: str) -> Tree:
        """Return what stands in the folder: it has no past."""
        del revision
        return self.newest()
