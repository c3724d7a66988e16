"""How every cluster is to go about its release: windows, what is kept, what goes back, what is tried again. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.wire.release import MaxOffline
from gitops import kinds
from gitops.catalog_types import Catalog
from gitops.orders import Ordered
from gitops.render.overlay import PLAIN, Manner
from gitops.rolling import Rolled, to_windows
from gitops.rollout_spec import seconds
from placement.types import Decision


def manners(catalog: Catalog, decisions: Mapping[str, Decision], rolled: Rolled, ordered: Ordered) -> dict[str, Manner]:
    """Return cluster → manner, of every cluster of which it is not plain.

    Args:
        catalog: checked.
        decisions: by name.
        rolled: what goes back, and what is tried again.
        ordered: what people ordered.
    """
    keep = catalog.fleet.deletion_policy == "keep"
    found = {
        name: Manner(to_windows(one), keep, max_offline=_max_offline(one))
        for name, one in catalog.special.items()
        if one.spec.windows or keep or one.spec.max_offline_age is not None
    }
    if keep:
        found = dict.fromkeys(catalog.clusters, Manner(keep=True)) | found
    returns: dict[str, list[str]] = {}
    retries: dict[str, dict[str, str]] = {}
    for name in sorted(rolled.progress):
        policy, state = decisions[name].policy, rolled.progress[name]
        what = f"{policy.kind}/{policy.subject}"
        again = state.number - 1 in ordered.of(name, state.number).retried and state.phase != "complete"
        for cluster, place in state.places.items():
            if name in rolled.reverted and place.target:
                returns.setdefault(cluster, []).append(what)
            if again and place.target:
                retries.setdefault(cluster, {})[what] = ordered.retries[name]
    for cluster in returns.keys() | retries.keys():
        one = found.get(cluster, PLAIN)
        found[cluster] = replace(one, returns=tuple(returns.get(cluster, ())), retries=retries.get(cluster, {}))
    return found


def _max_offline(cluster: kinds.Cluster) -> MaxOffline | None:
    limit = cluster.spec.max_offline_age
    return None if limit is None else MaxOffline(int(seconds(limit.age)), limit.action)
