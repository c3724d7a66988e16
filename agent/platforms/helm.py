"""Helm, by its own command line: each call is a process of its own, and its memory goes with it.

A lock is handed down to the process, so that a Helm whose agent was killed is waited for and never met by a second one.
docs/adr/0014-helm-at-the-edge.md says why no library stands between.

Source: https://helm.sh/docs/helm/
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.platforms.kubernetes_errors import (
    ApiUnreachable,
    NamespaceMissing,
    QuotaExceeded,
    RightMissing,
)
from agent.wire.canonical import Json
from agent.wire.errors import Retry, Stop

HISTORY: Final = 5
"""Revisions of a release that Helm keeps."""

_HOOKS: Final = "2m"
_PATIENCE_S: Final = 300.0
_SAID: Final = 600


class HelmMissing(Retry):
    """There is no Helm 3 here."""

    code = "EF4301"
    delay_s = 60.0


class HelmBusy(Retry):
    """An earlier Helm of this agent is still at work."""

    code = "EF4302"
    delay_s = 3.0


class ChartRefused(Stop):
    """The chart cannot be rendered with these values, or Helm says that it is no chart."""

    code = "EF4304"


class HelmFailed(Stop):
    """Helm could not bring the release up: a hook failed, or the API server refused an object."""

    code = "EF4305"


class HelmHangs(Retry):
    """Helm did not end in time and was stopped."""

    code = "EF4306"
    delay_s = 30.0


@dataclass(frozen=True, slots=True)
class Rendered:
    """What Helm makes of a chart.

    Attributes:
        manifest: YAML of the objects.
        hooks: YAML of the hooks' objects.
    """

    manifest: str
    hooks: str


def find_helm(wanted: str) -> str:
    """Return the path of the Helm program; empty where there is none.

    Args:
        wanted: of agent.json; empty for the one on PATH.
    """
    return shutil.which(wanted or "helm") or ""


@dataclass(frozen=True, slots=True)
class Helm:
    """Runs Helm on one cluster.

    Attributes:
        program: path of Helm 3.
        kubeconfig: empty for the pod's own account.
        home: directory for its lock and what it may write.
        crds: may charts bring CustomResourceDefinitions?
    """

    program: str
    kubeconfig: str
    home: Path
    crds: bool = False

    def render(self, release: str, namespace: str, chart: Path, values: Mapping[str, Json]) -> Rendered:
        """Return what an upgrade would apply, judged by the API server; nothing is changed.

        Raises:
            EdgeferryError: see the classes here, and kubernetes_errors.py.
        """
        out = self._upgrade(release, namespace, chart, values, ["--dry-run=server", "--output", "json"])
        found: dict[str, Any] = json.loads(out)
        hooks = [str(one.get("manifest", "")) for one in found.get("hooks") or ()]
        return Rendered(str(found.get("manifest", "")), "\n---\n".join(hooks))

    def upgrade(
        self, release: str, namespace: str, chart: Path, values: Mapping[str, Json], labels: Mapping[str, str], why: str
    ) -> None:
        """Install a release, or upgrade it; objects of a release that was lost are taken over.

        Raises:
            EdgeferryError: as for ``render``; a release that failed stays in Helm's history.
        """
        pairs = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        options = ["--history-max", str(HISTORY), "--labels", pairs, "--description", why, "--timeout", _HOOKS]
        self._upgrade(release, namespace, chart, values, [*options, "--cleanup-on-fail"])

    def rollback(self, release: str, namespace: str, revision: int) -> None:
        """Return a release to a revision that Helm still knows, as a new revision.

        Raises:
            EdgeferryError: as for ``render``.
        """
        options = ["--history-max", str(HISTORY), "--timeout", _HOOKS, "--cleanup-on-fail"]
        self._run(["rollback", release, str(revision), *options], namespace, release)

    def manifest(self, release: str, namespace: str, revision: int) -> str:
        """Return the YAML of a revision's objects.

        Raises:
            EdgeferryError: as for ``render``.
        """
        return self._run(["get", "manifest", release, "--revision", str(revision)], namespace, release).decode()

    def uninstall(self, release: str, namespace: str) -> None:
        """Take a release away with its objects; one that is not there is gone already.

        Raises:
            EdgeferryError: as for ``render``.
        """
        command = ["uninstall", release, "--ignore-not-found", "--cascade", "background", "--timeout", _HOOKS]
        self._run(command, namespace, release)

    def _upgrade(
        self, release: str, namespace: str, chart: Path, values: Mapping[str, Json], options: list[str]
    ) -> bytes:
        command = ["upgrade", release, str(chart), "--install", "--values", "-", "--reset-values", *options]
        command.append("--take-ownership")  # whose the objects are is judged by the agent, before
        if not self.crds:
            command.append("--skip-crds")
        return self._run(command, namespace, release, json.dumps(values).encode())

    def _run(self, command: list[str], namespace: str, release: str, stdin: bytes = b"") -> bytes:
        where = f"release {namespace}/{release}"
        line = [self.program, *command, "--namespace", namespace]
        with self.alone(where) as lock:
            process = subprocess.Popen(
                line,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment(),
                cwd=self.home,
                pass_fds=(lock,),
            )
            with process:
                try:
                    out, said = process.communicate(stdin, _PATIENCE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise HelmHangs(f"`helm {command[0]}` took more than {_PATIENCE_S:.0f} s", where=where) from None
                except BaseException:
                    process.kill()
                    raise
        if process.returncode:
            raise meaning(said.decode(errors="replace"), command[0], where)
        return out

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HELM_")}
        for name in ("CACHE", "CONFIG", "DATA"):
            kept[f"HELM_{name}_HOME"] = str(self.home / name.lower())
        if self.kubeconfig:
            kept["KUBECONFIG"] = self.kubeconfig
        return kept

    @contextmanager
    def alone(self, where: str) -> Iterator[int]:
        """Hold the lock while no Helm of this agent works.

        Raises:
            HelmBusy: one does.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HelmBusy("an earlier helm is still at work", where=where) from None
            yield descriptor
        finally:
            os.close(descriptor)


def meaning(said: str, verb: str, where: str) -> Exception:
    """Return the fault that Helm's words mean.

    Args:
        said: on standard error.
        verb: what was asked of it.
        where: the release.
    """
    words = " ".join(line for line in said.split("\n") if not line.startswith(("WARNING", "level=", "I0", "W0")))
    words = " ".join(words.replace("Error: ", "", 1).split())
    short = words if len(words) <= _SAID else words[: _SAID - 1] + "…"
    if re.search(r"cluster unreachable|connection refused|i/o timeout|no route to host|TLS handshake|EOF$", words):
        return ApiUnreachable(short, where=where)
    missing = re.search(r'namespaces "([^"]+)" not found', words)
    if missing:
        return NamespaceMissing(short, missing[1])
    if "exceeded quota" in words:
        return QuotaExceeded(short, where=where, do="raise the namespace's quota, or lower the entry's needs")
    right = re.search(r'cannot (\w+) resource "([^"]+)" in API group "([^"]*)"', words)
    if right:
        do = f"grant the agent's account `{right[1]}` on `{right[2]}` ({right[3] or 'core'})"
        return RightMissing(short, where=where, do=do)
    if re.search(
        r"execution error|template:|parse error|values don't meet the specifications|Chart.yaml"
        r"|dependencies but missing|unable to build kubernetes objects|error validating|YAML parse error"
        r"|incompatible with Kubernetes",
        words,
    ):
        return ChartRefused(short, where=where, do="mend the chart or its values, and push a new version")
    return HelmFailed(f"`helm {verb}` failed: {short}", where=where, do="mend what it names; see `helm history` there")
