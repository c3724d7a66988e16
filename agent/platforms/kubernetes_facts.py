"""What is cheap to know of a cluster."""

from __future__ import annotations

from typing import Final

from agent.platforms.kubernetes_client import Api
from agent.platforms.kubernetes_errors import RightMissing
from agent.platforms.kubernetes_objects import Resource

NODES: Final = Resource("v1", "Node", "nodes", False)


def cluster_facts(api: Api) -> dict[str, str]:
    """Return ``kubernetes.version`` and ``nodes.arch``, ``nodes.count``; ``arch`` and ``os`` where all nodes agree.

    Where nodes may not be listed, or there are none, the API server's own platform stands for them.
    """
    version = api.request("GET", "/version", where="/version")
    found = {"kubernetes.version": str(version["gitVersion"])}
    try:
        infos = [
            node["status"]["nodeInfo"]
            for page in api.pages(NODES, "", "")
            for node in page["items"]
            if (node.get("status") or {}).get("nodeInfo")
        ]
        found["nodes.count"] = str(len(infos))
    except RightMissing:
        infos = []
    system, _, architecture = str(version.get("platform", "")).partition("/")
    systems = {info["operatingSystem"] for info in infos} or {system}
    architectures = {info["architecture"] for info in infos} or {architecture}
    found["nodes.arch"] = ",".join(sorted(architectures))
    if len(architectures) == 1:
        found["arch"] = architectures.pop()
    if len(systems) == 1:
        found["os"] = systems.pop()
    return found
