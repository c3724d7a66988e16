"""A decision → the clusters that move in this step. Pure.

Deciding says where a version belongs; this says who goes there now. No policy of this version has waves, so everybody
goes at once.
"""

from __future__ import annotations

from placement.types import ClusterSet, Decision


def targets(decision: Decision) -> ClusterSet:
    """Return the clusters of ``decision.chosen`` that get its version in this step: all of them."""
    return decision.chosen
