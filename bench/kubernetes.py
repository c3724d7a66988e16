"""``kubernetes-1000-time|memory|change``: what 1,000 objects in one overlay cost an agent on a real API server.

A workload of 500 Deployments scaled to zero and 500 ConfigMaps goes the whole way: git push, hub, overlay, agent, API
server with controllers. ``time`` is from the start of an agent that has joined until the hub shows the workload as
current; ``change`` from the push of one changed ConfigMap until the API server has it. Memory is the agent's peak of
resident pages over both. The reference is ``kubectl apply --server-side`` of the same directory on the same server, and
the directory with the same change again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.figure import figure
from gitops.demo.documents import cluster, document, placement
from gitops.demo.fleet import Fleet
from tests.cluster import binary, control_plane
from tests.cluster.control_plane import ControlPlane

PAIRS = 500
TIME_TARGET_S = 60.0
MEMORY_TARGET_MIB = 96.0
CHANGE_TARGET_S = 2.0
NAMESPACE = "thousand"
CHANGED = "settings-0250"


def objects(namespace: str, changed: str) -> dict[str, str]:
    """Return file name → manifest of every object; ``changed`` is the value of the one that changes."""
    files = {}
    for number in range(PAIRS):
        name = f"settings-{number:04}"
        value = changed if name == CHANGED else "0.6"
        meta = {"name": name, "namespace": namespace}
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"threshold": value}}
        files[f"{name}.yaml"] = json.dumps(body)
        name = f"worker-{number:04}"
        labels = {"app": name}
        container = {
            "name": "worker",
            "image": "registry.example/worker:1",
            "env": [{"name": "N", "value": str(number)}],
        }
        spec = {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        }
        meta = {"name": name, "namespace": namespace}
        files[f"{name}.yaml"] = json.dumps(
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}
        )
    return files


def cpu_s(process: int) -> float:
    """Return the CPU time that a process has used, in s."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(process: int) -> float:
    """Return the most memory that a process ever had resident, in MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def timed(work: Callable[[], object]) -> float:
    """Return how long something took, in s."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def health(fleet: Fleet) -> str:
    """Return what the hub says of the workload."""
    told = [one for one in fleet.status()["clusters"] if one["name"] == "edge-07"]
    return next((str(one["health"]) for one in told[0]["entries"]), "") if told else ""


def main() -> None:
    """Print the figures."""
    components = binary.build(print)
    root = Path(tempfile.mkdtemp(prefix="edgeferry-bench-"))
    server: ControlPlane | None = None
    fleet = Fleet(root / "fleet")
    try:
        server = control_plane.create(root / "cluster", components, controllers=True, dies_with_us=True)
        fleet.open()
        measure(root, server, fleet)
    finally:
        fleet.close()
        if server is not None:
            control_plane.destroy(server)
        shutil.rmtree(root, ignore_errors=True)


def measure(root: Path, server: ControlPlane, fleet: Fleet) -> None:
    """Play both ways on one API server, and print."""
    kubectl = [str(server.binary.parent / "kubectl"), f"--kubeconfig={server.kubeconfig}"]

    def kube(*arguments: str) -> str:
        return subprocess.run([*kubectl, *arguments], capture_output=True, text=True, check=True).stdout

    def value(namespace: str) -> str:
        command = [
            *kubectl,
            "get",
            "configmap",
            CHANGED,
            f"--namespace={namespace}",
            "--output=jsonpath={.data.threshold}",
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    for namespace in (NAMESPACE, "reference"):
        kube("create", "namespace", namespace)
    theirs = root / "reference"
    theirs.mkdir()
    for name, text in objects("reference", "0.6").items():
        (theirs / name).write_text(text)
    apply = ("apply", "--server-side", "--filename", str(theirs))
    reference = timed(lambda: kube(*apply))
    (theirs / f"{CHANGED}.yaml").write_text(objects("reference", "0.7")[f"{CHANGED}.yaml"])
    reference_change = timed(lambda: kube(*apply))

    fleet.init(empty=True)
    files: dict[str, str | bytes | None] = {
        "workloads/thousand/workload.yaml": document("Workload", "thousand", {"namespace": NAMESPACE}),
        **{f"workloads/thousand/versions/1.0.0/{name}": text for name, text in objects(NAMESPACE, "0.6").items()},
        **cluster("edge-07"),
        **placement("thousand", workload="thousand"),
    }
    fleet.commit("A thousand objects", files)
    fleet.start_hub()
    fleet.join("edge-07", "--platform", "kubernetes", "--kubeconfig", str(server.kubeconfig))
    whole = timed(lambda: fleet.until("the workload is current", lambda: health(fleet) == "current", 300))
    agent = fleet.host("edge-07").agent
    assert agent is not None
    process = agent.process.pid
    spent = cpu_s(process)
    changed = {f"workloads/thousand/versions/1.1.0/{name}": text for name, text in objects(NAMESPACE, "0.7").items()}
    fleet.commit("One threshold", dict(changed))
    change = timed(lambda: fleet.until("the change is there", lambda: value(NAMESPACE) == "0.7", 120))
    changed_cpu = cpu_s(process) - spent
    made = f"{2 * PAIRS} objects, agent CPU {spent:.1f} s"
    figure("kubernetes-1000-time", whole, "s", TIME_TARGET_S, {"kubectl-apply": reference}, made)
    figure("kubernetes-1000-memory", peak_mib(process), "MiB", MEMORY_TARGET_MIB, {})
    note = f"from git push to the API server, agent CPU {changed_cpu:.2f} s"
    figure("kubernetes-1000-change", change, "s", CHANGE_TARGET_S, {"kubectl-apply": reference_change}, note)


if __name__ == "__main__":
    main()
