"""Charts on a cluster: Helm makes the release, and its objects are then applied as ours.

So everything that holds for objects of ours holds for a chart's: what somebody else has is not taken, drift is seen and
put right, health is judged, and nothing is left behind (docs/adr/0014-helm-at-the-edge.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.actions import Staged
from agent.platforms.helm import Helm
from agent.platforms.kubernetes_apply import Maker, Target, resolve
from agent.platforms.kubernetes_errors import NamespaceMissing, NothingToRun
from agent.platforms.kubernetes_inventory import Record, make_namespace
from agent.platforms.kubernetes_objects import Json, Resource, Wanted, read_text
from agent.wire.chart import MODEL_VALUES, helm_values
from agent.wire.errors import Stop
from agent.wire.release import Entry

SECRETS: Final = Resource("v1", "Secret", "secrets", True)
AGENT: Final = "edgeferry.dev/agent"
ENTRY: Final = "edgeferry.dev/entry"
"""Labels of a release: whose it is, and of which entry. Helm hands them on to every revision."""

_NAME: Final = "meta.helm.sh/release-name"
_NAMESPACE: Final = "meta.helm.sh/release-namespace"
_ENTRY_DIGITS: Final = 40


class ForeignRelease(Stop):
    """A Helm release of the same name is there, and it is not ours."""

    code = "EF4303"


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of a release, as Helm's Secret says.

    Attributes:
        secret: name of the Secret; ``uid`` is the Secret's.
        status: ``deployed``, ``superseded``, ``failed``, ``pending-install``, …
        agent, entry: our labels; empty for none.
    """

    number: int
    status: str
    secret: str
    uid: str
    agent: str = ""
    entry: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A chart's objects, ready to be put on the cluster.

    Attributes:
        objects: as they are to be applied.
        maker: has Helm make them first, where it must.
        release: name of the release.
    """

    objects: list[Wanted]
    maker: Maker
    release: str


def prepare(target: Target, helm: Helm, staged: Staged, models: str, record: Record | None) -> Prepared:
    """Find out what a chart's release must become; nothing of the cluster is changed but Helm's own leftovers.

    Args:
        target: the cluster.
        helm: to ask.
        staged: an entry with the delivery ``chart``.
        models: annotation of its pod templates; empty for none.
        record: what is on the cluster of the entry; None for nothing.

    Raises:
        ForeignRelease: somebody else's release has the name.
        EdgeferryError: see helm.py and kubernetes_errors.py.
    """
    entry, release = staged.entry, release_name(staged.entry)
    known = _settled(target, helm, entry)
    ours = {AGENT: target.inventory.agent, ENTRY: staged.digest.removeprefix("sha256:")[:_ENTRY_DIGITS]}
    if known and known[-1].agent != ours[AGENT]:
        raise ForeignRelease(
            "a release of that name is there already, and it is not this agent's",
            where=f"release {entry.namespace}/{release}",
            do="give ours another name, or uninstall theirs",
        )
    values = values_of(staged)
    chart = chart_folder(staged)
    made = _made_by(release, entry.namespace)
    last = known[-1] if known else None
    there = last is not None and last.status == "deployed" and last.entry == ours[ENTRY]
    if there and record is not None and last is not None and last.number == record.revision:
        objects = _objects(target, entry, helm.manifest(release, entry.namespace, last.number), models)
        return Prepared(objects, Maker(None, made), release)
    before = next((one for one in reversed(known) if (one.entry, one.status) == (ours[ENTRY], "superseded")), None)
    if before is not None and not there:
        objects = _objects(target, entry, helm.manifest(release, entry.namespace, before.number), models)
        make: Callable[[], None] = lambda: helm.rollback(release, entry.namespace, before.number)  # noqa: E731
        return Prepared(objects, Maker(make, made), release)
    rendered = helm.render(release, entry.namespace, chart, values)
    _objects(target, entry, rendered.hooks, "")
    objects = _objects(target, entry, rendered.manifest, models)
    if not objects:
        raise NothingToRun(
            "the chart makes no objects with these values", where=f"{entry.kind}/{entry.name}", do="mend its values"
        )

    def upgrade() -> None:
        why = f"{entry.kind} {entry.name} {entry.version}"
        try:
            helm.upgrade(release, entry.namespace, chart, values, ours, why)
        except NamespaceMissing as absent:
            make_namespace(target.api, absent.name)
            helm.upgrade(release, entry.namespace, chart, values, ours, why)

    return Prepared(objects, Maker(upgrade, made), release)


def newest(target: Target, entry: Entry) -> int:
    """Return the number of the newest revision of an entry's release; 0 for none."""
    known = _revisions(target, entry.namespace, release_name(entry))
    return known[-1].number if known else 0


def uninstall(target: Target, helm: Helm, record: Record) -> None:
    """Have Helm take an entry's release away, if it is still ours."""
    known = _revisions(target, record.namespace, record.release)
    if known and known[-1].agent == target.inventory.agent:
        helm.uninstall(record.release, record.namespace)


def release_name(entry: Entry) -> str:
    """Return the name of an entry's release."""
    return entry.release or entry.name


def chart_folder(staged: Staged) -> Path:
    """Return the folder with ``Chart.yaml`` in what is staged.

    Raises:
        NothingToRun: there is none.
    """
    places = [] if staged.chart is None else [staged.chart, *sorted(staged.chart.iterdir())]
    for place in places:
        if (place / "Chart.yaml").is_file():
            return place
    where = f"{staged.entry.kind}/{staged.entry.name}"
    raise NothingToRun("there is no Chart.yaml in its artifact", where=where, do="push a Helm chart")


def values_of(staged: Staged) -> dict[str, Any]:
    """Return the Helm values of a staged entry: its own, and where its model is staged if it has one."""
    entry = staged.entry
    values = helm_values(entry.values, f"{entry.kind}/{entry.name}")
    if staged.content is not None and staged.model is not None:
        file = "" if staged.model == staged.content else staged.model.relative_to(staged.content).as_posix()
        values[MODEL_VALUES] = {
            "model": {
                "name": entry.name,
                "version": entry.version,
                "hostPath": str(staged.content),
                "file": file,
                "digest": entry.artifacts[-1].digest,
            }
        }
    return values


def _settled(target: Target, helm: Helm, entry: Entry) -> list[Revision]:
    """Return the revisions, after what a killed Helm left half done was taken out of its way."""
    release = release_name(entry)
    known = _revisions(target, entry.namespace, release)
    while known and known[-1].agent == target.inventory.agent and _half_done(known[-1].status):
        last = known[-1]
        if last.status == "uninstalling":
            helm.uninstall(release, entry.namespace)
        else:
            with helm.alone(f"release {entry.namespace}/{release}"):
                target.api.delete(SECRETS, entry.namespace, last.secret, last.uid)
        known = _revisions(target, entry.namespace, release)
    return known


def _half_done(status: str) -> bool:
    return status.startswith("pending-") or status == "uninstalling"


def _revisions(target: Target, namespace: str, release: str) -> list[Revision]:
    found = []
    for page in target.api.pages(SECRETS, namespace, f"owner=helm,name={release}", whole=False):
        for item in page["items"]:
            metadata = item["metadata"]
            labels: Mapping[str, str] = metadata.get("labels") or {}
            number = labels.get("version", "")
            if number.isdecimal():
                found.append(
                    Revision(
                        int(number),
                        labels.get("status", ""),
                        metadata["name"],
                        metadata["uid"],
                        labels.get(AGENT, ""),
                        labels.get(ENTRY, ""),
                    )
                )
    return sorted(found, key=lambda one: one.number)


def _objects(target: Target, entry: Entry, manifest: str, models: str) -> list[Wanted]:
    where = f"chart of {entry.kind}/{entry.name}"
    raw = [_annotated(one, entry) for one in read_text(manifest.encode(), where)]
    return resolve(target, raw, entry.namespace, models)


def _annotated(one: Json, entry: Entry) -> Json:
    """Return an object with the marks that Helm gives it: also one that we make anew stays Helm's."""
    metadata = dict(one["metadata"])
    marks = {_NAME: release_name(entry), _NAMESPACE: entry.namespace}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **marks}
    return {**one, "metadata": metadata}


def _made_by(release: str, namespace: str) -> Callable[[Json], bool]:
    def made(live: Json) -> bool:
        annotations = live["metadata"].get("annotations") or {}
        return bool(annotations.get(_NAME) == release and annotations.get(_NAMESPACE) == namespace)

    return made
