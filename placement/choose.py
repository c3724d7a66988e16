"""Candidates → the chosen: incumbents first, then the best for the free places, evenly where that is asked. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from placement.index import FleetIndex
from placement.postings import numbers_of
from placement.score import Groups
from placement.spread import Evenness
from placement.types import Policy, Rebalance


@dataclass(frozen=True, slots=True)
class Choice:
    """Who has a place.

    Attributes:
        chosen: bits.
        uneven: reason → bits of those that a spread keeps out.
    """

    chosen: int
    uneven: tuple[tuple[str, int], ...] = ()


def choose(policy: Policy, index: FleetIndex, ranked: Groups, incumbents: int, firm: Groups) -> Choice:
    """Fill the places of a policy.

    Args:
        ranked: the candidates by score, incumbents among them.
        incumbents: bits of those that keep their places.
        firm: the same by labels alone, for rebalancing.
    """
    candidates = 0
    for _, bits in ranked:
        candidates |= bits
    kept = candidates & incumbents
    places = candidates.bit_count() if policy.count is None else policy.count
    if kept.bit_count() >= places:
        kept = best(ranked, kept, places, index)
    if not policy.spread:
        chosen = kept | best(ranked, candidates & ~kept & ~incumbents, places - kept.bit_count(), index)
        return Choice(_rebalanced(policy, index, firm, chosen, kept, candidates, None))
    even = Evenness(policy.spread, index, candidates, kept)
    newcomers = (number for _, bits in ranked for number in numbers_of(bits & ~kept & ~incumbents))
    chosen = kept | even.fill(newcomers, places - kept.bit_count())
    chosen = _rebalanced(policy, index, firm, chosen, kept, candidates, even)
    return Choice(chosen, tuple(even.reasons(candidates & ~chosen & ~incumbents)))


def best(ranked: Groups, among: int, places: int, index: FleetIndex) -> int:
    """Return the bits of the first ``places`` clusters among some, by score and name."""
    found = 0
    for _, bits in ranked:
        if places <= 0:
            break
        taken = index.first(bits & among, places)
        found |= taken
        places -= taken.bit_count()
    return found


def _rebalanced(
    policy: Policy, index: FleetIndex, firm: Groups, chosen: int, kept: int, candidates: int, even: Evenness | None
) -> int:
    """Let better clusters take the places of incumbents, as far as the policy allows."""
    rule = policy.rebalance
    if rule is None or policy.count is None:
        return chosen
    moves = _most(rule, chosen.bit_count())
    coming = _ordered(firm, candidates & ~chosen)
    going = list(_ordered(firm, kept))[::-1]
    for score, number in coming:
        if not moves or not going:
            break
        worst, last = going[0]
        if score - worst < rule.min_gain:
            break
        if even is not None and not even.may_swap(last, number):
            continue
        going.pop(0)
        chosen = chosen & ~(1 << last) | 1 << number
        moves -= 1
    return chosen


def _most(rule: Rebalance, chosen: int) -> int:
    return max(1, chosen * rule.max_moves // 100) if rule.percent else rule.max_moves


def _ordered(firm: Groups, among: int) -> Iterator[tuple[int, int]]:
    for score, bits in firm:
        yield from ((score, number) for number in numbers_of(bits & among))
