"""Random fleets and policies of the whole language, small enough that everything that can meet does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from placement.index import FleetIndex
from placement.room import Room
from placement.scene import Scene
from placement.types import (
    Accelerator,
    FactTest,
    Incumbent,
    Needs,
    Policy,
    Preference,
    Rebalance,
    Requirement,
    Spread,
    Subject,
    Taint,
    Target,
    Term,
    Toleration,
    Variant,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GIB = 1 << 30
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
FACTS: Mapping[str, tuple[str, ...]] = {
    "arch": ARCHES,
    "platform": PLATFORMS,
    "memory.capacity": (str(GIB), str(2 * GIB), str(4 * GIB), "plenty"),
    "node.memory.capacity": (str(GIB), str(4 * GIB)),
    "disk.capacity": (str(GIB), str(8 * GIB)),
    "cpu.capacity": ("1", "2.5", "8"),
    "kubernetes.version": ("v1.27.3", "v1.29.0+k3s1", "v1.29.4-gke.100", "unknown"),
    "accelerator.kind": ("", "nvidia", "intel,nvidia"),
    "accelerator.count": ("0", "1", "2"),
    "accelerator.nvidia.count": ("1", "2"),
    "accelerator.nvidia.memory": (str(8 * GIB), str(16 * GIB)),
    "runtime.onnx.version": ("1.16.0", "1.18.2"),
    "coolant": ("oil", "water"),
}
AGES = (timedelta(), timedelta(hours=2), timedelta(hours=30))
TAINTS = (
    Taint("maintenance", "", "NoSelect"),
    Taint("lab", "x", "NoSelectIfNew"),
    Taint("slow", "", "PreferNoSelect"),
    Taint("lab", "y", "PreferNoSelect"),
)
TOLERATIONS = (
    Toleration("maintenance"),
    Toleration("lab", "Exists"),
    Toleration("lab", "Equal", "x"),
    Toleration("", "Exists", "", "PreferNoSelect"),
    Toleration("", "Exists"),
)
TESTS = (
    FactTest("memory.capacity", "number", ">=", ("2Gi",)),
    FactTest("memory.capacity", "number", "<", ("4Gi",), 3600.0),
    FactTest("memory.capacity", "number", "in", ("1Gi", "4Gi")),
    FactTest("memory.capacity", "number", "!=", ("1Gi",)),
    FactTest("cpu.capacity", "number", ">", ("2500m",)),
    FactTest("cpu.capacity", "number", "<=", ("2500m",)),
    FactTest("kubernetes.version", "version", "==", (">=1.28",)),
    FactTest("kubernetes.version", "version", "<", ("1.29",), 86400.0),
    FactTest("accelerator.kind", "list", "==", ("nvidia",)),
    FactTest("accelerator.kind", "list", "!=", ("intel",)),
    FactTest("coolant", "text", "in", ("oil", "air")),
    FactTest("coolant", "text", "!=", ("water",)),
    FactTest("nobody.has.it", "text", "==", ("x",)),
)
EXPRESSIONS = (
    "cluster.labels['tier'] != 'prod'",
    "cluster.labels.line == 'weld' || model.labels['task'] == 'inspection'",
    "cluster.facts['memory.capacity'] >= quantity('2Gi')",
    "versionIn(cluster.facts['kubernetes.version'], '>=1.28') && cluster.labels['tier'] == 'canary'",
)


@st.composite
def targets(draw: st.DrawFn, name: str = "", full: bool = True) -> Target:
    labels = {key: draw(st.sampled_from(values)) for key, values in KEYS.items() if draw(st.booleans())}
    facts: dict[str, tuple[str, datetime | None]] = {}
    for fact, values in FACTS.items():
        if (full or fact in ("arch", "platform")) and draw(st.integers(0, 2)):
            age = draw(st.sampled_from((*AGES, None)))
            facts[fact] = draw(st.sampled_from(values)), None if age is None else NOW - age
    taints = tuple(draw(st.lists(st.sampled_from(TAINTS), max_size=2, unique=True))) if full else ()
    return Target(name or draw(st.sampled_from(NAMES)), labels, facts, taints)


def fleets(min_size: int = 0, full: bool = True) -> st.SearchStrategy[list[Target]]:
    return st.lists(
        targets(full=full), min_size=min_size, max_size=len(NAMES), unique_by=lambda target: target.name
    )  # fmt: skip


@st.composite
def requirements(draw: st.DrawFn) -> Requirement:
    key = draw(st.sampled_from((*KEYS, "nobody-has-it")))
    operator = draw(st.sampled_from(("In", "NotIn", "Exists", "DoesNotExist")))
    if operator in ("Exists", "DoesNotExist"):
        return Requirement(key, operator)
    values = draw(st.lists(st.sampled_from((*KEYS.get(key, VALUES), "other")), min_size=1, max_size=3, unique=True))
    return Requirement(key, operator, tuple(values))


@st.composite
def terms(draw: st.DrawFn, full: bool = True) -> Term:
    names = draw(st.none() | st.none() | st.frozensets(st.sampled_from((*NAMES, "nowhere")), max_size=6))
    labels = tuple(draw(st.lists(requirements(), max_size=2)))
    if not full:
        return Term(names, labels)
    return Term(
        names,
        labels,
        tuple(draw(st.lists(st.sampled_from(TESTS), max_size=2, unique=True))),
        draw(st.sampled_from(("", "", "", *EXPRESSIONS))),
        draw(st.sampled_from(("", "", "", "reader"))),
    )


@st.composite
def needs(draw: st.DrawFn) -> Needs:
    return Needs(
        memory_bytes=draw(st.sampled_from((0, 0, GIB // 2, GIB, 3 * GIB))),
        disk_bytes=draw(st.sampled_from((0, 0, 0, GIB))),
        cpu_milli=draw(st.sampled_from((0, 0, 0, 1500))),
        accelerator=draw(
            st.sampled_from((None, None, None, Accelerator(), Accelerator("nvidia"), Accelerator("nvidia", 2, 8 * GIB)))
        ),
        arch=draw(st.frozensets(st.sampled_from(ARCHES), max_size=2)),
        runtimes=draw(st.sampled_from(((), (), (), (("onnx", ">=1.17"),)))),
    )


@st.composite
def subjects(draw: st.DrawFn, full: bool = True) -> Subject:
    some = draw(st.lists(st.sampled_from(("1.0.0", "1.1.0", "2.0.0-rc.1", "2.0.0")), max_size=4, unique=True))
    variants: dict[str, tuple[Variant, ...]] = {}
    for version in some if full else ():
        if draw(st.booleans()):
            forms = draw(st.lists(st.sampled_from(("", "int8", "tiny")), min_size=1, unique=True))
            variants[version] = tuple(Variant(name, draw(needs())) for name in forms)
    arch = draw(st.frozensets(st.sampled_from(ARCHES), max_size=2))
    return Subject(
        kind="model",
        name="digits",
        versions={version: draw(st.sampled_from(("", "", "", "bad labels"))) for version in some},
        channels={"stable": draw(st.sampled_from(some))} if some else {},
        needs=draw(needs()) if full else Needs(arch=arch),
        variants=variants,
        delivery=draw(st.sampled_from(("server", "file", "container", "chart"))),
        labels=draw(st.sampled_from(({}, {"task": "inspection"}))),
    )


@st.composite
def policies(draw: st.DrawFn, name: str = "here", full: bool = True) -> Policy:
    some = terms(full)
    count = draw(st.none() | st.integers(0, 6))
    plain = Policy(
        name=name,
        kind="model",
        subject="digits",
        version=draw(st.sampled_from(("*", ">=1", "1.0.0", "<2", "channel: stable"))),
        terms=draw(st.none() | st.lists(some, max_size=3).map(tuple)),
        count=count,
        priority=draw(st.integers(0, 2)),
    )
    if not full:
        return plain
    rules = st.builds(Spread, st.sampled_from(("line", "tier", "nobody")), st.integers(1, 2), st.booleans())
    wishes = st.builds(Preference, terms(), st.integers(-100, 100))
    return Policy(
        plain.name,
        plain.kind,
        plain.subject,
        plain.version,
        plain.terms,
        count,
        plain.priority,
        tolerations=tuple(draw(st.lists(st.sampled_from(TOLERATIONS), max_size=2, unique=True))),
        spread=tuple(draw(st.lists(rules, max_size=2, unique_by=lambda one: one.key))),
        prefer=tuple(draw(st.lists(wishes, max_size=2))),
        rebalance=draw(st.sampled_from((None, None, None, Rebalance(10, 2, False), Rebalance(1, 50, True)))),
        evict_after_s=draw(st.sampled_from((None, 3600.0))),
    )


@st.composite
def previous(draw: st.DrawFn) -> dict[str, Incumbent]:
    names = draw(st.lists(st.sampled_from((*NAMES, "gone")), max_size=8, unique=True))
    return {
        name: Incumbent(
            draw(st.sampled_from(("1.0.0", "2.0.0", ""))),
            draw(st.sampled_from(("", "int8", "tiny"))),
            draw(st.sampled_from((None, NOW - timedelta(hours=40), NOW - timedelta(minutes=30)))),
        )
        for name in names
    }


@dataclass(frozen=True, slots=True)
class Around:
    """What was decided before, in the form of the plain loop.

    Attributes:
        running: clusters where the workload ``reader`` runs.
        promised: cluster → what others were promised there.
    """

    running: frozenset[str] = frozenset()
    promised: Mapping[str, tuple[Needs, ...]] = field(default_factory=dict)

    def scene(self, index: FleetIndex) -> Scene:
        room = Room()
        for name, some in self.promised.items():
            for one in some:
                room.take(one, index.bits([name]))
        return Scene({"reader": index.bits(self.running)}, room)


@st.composite
def arounds(draw: st.DrawFn) -> Around:
    some = draw(st.lists(st.sampled_from(NAMES), max_size=6, unique=True))
    return Around(
        draw(st.frozensets(st.sampled_from(NAMES), max_size=8)),
        {name: tuple(draw(st.lists(needs(), min_size=1, max_size=2))) for name in some},
    )


def index_of(fleet: list[Target]) -> FleetIndex:
    return FleetIndex.build(fleet)
