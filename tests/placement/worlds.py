"""Random fleets and policies, small enough that everything that can meet does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from hypothesis import strategies as st

from placement.index import FleetIndex
from placement.types import Policy, Requirement, Subject, Target, Term

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ARCHES = ("amd64", "arm64")
PLATFORMS = ("host", "kubernetes")
NAMES = tuple(f"{site}-{n}" for site in ("bari", "lyon", "oslo") for n in range(4))
KEYS: Mapping[str, tuple[str, ...]] = {
    "line": ("paint", "weld", "pack"),
    "tier": ("canary", "prod"),
    "kubernetes.io/arch": ARCHES,
    "edgeferry.dev/platform": PLATFORMS,
}
VALUES = tuple(value for values in KEYS.values() for value in values)


@st.composite
def targets(draw: st.DrawFn, name: str = "") -> Target:
    labels = {key: draw(st.sampled_from(values)) for key, values in KEYS.items() if draw(st.booleans())}
    facts = {}
    if draw(st.booleans()):
        facts["arch"] = (draw(st.sampled_from(ARCHES)), NOW)
    if draw(st.booleans()):
        facts["platform"] = (draw(st.sampled_from(PLATFORMS)), NOW)
    return Target(name or draw(st.sampled_from(NAMES)), labels, facts)


def fleets(min_size: int = 0) -> st.SearchStrategy[list[Target]]:
    return st.lists(targets(), min_size=min_size, max_size=len(NAMES), unique_by=lambda target: target.name)


@st.composite
def requirements(draw: st.DrawFn) -> Requirement:
    key = draw(st.sampled_from((*KEYS, "nobody-has-it")))
    operator = draw(st.sampled_from(("In", "NotIn", "Exists", "DoesNotExist")))
    if operator in ("Exists", "DoesNotExist"):
        return Requirement(key, operator)
    values = draw(st.lists(st.sampled_from((*KEYS.get(key, VALUES), "other")), min_size=1, max_size=3, unique=True))
    return Requirement(key, operator, tuple(values))


@st.composite
def terms(draw: st.DrawFn) -> Term:
    names = draw(st.none() | st.frozensets(st.sampled_from((*NAMES, "nowhere")), max_size=6))
    return Term(names, tuple(draw(st.lists(requirements(), max_size=3))))


@st.composite
def subjects(draw: st.DrawFn) -> Subject:
    some = draw(st.lists(st.sampled_from(("1.0.0", "1.1.0", "2.0.0-rc.1", "2.0.0")), max_size=4, unique=True))
    return Subject(
        kind="model",
        name="digits",
        versions={version: draw(st.sampled_from(("", "", "", "bad labels"))) for version in some},
        channels={"stable": draw(st.sampled_from(some))} if some else {},
        arch=draw(st.frozensets(st.sampled_from(ARCHES), max_size=2)),
        delivery=draw(st.sampled_from(("server", "file", "container", "chart"))),
    )


@st.composite
def policies(draw: st.DrawFn, name: str = "here") -> Policy:
    return Policy(
        name=name,
        kind="model",
        subject="digits",
        version=draw(st.sampled_from(("*", ">=1", "1.0.0", "<2", "channel: stable"))),
        terms=draw(st.none() | st.lists(terms(), max_size=3).map(tuple)),
        count=draw(st.none() | st.integers(0, 6)),
        priority=draw(st.integers(0, 2)),
    )


def index_of(fleet: list[Target]) -> FleetIndex:
    return FleetIndex.build(fleet)
