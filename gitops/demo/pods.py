"""A site that is a Kubernetes cluster: joined by the chart, seen through kubectl."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gitops.demo.places import Place
from gitops.demo.processes import Background, environment, run
from gitops.demo.sites import Kind

MODELS: Final = "edgeferry-models"
AGENT: Final = "edgeferry"
"""Namespaces of models and of the agent."""

_LABELS: Final[dict[Kind, str]] = {"model": "edgeferry.dev/model", "workload": "app=reader"}
_IN_AGENT: Final = ("exec", "deployment/edgeferry-agent", f"--namespace={AGENT}", "--")
_PROXY: Final = re.compile(r"Starting to serve on (\S+:\d+)")
_STAGED: Final = """
import pathlib, sys
for one in sorted(pathlib.Path("/var/lib/edgeferry/content").rglob(sys.argv[1] + ".onnx")):
    print(one, one.stat().st_ino, one.stat().st_mtime_ns)
"""

_MODELS: Final = """
import pathlib
print(*pathlib.Path("/var/lib/edgeferry/models").glob("*/current"))
"""


@dataclass(slots=True)
class PodSite:
    """A Kubernetes cluster.

    Attributes:
        kubectl: the command with what it needs to reach the cluster.
        root: directory for its files and logs.
        place: from where its addresses are reached: the proxy makes that here.
    """

    name: str
    kubectl: tuple[str, ...]
    root: Path
    place: Place = field(default_factory=Place)
    _proxy: Background | None = None
    _address: str = ""

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        """Return objects as `kubectl get` lists them; none where the kind or the namespace is not there."""
        done = self._call("get", *arguments, "--output=json", "--ignore-not-found")
        value = json.loads(done.stdout) if done.stdout.strip() else {}
        found: list[dict[str, Any]] = value.get("items", [value] if value else [])
        return found

    def run(self, *arguments: str) -> str:
        """Run kubectl and return what it printed.

        Raises:
            RuntimeError: it failed.
        """
        return run([*self.kubectl, *arguments])

    def ask(self, *arguments: str) -> str:
        """Run kubectl and return what it printed, also where it failed."""
        return self._call(*arguments).stdout

    def url(self, name: str) -> str:
        """Return the address of a Service by way of the API server; empty where there is no such Service."""
        services = self.get("service", name, f"--namespace={MODELS}")
        if not services:
            return ""
        port = services[0]["spec"]["ports"][0]["port"]
        return f"http://{self._reached()}/api/v1/namespaces/{MODELS}/services/{name}:{port}/proxy"

    def running(self, kind: Kind) -> tuple[str, ...]:
        """Return uid and restarts of the pods that do not end."""
        pods = self.get("pods", f"--namespace={MODELS}", f"--selector={_LABELS[kind]}")
        return tuple(sorted(map(_identity, (one for one in pods if "deletionTimestamp" not in one["metadata"]))))

    def staged(self, model: str) -> list[tuple[str, ...]]:
        """Return path, inode and time of every file on the node, as the agent's pod sees them."""
        told = self.run(*_IN_AGENT, "python3.11", "-c", _STAGED, model)
        return [tuple(line.split()) for line in told.splitlines()]

    def leftovers(self) -> list[str]:
        """Return our objects in the models' namespace, and models' files on the node."""
        kinds = "deployments,services,configmaps,pods"
        ours = self.get(kinds, f"--namespace={MODELS}", "--selector=app.kubernetes.io/managed-by=edgeferry")
        found = [f"{one['kind']}/{one['metadata']['name']}" for one in ours]
        return found + self.run(*_IN_AGENT, "python3.11", "-c", _MODELS).split()

    def put_foreign(self) -> None:
        """Put a ConfigMap beside the models."""
        self.run("create", "configmap", "notes", f"--namespace={MODELS}", "--from-literal=text=not ours")

    def foreign(self) -> str:
        """Return the ConfigMap's identity and content."""
        found = self.get("configmap", "notes", f"--namespace={MODELS}")
        return f"{found[0]['metadata']['uid']} {found[0]['data']}" if found else ""

    def log(self) -> str:
        """Return the last lines of the agent's log, and what the cluster says of our pods."""
        done = self._call("logs", "deployment/edgeferry-agent", f"--namespace={AGENT}", "--tail=15", "--all-containers")
        pods = self._call("get", "pods", "--all-namespaces")
        events = self._call("get", "events", f"--namespace={MODELS}", "--sort-by=.lastTimestamp").stdout
        return f"{done.stdout}{done.stderr}{pods.stdout}" + "\n".join(events.splitlines()[-8:])

    def stop(self) -> None:
        """End what runs here for it; the cluster stays as it is."""
        if self._proxy is not None:
            self._proxy.stop()

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.kubectl, *arguments], capture_output=True, text=True, check=False, env=environment(), timeout=60
        )

    def _reached(self) -> str:
        if self._proxy is None or not self._proxy.alive:
            log = self.root / f"{self.name}-proxy.log"
            log.unlink(missing_ok=True)
            self._proxy = Background([*self.kubectl, "proxy", "--port=0"], log, {"EDGEFERRY_DEMO": str(self.root)})
            deadline = time.monotonic() + 20
            while not (found := _PROXY.search(log.read_text())):
                if time.monotonic() > deadline or not self._proxy.alive:
                    raise RuntimeError(f"`kubectl proxy` does not serve: {log.read_text()[-500:]}")
                time.sleep(0.02)
            self._address = found[1]
        return self._address


def _identity(pod: dict[str, Any]) -> str:
    restarts = sum(int(one["restartCount"]) for one in pod.get("status", {}).get("containerStatuses", ()))
    return f"{pod['metadata']['name']} {pod['metadata']['uid']} {restarts}"


def join(site: PodSite, chart: Path, helm: tuple[str, ...], token: str, values: Mapping[str, Any]) -> None:
    """Install the agent's chart on a cluster, as a person does with the token's line.

    Args:
        site: where.
        chart: charts/agent.
        helm: the command with what it needs to reach the cluster.
        token: a join token; it goes by a file that only we read.
        values: of the chart, besides the token.

    Raises:
        RuntimeError: helm refuses.
    """
    path = site.root / f"{site.name}-values.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps({"cluster": site.name, "token": {"value": token}, **values}))
    run(
        [
            *helm,
            "install",
            "edgeferry-agent",
            str(chart),
            f"--namespace={AGENT}",
            "--create-namespace",
            f"--values={path}",
        ]
    )
    path.unlink()
