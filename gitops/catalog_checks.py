"""What the documents of all sources say against each other."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from agent.wire.chart import BadChartValue, helm_values
from gitops import faults, kinds, version_folders
from gitops.catalog_types import Catalog, CatalogModel, CatalogVersion
from gitops.documents import Located
from gitops.faults import Code, Fault
from gitops.policies import models_of, to_subject, to_workload_subject
from gitops.source_documents import SourceDocuments
from gitops.yaml_text import Place
from placement.types import Subject
from placement.versions import parse_version, parse_wish, resolve

T = TypeVar("T")
_WITH_FILES: Final = ("server", "file")
"""Deliveries of models whose files are staged at the site."""

_MANY: Final = 1000
"""Among more names than these the nearest one is not looked for: it would take longer than reading them."""

Elsewhere = Callable[[str, str], bool]
"""(kind, name) → may it stand in a source that was not read?"""


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checks look at.

    Attributes:
        catalog: put together, not checked yet.
        sources: by name.
        elsewhere: what is not looked for.
    """

    catalog: Catalog
    sources: Mapping[str, SourceDocuments]
    elsewhere: Elsewhere

    def missing(self, kind: str, name: str, found: Mapping[str, Any]) -> bool:
        """Tell whether a reference dangles: what has a fault of its own, or stands elsewhere, is not missed."""
        return name not in found and not self.spoilt(kind, name) and not self.elsewhere(kind, name)

    def spoilt(self, kind: str, name: str) -> bool:
        """Tell whether a document of that name has faults of its own."""
        return any((kind, name) in source.broken for source in self.sources.values())

    def every(self, kind: str) -> Iterator[tuple[SourceDocuments, str, Located]]:
        """Yield the documents of one kind with the source they are of."""
        for source in self.sources.values():
            for name, located in source.by_kind.get(kind, {}).items():
                yield source, name, located


def check(checked: Checked, published: Mapping[str, str]) -> list[Fault]:
    """Return every fault between documents: references, versions, deliveries, what was published."""
    found = [*_models(checked), *_model_versions(checked), *_placements(checked), *_workloads(checked)]
    return [*found, *_published(checked, published)]


def notes(checked: Checked) -> list[Fault]:
    """Return what is allowed and yet worth a look: placements that name clusters without a document."""
    clusters = checked.catalog.clusters
    return [
        _at(
            source, located, place, faults.UNKNOWN_CLUSTER, f"cluster {name} has no document yet", _near(name, clusters)
        )
        for source, _, located in checked.every("Placement")
        for n, term in enumerate(_as(located, kinds.Placement).spec.clusters or ())
        for m, name in enumerate(term.names or ())
        for place in [("spec", "clusters", n, "names", m)]
        if checked.missing("Cluster", name, clusters)
    ]


def _models(checked: Checked) -> Iterator[Fault]:
    catalog = checked.catalog
    for source, name, located in checked.every("Model"):
        model = catalog.models[name]
        spec = model.document.spec
        if spec.runtime is not None and checked.missing("Runtime", spec.runtime, catalog.runtimes):
            yield _dangling(source, located, ("spec", "runtime"), "runtime", spec.runtime, catalog.runtimes)
        if _incomplete(checked, "ModelVersion", name):
            continue
        for n, one in enumerate(spec.withdrawn):
            if one.version not in model.versions:
                place: Place = ("spec", "withdrawn", n, "version")
                yield _dangling(source, located, place, f"version of {name}", one.version, model.versions)
        for channel, version in spec.channels.items():
            if version not in model.versions:
                place = ("spec", "channels", channel)
                yield _dangling(source, located, place, f"version of {name}", version, model.versions)


def _model_versions(checked: Checked) -> Iterator[Fault]:
    catalog = checked.catalog
    for source, _, located in checked.every("ModelVersion"):
        name = located.document.metadata.name
        if checked.missing("Model", name, catalog.models):
            yield _dangling(source, located, ("metadata", "name"), "model", name, catalog.models)
    for model in catalog.models.values():
        for version in model.versions.values():
            wrong = _undeliverable(model, version)
            if wrong is not None:
                path, line, column = split(version.where)
                owner = _owner(checked, "model", model.name, version.version)
                yield faults.NOTHING_TO_DELIVER.at(path, *wrong, line=line, column=column, source=owner)


def _undeliverable(model: CatalogModel, version: CatalogVersion) -> tuple[str, str] | None:
    """Return what is wrong between a model's delivery and what a version holds, and what to do."""
    if version.has_chart != (model.document.spec.delivery == "chart"):
        if version.has_chart:
            delivery = model.document.spec.delivery
            return f"this version is a chart, and {model.name} is delivered as {delivery}", "write `delivery: chart`"
        return f"{model.name} is delivered as chart, and this version has none", "add chart/Chart.yaml, or spec.chart"
    spec = version.spec
    forms = [("", spec.image)] if spec.image or version.content or spec.artifact or not spec.variants else []
    forms += [(f" of variant {one.name}", one.image) for one in spec.variants]
    for words, image in forms:
        wrong = _form_undeliverable(model, image, words)
        if wrong is not None:
            return wrong
    return None


def _form_undeliverable(model: CatalogModel, image: kinds.ImageSpec | None, words: str) -> tuple[str, str] | None:
    delivery = model.document.spec.delivery
    if delivery == "container":
        if image is None:
            return f"{model.name} is delivered as container, and this version has no image{words}", "give it spec.image"
        if image.path:
            return f"the `path` of an image{words} does nothing with delivery `container`", "take it out"
    elif image is not None and not image.path:
        return f"delivery `{delivery}` needs the model's directory in the image{words}", "give spec.image.path"
    return None


def _placements(checked: Checked) -> Iterator[Fault]:
    catalog = checked.catalog
    subjects: dict[tuple[str, str], Subject] = {}
    for source, _, located in checked.every("Placement"):
        placement = _as(located, kinds.Placement)
        yield from _workloads_named(checked, source, located)
        if placement.spec.models is not None:
            yield from _models_selected(checked, source, located, placement.spec.models)
            continue
        kind, name = ("model", placement.spec.model) if placement.spec.model else ("workload", placement.spec.workload)
        assert name is not None
        found: Mapping[str, Any] = catalog.models if kind == "model" else catalog.workloads
        if name not in found:
            if checked.missing(kind.title(), name, found):
                yield _dangling(source, located, ("spec", kind), kind, name, found)
            continue
        if kind == "model" and catalog.models[name].document.spec.delivery == "file":
            for n in range(len(placement.spec.overrides)):
                place = ("spec", "overrides", n, "values")
                what = "`values` does nothing with delivery `file`"
                yield _at(source, located, place, faults.CONTRADICTION, what, "take it out", key=True)
        if kind == "model" and catalog.models[name].document.spec.delivery == "chart":
            own = catalog.models[name].document.spec.values
            for n, override in enumerate(placement.spec.overrides):
                try:
                    helm_values({**own, **override.values})
                except BadChartValue as error:
                    place = ("spec", "overrides", n, "values")
                    yield _at(source, located, place, faults.BAD_CHART_VALUE, error.what, error.do, key=True)
        if not _incomplete(checked, f"{kind.title()}Version", name):
            subject = subjects.get((kind, name)) or subjects.setdefault((kind, name), _subject(catalog, kind, name))
            yield from _no_version(source, located, ("spec", "version"), placement.spec.version, subject)


def _workloads_named(checked: Checked, source: SourceDocuments, located: Located) -> Iterator[Fault]:
    spec, known = _as(located, kinds.Placement).spec, checked.catalog.workloads
    for field, terms in (("clusters", spec.clusters or ()), ("prefer", spec.prefer)):
        for n, term in enumerate(terms):
            name = term.runs_workload
            if name is not None and name not in known and checked.missing("Workload", name, known):
                yield _dangling(source, located, ("spec", field, n, "runsWorkload"), "workload", name, known)


def _models_selected(
    checked: Checked, source: SourceDocuments, located: Located, selector: kinds.ModelSelector
) -> Iterator[Fault]:
    wish = _as(located, kinds.Placement).spec.version
    for name in models_of(selector, checked.catalog.models):
        if not _incomplete(checked, "ModelVersion", name):
            subject = to_subject(checked.catalog.models[name])
            yield from _no_version(source, located, ("spec", "version"), wish, subject)


def _workloads(checked: Checked) -> Iterator[Fault]:
    catalog = checked.catalog
    for source, name, located in checked.every("Workload"):
        spec = _as(located, kinds.Workload).spec
        for n, use in enumerate(spec.models):
            if use.name in catalog.models:
                if not _incomplete(checked, "ModelVersion", use.name):
                    subject = to_subject(catalog.models[use.name])
                    yield from _no_version(source, located, ("spec", "models", n, "version"), use.version, subject)
                delivery = catalog.models[use.name].document.spec.delivery
                if use.mount and delivery not in _WITH_FILES:
                    what = f"model {use.name} has delivery `{delivery}`: there are no files to mount"
                    at = ("spec", "models", n, "mount")
                    yield _at(source, located, at, faults.CONTRADICTION, what, "take `mount` out", key=True)
            elif checked.missing("Model", use.name, catalog.models):
                yield _dangling(source, located, ("spec", "models", n, "name"), "model", use.name, catalog.models)
        if any(one.chart is not None for one in catalog.workloads[name].versions.values()):
            yield from _chart_workload(source, located, spec)
        if spec.placement is None:
            continue
        place = ("spec", "placement", "sameAs")
        followed = catalog.placements.get(spec.placement.same_as)
        uses = {use.name for use in spec.models}
        if followed is not None and not uses.intersection(_placed(followed, catalog)):
            what = f"placement {spec.placement.same_as} places none of the models that {name} uses"
            yield _at(source, located, place, faults.CONTRADICTION, what, "follow one that does, or write a Placement")
        if checked.missing("Placement", spec.placement.same_as, catalog.placements):
            yield _dangling(source, located, place, "placement", spec.placement.same_as, catalog.placements)
        if not _incomplete(checked, "WorkloadVersion", name):
            subject = to_workload_subject(catalog.workloads[name])
            wish = spec.placement.version
            yield from _no_version(source, located, ("spec", "placement", "version"), wish, subject)


def _placed(placement: kinds.Placement, catalog: Catalog) -> list[str]:
    """Return the models that a placement places."""
    if placement.spec.models is not None:
        return models_of(placement.spec.models, catalog.models)
    return [] if placement.spec.model is None else [placement.spec.model]


def _chart_workload(source: SourceDocuments, located: Located, spec: kinds.WorkloadSpec) -> Iterator[Fault]:
    try:
        helm_values(spec.values)
    except BadChartValue as error:
        yield _at(source, located, ("spec", "values"), faults.BAD_CHART_VALUE, error.what, error.do, key=True)
    for n, use in enumerate(spec.models):
        if use.mount:
            what = "`mount` does nothing in a chart"
            do = "mount ConfigMap edgeferry-models, or what it names, in the chart's templates"
            yield _at(source, located, ("spec", "models", n, "mount"), faults.CONTRADICTION, what, do, key=True)


def _published(checked: Checked, published: Mapping[str, str]) -> Iterator[Fault]:
    catalog = checked.catalog
    if not published:
        return
    found: list[tuple[str, str, Mapping[str, Any]]] = [
        *(("model", model.name, model.versions) for model in catalog.models.values()),
        *(("workload", workload.name, workload.versions) for workload in catalog.workloads.values()),
    ]
    for kind, name, versions in found:
        for version, one in versions.items():
            before = published.get(f"{kind}/{name}@{version}")
            if before is not None and before != one.identity:
                path, line, column = split(one.where)
                what = f"{kind} {name} {version} changed after it was published"
                do = "versions are immutable: put this one back, and make a new version"
                owner = _owner(checked, kind, name, version)
                yield faults.CHANGED_AFTER_PUBLICATION.at(path, what, do, line=line, column=column, source=owner)


def _no_version(
    source: SourceDocuments, located: Located, place: Place, text: str, subject: Subject
) -> Iterator[Fault]:
    version, reason = resolve(parse_wish(text), subject)
    if version:
        return
    usable = sorted((one for one, withdrawn in subject.versions.items() if not withdrawn), key=parse_version)[-5:]
    known = subject.channels if text.strip().startswith("channel:") else usable
    do = f"mend it, or add one (there are: {', '.join(known) or 'none'})"
    yield _at(source, located, place, faults.NO_VERSION, reason, do)


def _subject(catalog: Catalog, kind: str, name: str) -> Subject:
    return to_subject(catalog.models[name]) if kind == "model" else to_workload_subject(catalog.workloads[name])


def _incomplete(checked: Checked, kind: str, name: str) -> bool:
    """Tell whether versions of this one may be missing from what was read."""
    return checked.spoilt(kind, name) or checked.elsewhere(kind, name)


def _owner(checked: Checked, kind: str, name: str, version: str) -> str:
    """Return the source that a version stands in: not always that of its model."""
    for source in checked.sources.values():
        known: Mapping[str, Mapping[str, Any]] = source.models if kind == "model" else source.workloads
        if version in known.get(name, {}):
            return source.tree.source
    return "main"


def _dangling(
    source: SourceDocuments, located: Located, place: Place, what: str, name: str, there: Mapping[str, Any]
) -> Fault:
    return _at(source, located, place, faults.DANGLING_REFERENCE, f"there is no {what} {name}", _near(name, there))


def _near(name: str, there: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, there, 1) if len(there) <= _MANY else ()
    if near:
        return f"did you mean {near[0]}?"
    shown: Sequence[str] = sorted(there)[:5]
    return f"add it, or mend the name (there are: {', '.join(shown) or 'none'}{', …' if len(there) > 5 else ''})"


def _at(
    source: SourceDocuments, located: Located, place: Place, code: Code, what: str, do: str, *, key: bool = False
) -> Fault:
    return version_folders.at(source.tree, located, place, code, what, do, key=key)


def _as(located: Located, kind: type[T]) -> T:
    assert isinstance(located.document, kind)
    return located.document


def split(where: str) -> tuple[str, int, int]:
    """Return path, line and column of ``file:line:column``; zeros where it is a path alone."""
    path, _, rest = where.partition(":")
    line, _, column = rest.partition(":")
    return path, int(line or 0), int(column or 0)
