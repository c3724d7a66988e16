"""The values that placement takes and gives. Nothing here knows of documents, Git or clusters' APIs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from placement.index import FleetIndex

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist"]
FactOperator = Literal["==", "!=", "<", "<=", ">", ">=", "in"]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One label requirement, exactly Kubernetes: NotIn and DoesNotExist hold where the key is absent."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FactTest:
    """One requirement of a fact.

    Attributes:
        kind: how the fact is read and compared.
        values: as written; several for ``in`` only. Quantities, versions or ranges, words.
        max_age_s: the fact must have been measured within this; None for any age.
    """

    name: str
    kind: Literal["number", "version", "list", "text"]
    operator: FactOperator
    values: tuple[str, ...]
    max_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """One way to be selected: every part that is given must hold.

    Attributes:
        names: exact cluster names; None for any.
        requirements: label requirements, ``matchLabels`` folded in as ``In`` of one value.
        facts: what its agent must have measured.
        expression: in CEL; empty for none.
        runs_workload: a workload that must be placed there; empty for none.
    """

    names: frozenset[str] | None = None
    requirements: tuple[Requirement, ...] = ()
    facts: tuple[FactTest, ...] = ()
    expression: str = ""
    runs_workload: str = ""


TaintEffect = Literal["NoSelect", "NoSelectIfNew", "PreferNoSelect"]


@dataclass(frozen=True, slots=True, order=True)
class Taint:
    """What keeps placements away from a cluster unless they tolerate it."""

    key: str
    value: str
    effect: TaintEffect

    def __str__(self) -> str:
        """Return it as people write it: ``maintenance=true:NoSelect``."""
        return f"{self.key}{'=' + self.value if self.value else ''}:{self.effect}"


@dataclass(frozen=True, slots=True)
class Toleration:
    """What a placement puts up with, as in Kubernetes.

    Attributes:
        key: empty for every key, which needs ``Exists``.
        effect: empty for every effect.
    """

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: TaintEffect | Literal[""] = ""

    def tolerates(self, taint: Taint) -> bool:
        """Tell whether it covers a taint."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        return self.operator == "Exists" or (bool(self.key) and self.value == taint.value)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """Accelerators that are needed.

    Attributes:
        kind: ``nvidia``, ``amd``, ``intel``, ``jetson`` …; empty for any.
        count: how many.
        memory_bytes: that each must have; 0 for any.
    """

    kind: str = ""
    count: int = 1
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Needs:
    """What a cluster must have room for.

    Attributes:
        memory_bytes: of main memory, on one node.
        disk_bytes: of one version; room for two is kept, as the previous one stays.
        cpu_milli: thousandths of a processor.
        accelerator: None for none.
        arch: architectures that it runs on; empty for any.
        runtimes: (runtime, range of its version) that must be there.
    """

    memory_bytes: int = 0
    disk_bytes: int = 0
    cpu_milli: int = 0
    accelerator: Accelerator | None = None
    arch: frozenset[str] = frozenset()
    runtimes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Variant:
    """One form of a version: another artifact for other needs. The name is empty for the version itself."""

    name: str = ""
    needs: Needs = Needs()


@dataclass(frozen=True, slots=True)
class Target:
    """One cluster as placement sees it.

    Attributes:
        labels: from Git. A label ``kubernetes.io/arch`` or ``edgeferry.dev/platform`` outranks the fact.
        facts: name → (text, time measured); the time is None for one that comes from a label, which has no age.
        taints: from Git.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, tuple[str, datetime | None]] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """What is placed: one model or workload of the catalog.

    Attributes:
        versions: version → is it withdrawn? (reason, or empty).
        channels: channel → version.
        needs: of every version that has no variants.
        variants: version → its variants, the best first.
        delivery: how it reaches its consumer.
        labels: for expressions.
    """

    kind: Literal["model", "workload"]
    name: str
    versions: Mapping[str, str]
    channels: Mapping[str, str] = field(default_factory=dict)
    needs: Needs = Needs()
    variants: Mapping[str, tuple[Variant, ...]] = field(default_factory=dict)
    delivery: str = "server"
    labels: Mapping[str, str] = field(default_factory=dict)

    def forms(self, version: str) -> tuple[Variant, ...]:
        """Return the variants of a version: itself where it has none."""
        return self.variants.get(version) or (Variant("", self.needs),)


@dataclass(frozen=True, slots=True)
class Spread:
    """Even numbers over the values of a label.

    Attributes:
        max_skew: no value may have more than this over the one that has fewest.
        refuse: whether clusters that would break it (or lack the label) are refused; else they only come last.
    """

    key: str
    max_skew: int = 1
    refuse: bool = True


@dataclass(frozen=True, slots=True)
class Preference:
    """Clusters that match the term get this much added to their score, −100 to 100."""

    term: Term
    weight: int


@dataclass(frozen=True, slots=True)
class Rebalance:
    """When a better cluster takes the place of a chosen one.

    Attributes:
        min_gain: of the score, at least.
        max_moves: in one decision, at most; with ``percent`` a percentage of the chosen, at least one.
    """

    min_gain: int = 10
    max_moves: int = 5
    percent: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """A placement, checked against the catalog.

    Attributes:
        version: exact version, range, or ``channel: NAME``.
        terms: OR-ed; None for every cluster, empty for none.
        count: None for all that match.
        priority: the higher one gets the cluster when two policies claim the same subject there.
        prefer: what ranks candidates for free places.
        rebalance: None: chosen clusters keep their places.
        make_before_break: clusters that are left keep the subject until those that get it report it current.
        evict_after_s: a fresh fact that contradicts a term this long removes a chosen cluster; None for never.
        placement: name of the document, where it stands for several policies; else the policy's own name.
    """

    name: str
    kind: Literal["model", "workload"]
    subject: str
    version: str
    terms: tuple[Term, ...] | None = None
    count: int | None = None
    priority: int = 0
    tolerations: tuple[Toleration, ...] = ()
    spread: tuple[Spread, ...] = ()
    prefer: tuple[Preference, ...] = ()
    rebalance: Rebalance | None = None
    make_before_break: bool = False
    evict_after_s: float | None = None
    placement: str = ""

    @property
    def document(self) -> str:
        """Name of the placement's document."""
        return self.placement or self.name


@dataclass(frozen=True, slots=True)
class Incumbent:
    """What the last decision gave one cluster.

    Attributes:
        version: empty for not known.
        variant: empty for the version itself.
        contradicted: measuring time of the first fact that contradicted its placement and has not been taken back.
        arriving: it waits to report its version current; a cluster that is left waits for it.
        leaving: it was left, and keeps what it has until others have it.
    """

    version: str = ""
    variant: str = ""
    contradicted: datetime | None = None
    arriving: bool = False
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class ClusterSet:
    """Clusters of one index, as bits: bit n is the cluster with number n."""

    index: FleetIndex = field(repr=False)
    bits: int

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __contains__(self, name: object) -> bool:
        number = self.index.numbers.get(name) if isinstance(name, str) else None
        return number is not None and bool(self.bits >> number & 1)

    def __iter__(self) -> Iterator[str]:
        """Yield the names, sorted."""
        return iter(self.index.names(self.bits))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a group of clusters was not chosen.

    Attributes:
        code: stable word: ``version``, ``labels``, ``names``, ``workload``, ``facts``, ``expression``, ``delivery``,
            ``taint``, ``arch``, ``accelerator``, ``memory``, ``disk``, ``cpu``, ``runtime``, ``priority``, ``spread``,
            ``count``; for a workload that goes where its models go ``follow``, ``models``.
        text: the reason of the whole group, for people.
    """

    code: str
    text: str
    clusters: ClusterSet


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of one placement: every cluster exactly once.

    Attributes:
        version: the version for all of ``chosen``; empty where no version fits (then nothing is chosen).
        short: how many of ``count`` were not found.
        fault: why nothing could be decided; empty for none.
        variants: variant → those of ``chosen`` that get it; nothing for a version without variants.
        contradicted: chosen cluster → when a fact that contradicts its placement was first measured.
        arriving: those of ``chosen`` that are new and that a cluster which is left waits for.
        leaving: those of ``chosen`` that are left and keep what they have until others have it.
    """

    policy: Policy
    version: str
    chosen: ClusterSet
    refused: tuple[Refusal, ...]
    short: int = 0
    fault: str = ""
    variants: Mapping[str, ClusterSet] = field(default_factory=dict)
    contradicted: Mapping[str, datetime] = field(default_factory=dict)
    arriving: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()

    def incumbents(self) -> dict[str, Incumbent]:
        """Return what the next decision needs to know of this one."""
        variant = {name: one for one, found in self.variants.items() for name in found}
        return {
            name: Incumbent(
                self.version,
                variant.get(name, ""),
                self.contradicted.get(name),
                name in self.arriving,
                name in self.leaving,
            )
            for name in self.chosen
        }
