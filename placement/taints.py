"""Taints of clusters against the tolerations of a policy. Pure.

Source: Kubernetes taints and tolerations; the effects after Open Cluster Management, which ignores PreferNoSelect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from placement.index import FleetIndex
from placement.postings import as_bits
from placement.types import Taint, TaintEffect, Toleration


def untolerated(
    index: FleetIndex, tolerations: Sequence[Toleration], effect: TaintEffect
) -> Iterator[tuple[Taint, int]]:
    """Yield every taint of one effect that no toleration covers, with the clusters that have it, in order."""
    for taint, found in sorted(index.taints.items()):
        if taint.effect == effect and not any(one.tolerates(taint) for one in tolerations):
            yield taint, as_bits(found)
