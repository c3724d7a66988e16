"""One policy and the fleet → a decision: who is chosen, and a reason for every other. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from placement.choose import choose
from placement.conflicts import holder_text
from placement.evict import evicted
from placement.handover import handed_over
from placement.index import PLATFORM, FleetIndex
from placement.needs import fit
from placement.scene import Scene
from placement.score import groups
from placement.standing import Previous, Standing, standing
from placement.taints import untolerated
from placement.terms import admit
from placement.types import ClusterSet, Decision, Policy, Refusal, Subject
from placement.versions import parse_wish, resolve
from placement.wording import wanted

NOT_ON_HOSTS: Final = frozenset({"container", "chart"})
"""Deliveries that need Kubernetes."""

ALONE: Final = Scene()


def decide(
    policy: Policy, subject: Subject, index: FleetIndex, previous: Previous, now: datetime, scene: Scene = ALONE
) -> Decision:
    """Choose the clusters for one policy and say why every other lost.

    A cluster chosen before that still passes keeps its place; free places go to the best score, then the first names.

    Args:
        policy: already checked against the catalog.
        subject: the model or workload that it places.
        index: all clusters of the fleet.
        previous: the last decision of this policy.
        now: for the ages of facts, timezone-aware.
        scene: what was decided before; the room in it is read and not filled.

    Returns:
        Every cluster exactly once: in ``chosen``, or under one reason in ``refused``.

    Source: filter, score, select after Open Cluster Management (docs/adr/0003-placement.md).
    """
    version, fault = resolve(parse_wish(policy.version), subject)
    if fault:
        everybody = Refusal("version", fault, ClusterSet(index, index.everything))
        refused = (everybody,) if index.everything else ()
        return Decision(policy, "", ClusterSet(index, 0), refused, policy.count or 0, fault)
    before = standing(previous, version, index)
    sieve = _Sieve(index)
    contradicted = _terms(sieve, policy, subject, index, before, now, scene)
    _delivery_and_taints(sieve, policy, subject, index, before)
    fitted = fit(subject.forms(version), index, scene.room, sieve.left, before.bits, before.variants)
    for lack in fitted.lacks:
        sieve.refuse(*lack)
    chosen = _places(sieve, policy, subject, index, before, now, scene)
    short = 0 if policy.count is None else max(0, policy.count - chosen.bit_count())
    decision = Decision(
        policy,
        version,
        ClusterSet(index, chosen),
        tuple(sieve.refused),
        short,
        variants=_variants(subject, version, fitted.variants, chosen, index),
        contradicted={name: at for name, at in contradicted.items() if chosen >> index.numbers[name] & 1},
    )
    return handed_over(decision, before, scene) if policy.make_before_break else decision


class _Sieve:
    """The clusters that passed so far, and the refusals of the others."""

    def __init__(self, index: FleetIndex) -> None:
        self._index = index
        self.left = index.everything
        self.refused: list[Refusal] = []

    def refuse(self, code: str, text: str, bits: int) -> None:
        """Take clusters out; those that are out already keep their reason."""
        bits &= self.left
        if bits:
            self.refused.append(Refusal(code, text, ClusterSet(self._index, bits)))
            self.left &= ~bits


def _terms(
    sieve: _Sieve, policy: Policy, subject: Subject, index: FleetIndex, before: Standing, now: datetime, scene: Scene
) -> dict[str, datetime]:
    """Refuse whom the terms do not select; return since when facts contradict the places of the others."""
    said = admit(policy.terms, wanted(policy), subject, index, scene, before.bits, now)
    for refusal in said.refused:
        sieve.refuse(*refusal)
    if policy.evict_after_s is None:
        return {}
    contradicted, out = evicted(policy, policy.evict_after_s, said, before, index, now)
    for text, bits in out:
        sieve.refuse("facts", text, bits)
    return contradicted


def _delivery_and_taints(sieve: _Sieve, policy: Policy, subject: Subject, index: FleetIndex, before: Standing) -> None:
    if subject.delivery in NOT_ON_HOSTS:
        hosts = dict(index.known(PLATFORM)).get("host", 0)
        sieve.refuse("delivery", f"platform host runs no {subject.delivery}s", hosts)
    for taint, bits in untolerated(index, policy.tolerations, "NoSelect"):
        sieve.refuse("taint", f"taint {taint}", bits)
    for taint, bits in untolerated(index, policy.tolerations, "NoSelectIfNew"):
        sieve.refuse("taint", f"taint {taint}", bits & ~before.bits)


def _places(
    sieve: _Sieve, policy: Policy, subject: Subject, index: FleetIndex, before: Standing, now: datetime, scene: Scene
) -> int:
    """Give away the places; refuse who is held by others, too many, or too uneven."""
    keeping = before.bits & ~before.leaving
    held = 0
    for one in scene.held:
        held |= one.chosen.bits
    if held & sieve.left:
        # Who would have had a place says who took it; the others are refused for the reason that they would have had.
        wanted_places = _chosen(policy, subject, index, sieve.left, keeping, now, scene)[0]
        for one in scene.held:
            sieve.refuse("priority", holder_text(policy, one.policy), wanted_places & one.chosen.bits)
    chosen, uneven = _chosen(policy, subject, index, sieve.left & ~held, keeping, now, scene)
    others = sieve.left & ~chosen
    fitting = sieve.left.bit_count()
    for text, bits in uneven:
        sieve.refuse("spread", text, bits & others)
    sieve.refuse("count", f"{fitting} fit, {policy.count} wanted", others)
    return chosen


def _chosen(
    policy: Policy, subject: Subject, index: FleetIndex, candidates: int, keeping: int, now: datetime, scene: Scene
) -> tuple[int, tuple[tuple[str, int], ...]]:
    is_everybody = policy.count is None or candidates.bit_count() <= policy.count
    if is_everybody and not policy.spread:
        return candidates, ()
    ranked = groups(policy, subject, index, scene, candidates, now)
    firm = groups(policy, subject, index, scene, candidates, now, by_labels=True) if policy.rebalance else ()
    choice = choose(policy, index, ranked, keeping, firm)
    return choice.chosen, choice.uneven


def _variants(
    subject: Subject, version: str, fitted: Mapping[str, int], chosen: int, index: FleetIndex
) -> dict[str, ClusterSet]:  # fmt: skip
    if not subject.variants.get(version):
        return {}
    return {name: ClusterSet(index, bits & chosen) for name, bits in fitted.items() if bits & chosen}
