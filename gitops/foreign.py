"""Kinds that other systems have, and what says the same here."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Final

FOREIGN: Final = {
    "PlacementRule": "Placement",
    "PlacementBinding": "Placement (`model:` or `workload:` names what is placed)",
    "PlacementDecision": "nothing: the publisher writes decisions into the fleet repository",
    "PropagationPolicy": "Placement",
    "ClusterPropagationPolicy": "Placement",
    "OverridePolicy": "Placement, with `overrides`",
    "ClusterOverridePolicy": "Placement, with `overrides`",
    "BindingPolicy": "Placement",
    "ClusterSelector": "Placement, with `clusters`",
    "ManagedCluster": "Cluster",
    "ManagedClusterSet": "labels of Cluster documents",
    "ManifestWork": "nothing: the publisher writes overlays into the fleet repository",
    "ManifestWorkReplicaSet": "Workload and Placement",
    "ClusterGroup": "labels of Cluster documents",
    "GitRepo": "Source",
    "GitRepository": "Source",
    "RootSync": "Source",
    "RepoSync": "Source",
    "Channel": "Source, or `channels` of a Model",
    "Subscription": "Placement",
    "Bundle": "Workload",
    "BundleDeployment": "nothing: the publisher writes overlays into the fleet repository",
    "Kustomization": "Workload, with built manifests in its versions/VERSION/",
    "HelmRelease": "Workload, with built manifests in its versions/VERSION/",
    "HelmChart": "Workload, with built manifests in its versions/VERSION/",
    "Application": "Workload and Placement",
    "ApplicationSet": "Workload and Placement",
    "AppProject": "Source, with `allow`",
    "InferenceService": "Model and Placement",
    "ServingRuntime": "Runtime",
    "ClusterServingRuntime": "Runtime",
    "TrainedModel": "ModelVersion",
    "RolloutPlan": "Placement",
    "DeploymentPolicy": "Placement",
    "NodeGroup": "labels of Cluster documents",
    "EdgeApplication": "Workload and Placement",
}
"""Kind → what to write instead.

Source: Open Cluster Management, Karmada, KubeStellar, Fleet, Flux, Argo CD, Config Sync, KServe, KubeEdge and Open
Horizon.
"""


def instead(kind: str, ours: Collection[str]) -> str:
    """Return what to do about a kind that is not ours."""
    if kind in FOREIGN:
        return f"here it is {FOREIGN[kind]}"
    near = difflib.get_close_matches(kind, ours, 1)
    return f"did you mean {near[0]}?" if near else f"the kinds are {', '.join(sorted(ours))}"
