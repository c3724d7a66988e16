"""Deciding without a hub: publishing once, as a job does, and looking at what publishing would change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from agent.wire.errors import EdgeferryError
from agent.wire.report import Report
from agent.wire.signature import SigningKey
from gitops import kinds
from gitops.artifacts import ArtifactStore
from gitops.fact_checks import admitted
from gitops.hub import Hub, Step, World
from gitops.ingest import Ingest
from gitops.intake import Intake, Source
from gitops.keys import Keyring
from gitops.lfs import open_large
from gitops.opening import FleetHome, MainSource, assembled, open_repository, revisions, source_opener
from gitops.plan_text import plan_held
from gitops.planning import Plan, plan_of_step
from gitops.provenance import current_trust
from gitops.render.entries import Rendered
from gitops.render.kept import from_overlay
from gitops.report_refs import Heard, fetch_reports, hear
from gitops.snapshot import NO_FACTS, Snapshot
from gitops.source import Sources

NOTHING_HEARD: Final = Heard({}, ())


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
        opened = assembled(keyring, repository, sources, ArtifactStore.open(artifacts))
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
