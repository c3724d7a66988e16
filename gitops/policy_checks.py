"""What a placement's terms, a cluster's taints and labels, and a model's needs say against themselves. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from gitops import faults, kinds
from gitops.policies import to_test
from gitops.problems import Problem, against
from gitops.render.resources import over_limit
from gitops.yaml_text import Place
from placement import facts
from placement.expressions import BadExpression, compile_expression
from placement.fact_names import Definition, definition

_MOST_BYTES: Final = Decimal(1 << 50)
_MOST_CPU: Final = Decimal(100_000)
_MEND: Final = "mend it: known are cluster.name, .labels['key'], .facts['name'], and model.name, .labels['key']"
_ORDERING: Final = frozenset({"<", "<=", ">", ">="})


def term(one: kinds.ClusterTerm, place: Place) -> Iterator[Problem]:
    """Yield what is wrong with the facts and the expression of a term."""
    for n, test in enumerate(one.facts):
        yield from _fact(test, (*place, "facts", n))
    if one.expression is not None:
        try:
            compile_expression(one.expression)
        except BadExpression as error:
            code = faults.COSTLY_EXPRESSION if error.costly else faults.BAD_EXPRESSION
            do = "write a shorter, flatter one" if error.costly else _MEND
            yield Problem((*place, "expression"), code, str(error), do, within=(error.line, error.column))


def is_empty(one: kinds.ClusterTerm) -> bool:
    """Tell whether a term asks for nothing."""
    given = one.match_labels or one.match_expressions or one.facts or one.expression or one.runs_workload
    return one.names is None and not given


def placement(spec: kinds.PlacementSpec) -> Iterator[Problem]:
    """Yield what is wrong with what a placement says beside its terms, its version and its overrides."""
    if spec.models is not None and not spec.models.match_labels and not spec.models.match_expressions:
        yield against(("spec", "models"), "an empty selector, which selects every model", "name a label they share")
    for n, one in enumerate(spec.tolerations):
        yield from _toleration(one, ("spec", "tolerations", n))
    seen: set[str] = set()
    for n, rule in enumerate(spec.spread):
        if rule.key in seen:
            yield against(("spec", "spread", n, "key"), f"{rule.key} stands here twice", "keep one of them")
        seen.add(rule.key)
    for n, wish in enumerate(spec.prefer):
        place: Place = ("spec", "prefer", n)
        if is_empty(wish):
            yield against(place, "an empty preference, which every cluster meets", "say what is preferred")
        if wish.weight == 0:
            yield against((*place, "weight"), "weight 0 does nothing", "write −100 to 100, but 0")
        yield from term(wish, place)
    if spec.prefer and spec.count is None and not spec.spread:
        what = "`prefer` does nothing without `count` or `spread`: every cluster that fits is taken"
        yield against(("spec", "prefer"), what, "give a `count`, or take it out", True)
    if spec.rebalance is not None and spec.count is None:
        what = "`rebalance` does nothing without `count`: every cluster that fits is taken"
        yield against(("spec", "rebalance"), what, "give a `count`, or take it out", True)
    if spec.rebalance is not None and spec.rebalance.max_moves.removesuffix("%").strip("0") == "":
        yield against(("spec", "rebalance", "maxMoves"), "no moves at all", "take `rebalance` out to mean that")
    reads_facts = any(one.facts or "facts" in (one.expression or "") for one in spec.clusters or ())
    if spec.evict_on_facts is not None and not reads_facts:
        what = "`evictOnFacts` does nothing: no term of `clusters` looks at facts"
        yield against(("spec", "evictOnFacts"), what, "take it out", True)
    if spec.nodes is not None and spec.workload is not None:
        what = "`nodes` does nothing with `workload`: its manifests say where its pods run"
        yield against(("spec", "nodes"), what, "take it out", True)
    if spec.nodes is not None and not spec.nodes.match_labels and not spec.nodes.match_expressions:
        yield against(("spec", "nodes"), "an empty selector, which selects every node", "take it out")


def cluster(document: kinds.Cluster) -> Iterator[Problem]:
    """Yield what is wrong with taints, and with labels that bear the name of a fact."""
    seen: set[tuple[str, str]] = set()
    for n, taint in enumerate(document.spec.taints):
        if (taint.key, taint.effect) in seen:
            place: Place = ("spec", "taints", n)
            yield against(place, f"{taint.key}:{taint.effect} stands here twice", "keep one of them")
        seen.add((taint.key, taint.effect))
    for key, value in document.metadata.labels.items():
        known = definition(key)
        wrong = None if known is None else _unreadable(known, value)
        if wrong is not None:
            what = f"label {key} bears the name of a fact, and {wrong}"
            do = "labels outrank facts: write a value of its kind, or name the label otherwise"
            yield Problem(("metadata", "labels", key), faults.LABEL_IS_NO_FACT, what, do)


def needs(spec: kinds.Needs, place: Place) -> Iterator[Problem]:
    """Yield needs of nothing, of more than there is, and limits below them."""
    given: list[tuple[Place, str | None, Decimal]] = [
        ((*place, "memory"), spec.memory, _MOST_BYTES),
        ((*place, "disk"), spec.disk, _MOST_BYTES),
        ((*place, "cpu"), spec.cpu, _MOST_CPU),
    ]
    if spec.accelerator is not None:
        given.append(((*place, "accelerator", "memory"), spec.accelerator.memory, _MOST_BYTES))
    if spec.limits is not None:
        given.append(((*place, "limits", "memory"), spec.limits.memory, _MOST_BYTES))
        given.append(((*place, "limits", "cpu"), spec.limits.cpu, _MOST_CPU))
    for where, text, most in given:
        found = None if text is None else facts.quantity(text)
        if found is not None and found == 0:
            yield Problem(where, faults.BAD_NEED, "a need of 0 is none", "leave it out")
        elif found is not None and found > most:
            shown = "1Pi" if most == _MOST_BYTES else "100000"
            what = f"{{as written}} is more than any cluster has: at most {shown}"
            yield Problem(where, faults.BAD_NEED, what, "check the unit: 512Mi, 8Gi, 500m")
        elif found is not None and where[-1] != "cpu" and found < 1024:
            what = f"{{as written}} is {found} bytes"
            yield Problem(where, faults.BAD_NEED, what, "check the unit: 512Mi, 8Gi")
    for name in ("memory", "cpu"):
        if over_limit(spec, name):
            what = f"the limit of {name} is below what is needed, which Kubernetes refuses"
            yield against((*place, "limits", name), what, "raise the limit, or lower the need")


def variants(spec: kinds.ModelVersionSpec) -> Iterator[Problem]:
    """Yield what is wrong with the variants of a version, but for their artifacts."""
    seen: set[str] = set()
    for n, one in enumerate(spec.variants):
        place: Place = ("spec", "variants", n)
        if one.name in seen:
            yield against((*place, "name"), f"{one.name} stands here twice", "keep one of them")
        seen.add(one.name)
        if (one.artifact is None) == (one.image is None):
            what = "neither artifact nor image" if one.artifact is None else "both artifact and image"
            yield against(place, what, "give exactly one of them", True)
        yield from needs(one.needs, (*place, "needs"))


def _fact(test: kinds.FactTerm, place: Place) -> Iterator[Problem]:
    where = (*place, "value")
    if test.operator != "in" and len(test.value) > 1:
        yield against(where, f"several values with `{test.operator}`", "write one, or `operator: in`")
        return
    known = definition(test.name)
    kind = to_test(test).kind
    if test.operator in _ORDERING and kind in ("list", "text"):
        what = f"`{test.operator}` does not go with {test.name}, which is {'a list' if kind == 'list' else 'text'}"
        yield Problem((*place, "operator"), faults.BAD_FACT_VALUE, what, "use ==, != or in")
        return
    for value in test.value:
        wrong = _wrong_value(test, kind, known, value)
        if wrong is not None:
            yield Problem(where, faults.BAD_FACT_VALUE, f"{test.name}: {wrong}", "write a value of its kind")


def _wrong_value(test: kinds.FactTerm, kind: str, known: Definition | None, value: str) -> str | None:
    if kind == "version":
        if test.operator in _ORDERING:
            return None if facts.release(value) is not None else f"{value[:40]!r} is no version"
        try:
            facts.wanted_range(value)
        except ValueError as error:
            return str(error)
        return None
    return None if kind != "number" else _wrong_number(known, value)


def _unreadable(known: Definition, value: str) -> str | None:
    """Return why a label's value cannot stand for a fact."""
    match known.kind:
        case "number":
            return _wrong_number(known, value)
        case "version":
            return None if facts.release(value) is not None else f"{value[:40]!r} is no version"
        case _:
            return None if value else "it is empty"


def _wrong_number(known: Definition | None, value: str) -> str | None:
    found = facts.quantity(value)
    if found is None:
        return f"{value[:40]!r} is no quantity"
    if known is not None and known.unit == "bytes" and value[-1] in "mun":
        return f"{value[:40]!r} has the wrong unit: it is in bytes"
    if known is not None and known.unit != "bytes" and value[-1] in "iEPTGM":
        return f"{value[:40]!r} has the wrong unit: it is in {known.unit or 'plain numbers'}"
    return None


def _toleration(one: kinds.TolerationSpec, place: Place) -> Iterator[Problem]:
    if one.key is None and one.operator == "Equal":
        yield against(place, "a toleration without `key` needs `operator: Exists`", "write it, or give the key", True)
    if one.operator == "Exists" and one.value:
        yield against((*place, "value"), "`value` does nothing with `Exists`", "take it out", True)
