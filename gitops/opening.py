"""Putting a fleet together from its directories: keys, fleet repository, sources, artifact store, hub."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from agent.wire.errors import Retry, Stop
from agent.wire.signature import SigningKey
from agent.wire.trust import Trust, paths
from gitops import kinds
from gitops.artifacts import ArtifactStore
from gitops.decisions import source_commits
from gitops.fleet import FleetRepository
from gitops.folder import read_folder
from gitops.git_cli import local_path
from gitops.hub import Hub
from gitops.ingest import Ingest
from gitops.intake import MAIN, Intake, Source
from gitops.keys import Keyring, first_trust
from gitops.lfs import open_large
from gitops.provenance import verify_head
from gitops.remote import GitHost
from gitops.source import SourceMirror, Sources
from gitops.state_dir import StateDir
from gitops.tree import Tree

_log: Final = logging.getLogger("edgeferry.fleet")


class FleetLost(Stop):
    """The fleet repository is empty, and cannot be begun anew: its sites trust keys that only its past can name."""

    code = "EF3022"


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
class FleetHome:
    """Where the fleet repository is.

    Attributes:
        url: a path, or anything `git push` takes; empty for the one in the hub's state.
        branches: keep a branch for every cluster on a Git host, too.
    """

    url: str
    branches: bool = False


EMBEDDED: Final = FleetHome("")


@dataclass(frozen=True, slots=True)
class Opened:
    """One fleet, ready to step.

    Attributes:
        trust_files: path → bytes of the trust in force.
    """

    hub: Hub
    keyring: Keyring
    repository: FleetRepository
    artifacts: ArtifactStore
    sources: Sources
    trust_files: dict[str, bytes]


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


@dataclass(frozen=True, slots=True)
class Revision:
    """One commit of a repository as a source."""

    mirror: SourceMirror
    revision: str

    def newest(self) -> Tree:
        """Return the tree of the commit."""
        return self.mirror.at(self.revision)

    def at(self, revision: str) -> Tree:
        """Return the tree of an earlier commit."""
        return self.mirror.at(revision)


def open_fleet(state: StateDir, source: MainSource, fleet: FleetHome = EMBEDDED) -> Opened:
    """Open a hub's fleet; what is missing is made.

    Args:
        state: directories of the hub.
        source: the first model repository.
        fleet: where the fleet repository is.

    Raises:
        EdgeferryError: the keys, or the fleet repository, cannot be used.
    """
    keyring = Keyring.open(state.keys, create=True)
    repository = open_repository(fleet, state.fleet, create=True, keyring=keyring)
    sources = Sources(state.sources, source.url, branch=source.branch, path=source.path)
    artifacts = ArtifactStore.open(state.artifacts)
    return assembled(keyring, repository, sources, artifacts)


def source_opener(folder: str, revision: str | None, cache: Path) -> Callable[[str, kinds.Source | None], Source]:
    """Return what opens the sources for a look from a person's machine.

    Args:
        folder: the main repository: a working folder, a bare repository, or a URL.
        revision: branch, tag or commit of it; None for what stands in the folder, or a bare one's main branch.
        cache: directory for mirrors of the other sources.
    """
    path = local_path(folder)
    is_worktree = path is not None and not (path / "HEAD").is_file()
    if revision is None and path is not None and is_worktree:
        worktree = Worktree(path)
        sources = Sources(cache, folder)
        return lambda name, document: worktree if name == MAIN else sources(name, document)
    main = SourceMirror(MAIN, folder, cache)
    sources = Sources(cache, folder)
    wanted = Revision(main, revision or "main")
    return lambda name, document: wanted if name == MAIN else sources(name, document)


def assembled(keyring: Keyring, repository: FleetRepository, sources: Sources, artifacts: ArtifactStore) -> Opened:
    """Return the fleet of these parts.

    Raises:
        FleetLost: the repository is empty, and was not always.
        EdgeferryError: its head is no publisher's.
    """
    head = repository.head
    pinned = keyring.pinned()
    if head is None and pinned is not None and pinned.number > 1:
        raise FleetLost(
            f"the repository is empty, and this publisher has published under trust {pinned.number}",
            where=str(repository.path),
            do="restore the fleet repository from any clone of it: sites do not go back to trust 1",
        )
    if head is None:
        number, key, files = 1, keyring.release, first_trust(keyring, keyring.model_keys())
        genesis, known = files, {}
    else:
        number, key = _verified(repository, keyring)
        files = {path: repository.read(path) or b"" for path in paths(number)}
        genesis, known = {}, revisions(repository)
    hub = Hub(
        intake=Intake(sources, known),
        repository=repository,
        key=key,
        trust=number,
        fleet_id=keyring.fleet_id,
        pack=Ingest(artifacts, artifacts.root / "packed", open_large),
        verify=lambda: _verified(repository, keyring),
        genesis=genesis,
    )
    return Opened(hub, keyring, repository, artifacts, sources, files)


def open_repository(fleet: FleetHome, mirror: Path, *, create: bool, keyring: Keyring | None = None) -> FleetRepository:
    """Open a fleet repository on this machine where it is, one on a Git host through a mirror.

    A host that does not answer is no fault where the mirror has the fleet already: what was published is served.

    Args:
        fleet: where it is.
        mirror: where the mirror of a Git host stands.
        create: make one that is on this machine and not there yet.
        keyring: of a publisher: its mirror follows only what a publisher signed. None for a look.
    """
    folder = local_path(fleet.url) if fleet.url else mirror
    if folder is not None:
        return FleetRepository.open(folder, create=create)
    accept = None if keyring is None else partial(_accept, keyring)
    host = GitHost(fleet.url, cluster_refs=fleet.branches, accept=accept)
    repository = FleetRepository.open(mirror, create=True, upstream=host)
    try:
        repository.fetch()
    except Retry as error:
        if repository.head is None:
            raise
        _log.warning("%s", error)
    return repository


def _verified(repository: FleetRepository, keyring: Keyring) -> tuple[int, SigningKey]:
    trust = verify_head(repository, keyring)
    key = keyring.release_key(trust)
    assert key is not None  # the head was verified
    return trust.number, key


def _accept(keyring: Keyring, repository: FleetRepository, head: str) -> Trust:
    return verify_head(repository, keyring, head)


def revisions(repository: FleetRepository) -> dict[str, str]:
    """Return source name → commit of the last publication."""
    head = repository.head
    return {} if head is None else source_commits(repository.commit(head).decode(errors="replace"))
