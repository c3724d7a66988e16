"""What one step changes in the fleet repository, and what that means for people. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from agent.wire.release import Release, Retire
from gitops.catalog_types import Catalog
from gitops.decisions import (
    DecisionRecord,
    Placed,
    Refused,
    encode_head,
    encode_shard,
    head_path,
    sample,
    shard,
    shard_path,
)
from gitops.render.entries import Rendered
from gitops.render.groups import Group
from gitops.render.overlay import PLAIN, Draft, Manner, ObjectClash, Stamp, draft
from placement.types import Decision

KEPT: Final = timedelta(days=90)
"""The last release of a cluster whose document was deleted stands so long."""

Entries = Mapping[tuple[str, str], tuple[str, str]]
"""(kind, name) → (version, entry digest)."""


@dataclass(frozen=True, slots=True)
class Published:
    """One cluster's release as it stands in the fleet repository.

    Attributes:
        key: fingerprint of the agent's key that it was made for; empty for none.
        retired_at: when the cluster's document was found deleted; None while it is there.
    """

    sequence: int
    content: str
    key: str
    entries: Entries
    retired_at: datetime | None = None


@dataclass(frozen=True, slots=True, order=True)
class Move:
    """One entry of one cluster that comes, goes or changes. Empty versions stand for "not there"."""

    cluster: str
    kind: str
    name: str
    before: str
    after: str
    before_digest: str
    after_digest: str


@dataclass(frozen=True, slots=True)
class Edges:
    """What the step knows of the clusters besides the catalog.

    Attributes:
        keys: cluster → fingerprint of its agent's key, where one is known; else the published one stays.
        highest: cluster → highest sequence that it ever reported.
        ahead: clusters that would not take the release which is published, as they have a later one, or another of its
            sequence: an older fleet repository was restored. They get it once more, under a higher sequence.
    """

    keys: Mapping[str, str]
    highest: Mapping[str, int]
    ahead: Collection[str] = frozenset()

    def key(self, cluster: str, before: Mapping[str, Published]) -> str:
        """Return the fingerprint for a cluster's release; empty for none."""
        known = self.keys.get(cluster)
        if known is not None:
            return known
        published = before.get(cluster)
        return "" if published is None else published.key


def ahead(
    published: Mapping[str, Published], highest: Mapping[str, int], running: Mapping[str, tuple[int, str]]
) -> frozenset[str]:
    """Return the clusters that are ahead of what is published for them.

    Args:
        published: cluster → its release in the fleet repository.
        highest: cluster → highest sequence that it ever reported.
        running: cluster → sequence and content of the release that it reported last.
    """
    later = {name for name, one in published.items() if highest.get(name, 0) > one.sequence}
    other = {
        name
        for name, (sequence, content) in running.items()
        if name in published and sequence == published[name].sequence and content != published[name].content
    }
    return frozenset(later | other)


def published(release: Release) -> Published:
    """Return what later steps compare with."""
    entries: Entries = {(one.kind, one.name): (one.version, one.digest) for one in release.entries}
    retired_at = release.published_at if release.retire else None
    return Published(release.sequence, release.content, release.cluster_key, entries, retired_at)


def drafts(
    wanted: Mapping[str, Sequence[Rendered]],
    before: Mapping[str, Published],
    edges: Edges,
    stamp: Stamp,
    kept: Collection[str],
    settled: Callable[[str, Sequence[Rendered], str], bool],
    manners: Mapping[str, Manner],
    retire: Retire = "keep",
) -> tuple[list[Draft], list[ObjectClash]]:
    """Return the overlays whose content differs from what is published, and those that clash within themselves.

    Args:
        wanted: cluster → its entries, for every cluster of the catalog.
        before: cluster → its release in the fleet repository.
        edges: registered keys and reported sequences.
        stamp: what all releases of the step share.
        kept: clusters whose release stays as it is.
        settled: tells that this cluster with these entries and this key was found unchanged in the last step, so
            that it need not be rendered to be compared.
        manners: cluster → how it is to go about its release, where that is not plain.
        retire: what clusters that left the catalog do with what they run.
    """
    found: list[Draft] = []
    clashes: list[ObjectClash] = []
    for name, entries in wanted.items():
        key = edges.key(name, before)
        if name in kept or (name not in edges.ahead and settled(name, entries, key)):
            continue
        try:
            one = draft(name, entries, stamp, _sequence(name, before, edges), key, manner=manners.get(name, PLAIN))
        except ObjectClash as clash:
            clashes.append(clash)
            continue
        if name not in before or before[name].content != one.content or name in edges.ahead:
            found.append(one)
    for name in sorted(before.keys() - wanted.keys()):
        if before[name].retired_at is not None:
            continue
        one = draft(name, (), stamp, _sequence(name, before, edges), edges.key(name, before), retire=retire)
        found.append(one)
    return found, clashes


def expired(wanted: Collection[str], before: Mapping[str, Published], now: datetime) -> frozenset[str]:
    """Return the clusters without a document whose last release has stood long enough."""
    return frozenset(
        name
        for name, one in before.items()
        if one.retired_at is not None and name not in wanted and now - one.retired_at >= KEPT
    )


def releases(
    changed: Sequence[Draft],
    wanted: Mapping[str, Sequence[Rendered]],
    before: Mapping[str, Published],
    edges: Edges,
    now: datetime,
) -> dict[str, Published]:
    """Return the new releases of the changed clusters."""
    return {
        one.cluster: Published(
            one.sequence,
            one.content,
            edges.key(one.cluster, before),
            _entries(wanted.get(one.cluster, ())),
            None if one.cluster in wanted else now,
        )
        for one in changed
    }


def moves(
    changed: Sequence[Draft], wanted: Mapping[str, Sequence[Rendered]], before: Mapping[str, Published]
) -> list[Move]:
    """Return what the changed overlays mean, entry by entry, sorted."""
    found = []
    for one in changed:
        old = before[one.cluster].entries if one.cluster in before else {}
        new = _entries(wanted.get(one.cluster, ()))
        for kind, name in old.keys() | new.keys():
            was, becomes = old.get((kind, name), ("", "")), new.get((kind, name), ("", ""))
            if was != becomes:
                found.append(Move(one.cluster, kind, name, was[0], becomes[0], was[1], becomes[1]))
    return sorted(found)


def records(
    catalog: Catalog, decisions: Mapping[str, Decision], found: Sequence[Group], before: Mapping[str, DecisionRecord]
) -> dict[str, DecisionRecord]:
    """Return every decision as it is to stand in the fleet repository."""
    chosen: dict[str, dict[str, Placed]] = {name: {} for name in decisions}
    for group in found:
        placed = Placed(group.rendered.entry.version, group.rendered.entry.digest)
        chosen[group.decision].update(dict.fromkeys(group.clusters, placed))
    for name, decision in decisions.items():
        if len(chosen[name]) < len(decision.chosen):
            chosen[name] = dict.fromkeys(decision.chosen, Placed("", "")) | chosen[name]
        _note(chosen[name], decision)
    return {
        name: DecisionRecord(
            name=name,
            kind=decision.policy.kind,
            subject=decision.policy.subject,
            version=decision.version,
            short=decision.short,
            fault=decision.fault,
            refused=tuple(Refused(r.code, r.text, len(r.clusters), sample(r.clusters)) for r in decision.refused),
            identities=_identities(catalog, decision, before.get(name)),
            chosen=chosen[name],
        )
        for name, decision in decisions.items()
    }


def _note(chosen: dict[str, Placed], decision: Decision) -> None:
    """Note what the next decision needs to know of single clusters."""
    for variant, clusters in decision.variants.items():
        if variant:
            for cluster in clusters:
                chosen[cluster] = replace(chosen[cluster], variant=variant)
    for cluster, at in decision.contradicted.items():
        chosen[cluster] = replace(chosen[cluster], contradicted=at)
    for cluster in decision.arriving | decision.leaving:
        arriving, leaving = cluster in decision.arriving, cluster in decision.leaving
        chosen[cluster] = replace(chosen[cluster], arriving=arriving, leaving=leaving)


def record_files(after: Mapping[str, DecisionRecord], before: Mapping[str, DecisionRecord]) -> dict[str, bytes | None]:
    """Return path → bytes of the decision files that change; None for those that go."""
    files: dict[str, bytes | None] = {}
    for name in before.keys() - after.keys():
        files[head_path(name)] = None
        files.update((shard_path(name, part), None) for part in {shard(cluster) for cluster in before[name].chosen})
    for name, record in after.items():
        old = before.get(name)
        if old == record:
            continue
        head = encode_head(record)
        if old is None or encode_head(old) != head:
            files[head_path(name)] = head
        files.update(_shards(record, old))
    return files


def message(revisions: Mapping[str, str], happened: Sequence[Move], overlays: int, news: Sequence[str] = ()) -> str:
    """Return the fleet commit's message: what changes, why, and by which source commits.

    Args:
        revisions: source name → commit.
        happened: entry by entry.
        overlays: how many change.
        news: one sentence for everything that rollouts, guards and people's orders did; the first may become the title.
    """
    plural = "cluster" if overlays == 1 else "clusters"
    what = sorted({f"{move.kind} {move.name} {move.after or 'removed'}" for move in happened})
    title = f"Publish {overlays} {plural}: {', '.join(what[:3]) or 'decisions'}"
    if news and (news[0].startswith("Revert ") or not what):
        title = news[0]
    lines = [title[:72], ""]
    lines += [*news, ""] if news else []
    lines += [f"- {line}" for line in what] + ([""] if what else [])
    lines += [f"Source-Commit: {name}={commit}" for name, commit in sorted(revisions.items())]
    return "\n".join(lines) + "\n"


def _entries(rendered: Sequence[Rendered]) -> Entries:
    return {(one.entry.kind, one.entry.name): (one.entry.version, one.entry.digest) for one in rendered}


def _sequence(name: str, before: Mapping[str, Published], edges: Edges) -> int:
    last = before[name].sequence if name in before else 0
    return max(last, edges.highest.get(name, 0)) + 1


def _identities(catalog: Catalog, decision: Decision, before: DecisionRecord | None) -> dict[str, str]:
    kind, subject = decision.policy.kind, decision.policy.subject
    known = dict(before.identities) if before is not None and (before.kind, before.subject) == (kind, subject) else {}
    if decision.version:
        if kind == "model":
            known[decision.version] = catalog.models[subject].versions[decision.version].identity
        else:
            known[decision.version] = catalog.workloads[subject].versions[decision.version].identity
    return known


def _shards(record: DecisionRecord, old: DecisionRecord | None) -> dict[str, bytes | None]:
    was = {} if old is None else old.chosen
    differing = {name for name, one in record.chosen.items() if was.get(name) != one} | (
        was.keys() - record.chosen.keys()
    )
    parts: dict[str, dict[str, Placed]] = {shard(name): {} for name in differing}
    for name, one in record.chosen.items():
        part = parts.get(shard(name))
        if part is not None:
            part[name] = one
    return {shard_path(record.name, part): encode_shard(chosen) if chosen else None for part, chosen in parts.items()}
