"""The values that placement takes and gives. Nothing here knows of documents, Git or clusters' APIs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from placement.index import FleetIndex

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist"]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One label requirement, exactly Kubernetes: NotIn and DoesNotExist hold where the key is absent."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Term:
    """One way to be selected: every part that is given must hold.

    Attributes:
        names: exact cluster names; None for any.
        requirements: label requirements, ``matchLabels`` folded in as ``In`` of one value.
    """

    names: frozenset[str] | None = None
    requirements: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """One cluster as placement sees it.

    Attributes:
        labels: from Git. A label ``kubernetes.io/arch`` or ``edgeferry.dev/platform`` outranks the fact.
        facts: name → (value, time measured).
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, tuple[str, datetime]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is placed: one model or workload of the catalog.

    Attributes:
        versions: version → is it withdrawn? (reason, or empty).
        channels: channel → version.
        arch: architectures that it runs on; empty for any.
        delivery: how it reaches its consumer.
    """

    kind: Literal["model", "workload"]
    name: str
    versions: Mapping[str, str]
    channels: Mapping[str, str] = field(default_factory=dict)
    arch: frozenset[str] = frozenset()
    delivery: str = "server"


@dataclass(frozen=True, slots=True)
class Policy:
    """A placement, checked against the catalog.

    Attributes:
        version: exact version, range, or ``channel: NAME``.
        terms: OR-ed; None for every cluster, empty for none.
        count: None for all that match.
        priority: the higher one gets the cluster when two policies claim the same subject there.
    """

    name: str
    kind: Literal["model", "workload"]
    subject: str
    version: str
    terms: tuple[Term, ...] | None = None
    count: int | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Chosen:
    """Where and what: one cluster of a decision."""

    cluster: str
    version: str


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
        code: stable word: ``version``, ``labels``, ``names``, ``delivery``, ``arch``, ``count``, ``priority``; for a
            workload that goes where its models go ``follow``, ``models``.
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
    """

    policy: Policy
    version: str
    chosen: ClusterSet
    refused: tuple[Refusal, ...]
    short: int = 0
    fault: str = ""
