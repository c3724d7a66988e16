"""Putting a fleet together from its directories: keys, fleet repository, sources, artifact store, hub."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from agent.wire.errors import EdgeferryError, Retry, Stop
from agent.wire.report import Report
from agent.wire.signature import SigningKey
from agent.wire.trust import Trust, paths
from gitops import kinds
from gitops.artifacts import ArtifactStore
from gitops.decisions import source_commits
from gitops.fact_checks import admitted
from gitops.fleet import FleetRepository
from gitops.folder import read_folder
from gitops.git_cli import local_path
from gitops.hub import Hub, Step, World
from gitops.ingest import Ingest
from gitops.intake import MAIN, Intake, Source
from gitops.keys import Keyring, first_trust
from gitops.lfs import open_large
from gitops.plan_text import plan_held
from gitops.planning import Plan, plan_of_step
from gitops.provenance import current_trust, verify_head
from gitops.remote import GitHost
from gitops.render.entries import Rendered
from gitops.render.kept import from_overlay
from gitops.report_refs import Heard, fetch_reports, hear
from gitops.snapshot import NO_FACTS, Snapshot
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
NOTHING_HEARD: Final = Heard({}, ())


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
class Publication:
    """What came of publishing without a hub.

    Attributes:
        head: the new one; None where there was nothing to publish.
        heard: reports that were taken into account, and those that were refused.
    """

    head: str | None
    step: Step
    heard: Heard


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
    return _opened(keyring, repository, sources, artifacts)


def publish_once(
    source: MainSource,
    fleet: FleetHome,
    keys: Path,
    artifacts: Path,
    now: datetime,
    reports: str = "",
    facts: Snapshot = NO_FACTS,
) -> Publication:
    """Decide once and publish.

    Args:
        source: the model repository.
        fleet: the fleet repository, made where it is a path and absent.
        keys: directory of the publisher's keys.
        artifacts: directory of the artifact store.
        now: time of the step, UTC, to the second.
        reports: URL of the report repository; empty for none.
        facts: of the clusters, besides those in their reports.

    Raises:
        EdgeferryError: nothing was published.
    """
    with TemporaryDirectory(prefix="edgeferry-publish-") as work:
        keyring = Keyring.open(keys, create=True)
        repository = open_repository(fleet, Path(work, "fleet.git"), create=True, keyring=keyring)
        sources = Sources(Path(work, "sources"), source.url, branch=source.branch, path=source.path)
        opened = _opened(keyring, repository, sources, ArtifactStore.open(artifacts))
        heard = NOTHING_HEARD
        if reports:
            letters = fetch_reports(reports, Path(work, "reports.git"))
            heard = hear(letters, _keys(sources, revisions(repository)), keyring.fleet_id)
        step = opened.hub.step(world_of(heard, now, facts))
        return Publication(opened.hub.publish(step), step, heard)


def plan_of(
    folder: Path,
    fleet: str,
    revision: str | None,
    reports: str = "",
    now: datetime | None = None,
    facts: Snapshot = NO_FACTS,
) -> Step:
    """Return the step that publishing would take; nothing changes.

    Args:
        folder: model repository on this machine.
        fleet: path or URL of the fleet repository.
        revision: branch, tag or commit; None for what stands in the folder.
        reports: URL of the report repository; empty for none.
        now: time of the step; None for the clock's.
        facts: of the clusters, besides those in their reports.

    Raises:
        EdgeferryError: the documents have faults, or the fleet repository cannot be read.
    """
    with _looking(folder, fleet, revision, reports) as (hub, heard):
        return hub.step(world_of(heard, now or datetime.now(UTC).replace(microsecond=0), facts))


def full_plan_of(
    folder: Path,
    fleet: str,
    revision: str | None,
    reports: str = "",
    now: datetime | None = None,
    facts: Snapshot = NO_FACTS,
) -> Plan:
    """Return where publishing would lead in the end, and what it costs; arguments and faults as of ``plan_of``."""
    with _looking(folder, fleet, revision, reports) as (hub, heard):
        step = hub.step(world_of(heard, now or datetime.now(UTC).replace(microsecond=0), facts))
        known: dict[str, Rendered | None] = {}

        def before(digest: str, cluster: str, kind: str, name: str) -> Rendered | None:
            if digest not in known:
                known[digest] = from_overlay(hub.repository.overlay(cluster), kind, name)
            return known[digest]

        free = {cluster: _free(report) for cluster, report in heard.reports.items()}
        return plan_of_step(
            step, hub.published, before, {n: one for n, one in free.items() if one is not None}, plan_held(step)
        )


@contextmanager
def _looking(folder: Path, fleet: str, revision: str | None, reports: str) -> Iterator[tuple[Hub, Heard]]:
    """Give a hub that may not publish, and what clusters said."""
    with TemporaryDirectory(prefix="edgeferry-plan-") as work:
        repository = open_repository(FleetHome(fleet), Path(work, "fleet.git"), create=False)
        head = repository.head
        trust = None if head is None else current_trust(repository, None)[0]
        store = ArtifactStore.open(Path(work, "artifacts"))
        opener, known = source_opener(str(folder), revision, Path(work, "sources")), revisions(repository)
        heard = NOTHING_HEARD
        if reports and trust is not None:
            heard = hear(fetch_reports(reports, Path(work, "reports.git")), _keys(opener, known), trust.fleet)
        key = SigningKey.generate()
        hub = Hub(
            intake=Intake(opener, known),
            repository=repository,
            key=key,
            trust=1 if trust is None else trust.number,
            fleet_id="" if trust is None else trust.fleet,
            pack=Ingest(store, Path(work, "packed"), open_large),
            verify=lambda: (1 if trust is None else trust.number, key),
        )
        yield hub, heard


def _free(report: Report) -> int | None:
    """Return the free bytes of a cluster's disk by its report; None where it does not say."""
    for fact in report.facts:
        if fact.name == "disk.free" and fact.value.isascii() and fact.value.isdecimal():
            return int(fact.value)
    return None


def world_of(heard: Heard, now: datetime, snapshot: Snapshot = NO_FACTS) -> World:
    """Return what the clusters' reports say, as a step takes it; nobody else saw when they were sent.

    Args:
        heard: the reports; their facts come before those of the snapshot.
        now: time of the step.
        snapshot: facts from elsewhere.
    """
    facts = {name: dict(known) for name, known in snapshot.clusters.items()}
    for cluster, report in heard.reports.items():
        good, _ = admitted(report.facts, now)
        facts.setdefault(cluster, {}).update((fact.name, (fact.value, fact.measured_at)) for fact in good)
    sent = {cluster: min(report.sent_at, now) for cluster, report in heard.reports.items()}
    reports = {cluster: (report, sent[cluster]) for cluster, report in heard.reports.items()}
    return World(now, facts, highest=heard.highest, reports=reports, seen=sent)


def _keys(open_source: Callable[[str, kinds.Source | None], Source], known: Mapping[str, str]) -> dict[str, str]:
    """Return cluster → public key of its agent, as the documents name it; nothing where they have faults."""
    try:
        catalog = Intake(open_source, known).take({}, lambda _: (None, ())).catalog
    except EdgeferryError:
        return {}  # the step says which
    return {name: one.spec.key for name, one in catalog.clusters.items() if one.spec.key is not None}


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


def _opened(keyring: Keyring, repository: FleetRepository, sources: Sources, artifacts: ArtifactStore) -> Opened:
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
