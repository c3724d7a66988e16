"""Even numbers of chosen clusters over the values of labels. Pure.

Source: Kubernetes topology spread constraints: a cluster may be taken where its value has then at most ``maxSkew`` more
than the value that has fewest, counting the values that candidates have.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from placement.index import FleetIndex
from placement.postings import as_bits, numbers_of
from placement.types import Spread

_Domain = tuple[str | None, ...]
"""A cluster's values of the labels that are spread over."""


class Evenness:
    """Counts the chosen by value, and says who may come next.

    Args:
        spread: the rules, all of which hold together.
        candidates: bits of everybody who may be chosen.
        kept: bits of those that have their places in any case.
    """

    def __init__(self, spread: Sequence[Spread], index: FleetIndex, candidates: int, kept: int) -> None:
        self._spread = spread
        self._values: list[dict[int, str]] = []
        self._counts: list[dict[str, int]] = []
        for rule in spread:
            values: dict[int, str] = {}
            counts: dict[str, int] = {}
            for value, found in sorted(index.values.get(rule.key, {}).items()):
                bits = as_bits(found) & candidates
                if bits:
                    counts[value] = (bits & kept).bit_count()
                    values.update(dict.fromkeys(numbers_of(bits), value))
            self._values.append(values)
            self._counts.append(counts)
        self._tallies = [Counter(counts.values()) for counts in self._counts]
        self._least = [min(counts.values(), default=0) for counts in self._counts]

    def fill(self, newcomers: Iterable[int], places: int) -> int:
        """Take newcomers for free places, the first in order that may come; count them, and return their bits.

        Those who break a rule that only allows come after all others.
        """
        queues: dict[_Domain, list[tuple[int, int]]] = {}
        for rank, number in enumerate(newcomers):
            queues.setdefault(self._domain(number), []).append((rank, number))
        heads = [(queue[0][0], domain) for domain, queue in queues.items()]
        taken, waiting = 0, heads
        for strict in (True, False):
            done, waiting, places = self._take(queues, waiting, places, strict)
            taken |= done
        return taken

    def may_swap(self, leaving: int, coming: int) -> bool:
        """Tell whether a newcomer may take an incumbent's place; count it where it may."""
        before, after = self._domain(leaving), self._domain(coming)
        self._count(before, -1)
        if before == after or self._may(after, strict=True):
            self._count(after, 1)
            return True
        self._count(before, 1)
        return False

    def reasons(self, others: int) -> Iterator[tuple[str, int]]:
        """Yield why clusters cannot come, by the first rule that keeps them out, each once."""
        for place, rule in enumerate(self._spread):
            if not rule.refuse:
                continue
            counts = self._counts[place]
            least = min(counts, key=lambda value: (counts[value], value), default="")
            groups: dict[str | None, int] = {}
            for number in numbers_of(others):
                value = self._values[place].get(number)
                if value is None or counts[value] + 1 - counts[least] > rule.max_skew:
                    groups[value] = groups.get(value, 0) | 1 << number
            for value, bits in sorted(groups.items(), key=lambda one: one[0] or ""):
                others &= ~bits
                if value is None:
                    yield f"it has no label {rule.key}, which the placement spreads over", bits
                else:
                    fewest = "" if least == value else f", {least} {counts[least]}"
                    yield f"{rule.key} {value} has {counts[value]}{fewest}: maxSkew {rule.max_skew}", bits

    def _take(
        self, queues: dict[_Domain, list[tuple[int, int]]], heads: list[tuple[int, _Domain]], places: int, strict: bool
    ) -> tuple[int, list[tuple[int, _Domain]], int]:
        heap, blocked, taken = [(rank, n) for n, (rank, _) in enumerate(heads)], [], 0
        domains = [domain for _, domain in heads]
        used = dict.fromkeys(domains, 0)
        heapq.heapify(heap)
        while heap and places > 0:
            rank, n = heapq.heappop(heap)
            domain = domains[n]
            if not self._may(domain, strict):
                blocked.append((rank, n))
                continue
            queue = queues[domain]
            taken |= 1 << queue[used[domain]][1]
            places -= 1
            used[domain] += 1
            grown = self._count(domain, 1)
            if used[domain] < len(queue):
                heapq.heappush(heap, (queue[used[domain]][0], n))
            if grown:
                for one in blocked:
                    heapq.heappush(heap, one)
                blocked = []
        for domain, number in used.items():
            queues[domain] = queues[domain][number:]
        return taken, [(queue[0][0], domain) for domain, queue in queues.items() if queue], places

    def _domain(self, number: int) -> _Domain:
        return tuple(values.get(number) for values in self._values)

    def _may(self, domain: _Domain, strict: bool) -> bool:
        for rule, counts, least, value in zip(self._spread, self._counts, self._least, domain, strict=True):
            binding = rule.refuse or strict
            if binding and (value is None or counts[value] + 1 - least > rule.max_skew):
                return False
        return True

    def _count(self, domain: _Domain, step: int) -> bool:
        """Count one; tell whether the least of any rule grew, so that others may come that could not."""
        grown = False
        for place, value in enumerate(domain):
            if value is None:
                continue
            counts, tally = self._counts[place], self._tallies[place]
            before = counts[value]
            counts[value] += step
            tally[before] -= 1
            tally[before + step] += 1
            if step < 0:
                self._least[place] = min(self._least[place], before + step)
            elif before == self._least[place] and not tally[before]:
                self._least[place] = before + step
                grown = True
        return grown
