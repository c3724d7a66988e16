"""What a document says against itself: fields that exclude or need each other. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from agent.wire.chart import BadChartValue, helm_values
from gitops import faults, kinds, policy_checks
from gitops.problems import Problem as Problem
from gitops.problems import against as _against
from gitops.rollout_spec import WaveExpression, seconds
from gitops.yaml_text import Place


def check(document: kinds.Document) -> list[Problem]:
    """Return everything in which a document contradicts itself."""
    one = _CHECKS.get(type(document))
    found = list(_reserved(document.metadata)) if document.metadata is not None else []
    return found + list(one(document)) if one is not None else found


PROTECT: Final = "edgeferry.dev/protect"
"""Annotation of a document that may not be deleted, nor what it places be removed."""

_LEAST_OFFLINE_S: Final = 3600
_OUR_KEYS: Final = frozenset({"edgeferry.dev/site", "edgeferry.dev/platform"})


def _reserved(metadata: kinds.Metadata | kinds.VersionMetadata) -> Iterator[Problem]:
    for field, keys in (("labels", metadata.labels), ("annotations", metadata.annotations)):
        for key in keys:
            if field == "annotations" and key == PROTECT:
                if keys[key] not in ("true", "false"):
                    yield Problem(
                        ("metadata", field, key), faults.BAD_VALUE, f"`{PROTECT}` is {keys[key][:20]!r}", 'write "true"'
                    )
                continue
            if key.startswith("edgeferry.dev/") and (key not in _OUR_KEYS or field == "annotations"):
                place = ("metadata", field, key)
                what = f"`{key}` means nothing in this version"
                do = f"labels of ours are {', '.join(sorted(_OUR_KEYS))}; use a prefix of your own for others"
                yield Problem(place, faults.UNKNOWN_FIELD, what, do, True)


def _source(document: kinds.Source) -> Iterator[Problem]:
    if document.metadata.name == "main":
        yield _against(("metadata", "name"), "the source `main` is this repository", "give it another name")
    for field, values in (("kinds", document.spec.allow.kinds), ("names", document.spec.allow.names)):
        if not values:
            yield _against(("spec", "allow", field), f"`{field}` is empty: the source could hold nothing", "name some")


def _model(document: kinds.Model) -> Iterator[Problem]:
    spec = document.spec
    if spec.delivery == "chart":
        yield from _chart_values(spec.values)
    if spec.delivery == "server" and spec.runtime is None:
        yield _missing("spec", "runtime", "delivery `server` needs it")
    for field, value, deliveries in (
        ("runtime", spec.runtime, ("server",)),
        ("port", spec.port, ("container",)),
        ("selfTest", spec.self_test, ("server", "container")),
        ("values", spec.values or None, ("server", "container", "chart")),
    ):
        if value is not None and spec.delivery not in deliveries:
            yield _against(
                ("spec", field), f"`{field}` does nothing with delivery `{spec.delivery}`", "take it out", True
            )
    if spec.delivery == "container" and spec.self_test is not None and spec.port is None:
        yield _missing("spec", "port", "the self-test of a container needs it")
    yield from policy_checks.needs(spec.needs, ("spec", "needs"))
    withdrawn = [one.version for one in spec.withdrawn]
    yield from _twice(withdrawn, ("spec", "withdrawn"), "version")
    for channel, version in spec.channels.items():
        if version in withdrawn:
            what = f"channel {channel} points to {version}, which is withdrawn"
            yield _against(("spec", "channels", channel), what, "point it to another version")


def _model_version(document: kinds.ModelVersion) -> Iterator[Problem]:
    spec = document.spec
    given = [name for name in ("artifact", "image", "chart") if getattr(spec, name) is not None]
    if (len(given) > 1 and given != ["artifact", "chart"]) or (not given and not spec.variants):
        what = f"{' and '.join(given)} together" if given else "neither artifact nor image nor chart"
        yield _against(("spec",), what, "give exactly one of them; an artifact may go with a chart", True)
    if spec.chart is not None:
        yield from _chart(spec.chart)
    if spec.artifact is not None:
        yield from _artifact(spec.artifact, ("spec", "artifact"))
    yield from policy_checks.variants(spec)
    for n, one in enumerate(spec.variants):
        if one.artifact is not None:
            yield from _artifact(one.artifact, ("spec", "variants", n, "artifact"))


def _chart(chart: kinds.ChartSpec) -> Iterator[Problem]:
    place = ("spec", "chart")
    if (chart.path is None) == (chart.ref is None):
        what = "neither `path` nor `ref`" if chart.path is None else "both `path` and `ref`"
        yield _against(place, what, "give exactly one of them", True)
    if chart.ref is not None and chart.digest is None:
        yield Problem((*place, "digest"), faults.MISSING_FIELD, "`digest` is missing", "a `ref` needs it: write it")
    if chart.path is not None and chart.ref is None and chart.digest is not None:
        yield _against((*place, "digest"), "`digest` does nothing with `path`", "take it out", True)


def _chart_values(values: Mapping[str, str]) -> Iterator[Problem]:
    try:
        helm_values(values)
    except BadChartValue as error:
        yield Problem(("spec", "values"), faults.BAD_CHART_VALUE, error.what, error.do, True)


def _artifact(artifact: kinds.ArtifactSpec, place: Place) -> Iterator[Problem]:
    if (artifact.path is None) == (artifact.ref is None):
        what = "neither `path` nor `ref`" if artifact.path is None else "both `path` and `ref`"
        yield _against(place, what, "give exactly one of them", True)
    for field in ("digest", "size"):
        given = getattr(artifact, field) is not None
        if artifact.ref is not None and not given:
            yield Problem((*place, field), faults.MISSING_FIELD, f"`{field}` is missing", "a `ref` needs it: write it")
        if artifact.path is not None and artifact.ref is None and given:
            yield _against((*place, field), f"`{field}` does nothing with `path`", "take it out", True)


def _fleet(document: kinds.Fleet) -> Iterator[Problem]:
    if document.spec.default_rollout is not None:
        yield from _rollout(document.spec.default_rollout, ("spec", "defaultRollout"))


def _cluster(document: kinds.Cluster) -> Iterator[Problem]:
    for n, window in enumerate(document.spec.windows):
        if window.start == window.end:
            place = ("spec", "windows", n, "to")
            yield _against(place, "a window that closes when it opens", "write another time; a whole day needs none")
    limit = document.spec.max_offline_age
    if limit is not None and seconds(limit.age) < _LEAST_OFFLINE_S:
        limited = ("spec", "maxOfflineAge", "age")
        yield _against(
            limited, f"{limit.age} is shorter than an hour", "write 1h or more: a site notes contact now and then"
        )
    yield from policy_checks.cluster(document)


def _rollout(rollout: kinds.RolloutSpec, place: Place) -> Iterator[Problem]:
    last = 0
    for n, wave in enumerate(rollout.waves):
        here = (*place, "waves", n)
        by_labels = bool(wave.match_labels or wave.match_expressions)
        if by_labels == (wave.percent is not None):
            what = "both `percent` and labels" if by_labels else "neither `percent` nor labels"
            yield _against(here, what, "give exactly one of them")
        if wave.percent is not None:
            if wave.percent <= last:
                what = f"`percent` is cumulative: {wave.percent} after {last} brings nobody"
                yield _against((*here, "percent"), what, "let it grow from wave to wave")
            last = wave.percent
        yield from _expressions(wave.match_expressions, here)
    names = [wave.name for wave in rollout.waves if wave.name is not None]
    yield from _twice(names, (*place, "waves"), "name")


def _placement(document: kinds.Placement) -> Iterator[Problem]:
    spec = document.spec
    given = [name for name in ("model", "models", "workload") if getattr(spec, name) is not None]
    if len(given) != 1:
        both = f"both {' and '.join(f'`{name}`' for name in given)}"
        what = both if given else "neither `model`, `models` nor `workload`"
        yield _against(("spec",), what, "give exactly one of them", True)
    for n, term in enumerate(spec.clusters or ()):
        place: Place = ("spec", "clusters", n)
        if policy_checks.is_empty(term):
            yield _against(place, "an empty term, which selects every cluster", "leave out `clusters` to mean that")
        yield from _expressions(term.match_expressions, place)
        yield from policy_checks.term(term, place)
    for n, wish in enumerate(spec.prefer):
        yield from _expressions(wish.match_expressions, ("spec", "prefer", n))
    for field, selector in (("models", spec.models), ("nodes", spec.nodes)):
        if selector is not None:
            yield from _expressions(selector.match_expressions, ("spec", field))
    yield from policy_checks.placement(spec)
    if spec.rollout is not None:
        yield from _rollout(spec.rollout, ("spec", "rollout"))
    for n, override in enumerate(spec.overrides):
        place = ("spec", "overrides", n)
        if not override.values:
            yield _against((*place, "values"), "an override without values", "give some, or take it out", True)
        yield from _expressions(override.match_expressions, place)


def _expressions(expressions: Sequence[kinds.Expression | WaveExpression], place: Place) -> Iterator[Problem]:
    for n, one in enumerate(expressions):
        here = (*place, "matchExpressions", n)
        if one.operator in ("In", "NotIn") and not one.values:
            yield Problem((*here, "values"), faults.MISSING_FIELD, "`values` is missing", f"{one.operator} needs some")
        if one.operator in ("Exists", "DoesNotExist") and one.values:
            yield _against((*here, "values"), f"`values` does nothing with {one.operator}", "take it out", True)


def _workload(document: kinds.Workload) -> Iterator[Problem]:
    spec = document.spec
    yield from _twice([one.name for one in spec.models], ("spec", "models"), "name")
    if spec.source is not None and spec.host is not None:
        what = "a chart runs on no bare host"
        yield _against(("spec", "host"), what, "take out `host`, or make another workload of it", True)
    if spec.host is not None and spec.host.ready_path and not spec.host.port:
        yield _missing(("spec", "host"), "port", "`readyPath` needs `port: true`")
    if spec.placement is not None and not spec.models:
        what = "`sameAs` follows the workload's models, and it names none"
        yield _against(("spec", "placement", "sameAs"), what, "name them in `models`, or write a Placement")
    for n, use in enumerate(spec.models):
        if use.version.strip().startswith("channel:"):
            what = "a workload accepts a range of versions, no channel"
            yield _against(("spec", "models", n, "version"), what, "write a range: >=2 <3")


def _runtime(document: kinds.Runtime) -> Iterator[Problem]:
    spec = document.spec
    if spec.image is None and spec.host is None:
        yield _against(("spec",), "neither `image` nor `host`", "give one of them, or both", True)
    if spec.image is None and spec.args:
        yield _against(("spec", "args"), "`args` does nothing without `image`", "take it out", True)
    if spec.protocol == "v2" and spec.path != "/":
        yield _against(("spec", "path"), "`path` does nothing with protocol `v2`", "take it out", True)


def _twice(names: Iterable[str], place: Place, field: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for n, name in enumerate(names):
        if name in seen:
            yield _against((*place, n, field), f"{name} stands here twice", "keep one of them")
        seen.add(name)


def _missing(place: Place | str, field: str, why: str) -> Problem:
    parent = (place,) if isinstance(place, str) else place
    return Problem((*parent, field), faults.MISSING_FIELD, f"`{field}` is missing", f"write it: {why}")


_CHECKS: Final[Mapping[type[kinds.Document], Callable[[Any], Iterator[Problem]]]] = {
    kinds.Fleet: _fleet,
    kinds.Cluster: _cluster,
    kinds.Source: _source,
    kinds.Model: _model,
    kinds.ModelVersion: _model_version,
    kinds.Placement: _placement,
    kinds.Workload: _workload,
    kinds.Runtime: _runtime,
}
