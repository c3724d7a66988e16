"""Platform ``kubernetes``: models and workloads as objects on a Kubernetes or K3s cluster.

A model with a self-test first comes up beside what serves. A switch applies the entry's objects in place, and
Kubernetes rolls its pods over; what served before is one more switch away. docs/adr/0008-kubernetes.md says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.actions import (
    Action,
    Announce,
    ModelPoint,
    Observed,
    Refresh,
    Remove,
    Repair,
    Retire,
    Stage,
    Staged,
    Start,
    Switch,
    Test,
)
from agent.config import Config
from agent.platforms.helm import Helm, HelmMissing, find_helm
from agent.platforms.kubernetes_apply import Target, put, remove, resolve
from agent.platforms.kubernetes_candidate import CANDIDATE, ask, candidate_of
from agent.platforms.kubernetes_client import connect
from agent.platforms.kubernetes_errors import NothingToRun
from agent.platforms.kubernetes_facts import cluster_facts
from agent.platforms.kubernetes_files import hide, show
from agent.platforms.kubernetes_inventory import Inventory, Record
from agent.platforms.kubernetes_mirror import Mirror
from agent.platforms.kubernetes_models import ANNOUNCED, models_digest, models_file
from agent.platforms.kubernetes_objects import read
from agent.platforms.kubernetes_release import newest, prepare, uninstall
from agent.platforms.kubernetes_sight import Sight, service_url
from agent.wire.release import Entry

_FACTS_EVERY_S: Final = 600.0
_DELIVERIES: Final = ("container", "server", "chart", "file", "manifests")


class KubernetesPlatform:
    """Executes plans on one cluster.

    Args:
        state: directory of the agent: a ``file`` delivery is ``STATE/models/NAME/``, see kubernetes_files.py.
        config: ``kubeconfig`` and ``scope``.
        clock: seconds that only grow.
    """

    name = "kubernetes"

    def __init__(self, state: Path, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = state.resolve()
        self._config = config
        self._clock = clock
        self._target: Target | None = None
        self._sight: Sight | None = None
        self._listener: Callable[[], None] | None = None
        self._facts: tuple[float, Mapping[str, str]] = (-_FACTS_EVERY_S, {})

    def refuses(self, entry: Entry) -> str:
        """Return why this platform cannot do the entry, or an empty string."""
        if entry.delivery not in _DELIVERIES:
            return f"this agent knows no delivery {entry.delivery!r} on Kubernetes"
        if entry.delivery == "server" and (entry.runtime is None or not entry.runtime.image):
            return "its runtime has no image, only a command for hosts"
        if entry.delivery == "chart" and not find_helm(self._config.helm):
            return "charts need Helm 3, which is not here: put helm on the PATH, or name it as `helm` in agent.json"
        return ""

    def observe(self, known: Sequence[Staged]) -> Observed:
        """Look at the cluster; where nothing has changed since the last look, the API server is not asked.

        Args:
            known: every entry that may be there.

        Raises:
            EdgeferryError: the API server is away, or lets us not see; what was seen before is no answer.
        """
        return self._eyes().look(known)

    def execute(self, action: Action) -> None:
        """Do one action.

        Raises:
            EdgeferryError: see kubernetes_errors.py.
        """
        match action:
            case Start(staged, _):
                self._start(staged)
            case Test(staged):
                self._test(staged)
            case Switch(staged, _, points):
                self._put(staged, models_digest(staged.entry, points), claim=True)
                self._end_candidate(staged.entry.name)
            case Repair(staged, _, _):
                self._eyes().note_repair(staged)
                record = self._records().get(_id(staged.entry))
                self._put(staged, "" if record is None else record.models, claim=False)
            case Refresh(staged, how, points):
                if how == "restart":
                    self._put(staged, models_digest(staged.entry, points), claim=False)
            case Retire(staged):
                self._end_candidate(staged.entry.name, staged.digest)
                record = self._records().get(_id(staged.entry))
                if record is not None and staged.digest == (record.digest or record.applying):
                    self._remove(record)
            case Remove(kind, name):
                self._end_candidate(name if kind == "model" else "")
                record = self._records().get((kind, name))
                if record is not None:
                    self._remove(record)
            case Announce(namespace, points):
                self._announce(namespace, points)
            case Stage():
                raise TypeError("staging is not the platform's")

    def listen(self, changed: Callable[[], None]) -> None:
        """Have something called whenever the cluster shows a change; it must return at once."""
        self._listener = changed
        if self._target is not None:
            self._target.mirror.listener = changed

    def facts(self) -> Mapping[str, str]:
        """Return what the cluster and its nodes tell of themselves, folded; asked rarely."""
        asked, known = self._facts
        if self._clock() - asked >= _FACTS_EVERY_S:
            known = {"platform": self.name, **cluster_facts(self._cluster().api)}
            self._facts = self._clock(), known
        return known

    def close(self) -> None:
        """Let go of connections; what runs goes on."""
        if self._target is not None:
            self._target.mirror.close()
            self._target.api.close()
            self._target = self._sight = None

    def _start(self, staged: Staged) -> None:
        """Bring a candidate up where there is a question to ask it; what served here before needs no more questions."""
        entry, target = staged.entry, self._cluster()
        record = self._records().get(_id(entry))
        body = candidate_of(entry, read(staged))
        if body is None or (record is not None and staged.digest in (record.digest, record.before)):
            return
        objects = resolve(target, [body], entry.namespace, "")
        record = Record(CANDIDATE, entry.name, entry.namespace, version=entry.version, applying=staged.digest)
        put(target, record, objects, claim=False)

    def _test(self, staged: Staged) -> None:
        record = self._records().get((CANDIDATE, staged.entry.name))
        candidate = record is not None and record.digest == staged.digest
        direct = not self._config.kubeconfig
        ask(self._cluster(), staged, read(staged), candidate=candidate, direct=direct)

    def _end_candidate(self, name: str, digest: str = "") -> None:
        record = self._records().get((CANDIDATE, name))
        if record is not None and digest in ("", record.digest, record.applying):
            remove(self._cluster(), record)

    def _put(self, staged: Staged, models: str, *, claim: bool) -> None:
        entry, target = staged.entry, self._cluster()
        if entry.delivery == "chart":
            self._put_chart(staged, models, claim=claim)
            return
        raw = read(staged)
        if not raw and entry.delivery != "file":
            raise NothingToRun(
                f"{entry.version} has no manifests for Kubernetes",
                where=f"{entry.kind}/{entry.name}",
                do="add manifests to the version's folder, or place it on hosts only",
            )
        objects = resolve(target, raw, entry.namespace, models)
        record = Record(
            entry.kind,
            entry.name,
            entry.namespace,
            version=entry.version,
            applying=staged.digest,
            models=models,
            url=service_url(entry, objects),
        )
        if entry.kind == "model" and staged.content is not None:
            show(self._state, staged)
        elif entry.delivery == "file":
            raise NothingToRun("its content is not staged", where=f"{entry.kind}/{entry.name}", do="stage it again")
        put(target, record, objects, claim=claim)

    def _put_chart(self, staged: Staged, models: str, *, claim: bool) -> None:
        entry, target = staged.entry, self._cluster()
        before = self._records().get(_id(entry))
        found = prepare(target, self._helm(), staged, models, before)
        record = Record(
            entry.kind,
            entry.name,
            entry.namespace,
            version=entry.version,
            applying=staged.digest,
            models=models,
            url=service_url(entry, found.objects),
            release=found.release,
            revision=0 if before is None else before.revision,
        )
        put(target, record, found.objects, claim=claim, maker=found.maker)
        if found.maker.make is not None:
            record = self._records()[record.id]
            target.inventory.save(replace(record, revision=newest(target, entry)))

    def _helm(self) -> Helm:
        program = find_helm(self._config.helm)
        if not program:
            raise HelmMissing("no helm is here", do="put Helm 3 on the PATH, or name it as `helm` in agent.json")
        kubeconfig = str(Path(self._config.kubeconfig).expanduser().resolve()) if self._config.kubeconfig else ""
        return Helm(program, kubeconfig, self._state / "helm", crds=self._config.scope == "cluster")

    def _remove(self, record: Record) -> None:
        if record.release:
            uninstall(self._cluster(), self._helm(), record)
        remove(self._cluster(), record)
        if record.kind == "model":
            hide(self._state, record.name)

    def _announce(self, namespace: str, points: Sequence[ModelPoint]) -> None:
        target = self._cluster()
        record = Record(ANNOUNCED, namespace, namespace)
        if points:
            body = models_file(namespace, points)
            objects = resolve(replace(target, whole_cluster=True), [body], namespace, "")
            put(target, replace(record, applying=objects[0].digest), objects, claim=False)
        elif record.id in self._records():
            remove(target, self._records()[record.id])

    def _cluster(self) -> Target:
        if self._target is None:
            api = connect(self._config.kubeconfig)
            inventory = Inventory(api, f"{self._config.fleet}\0{self._config.cluster}")
            mirror = Mirror(api)
            mirror.listener = self._listener
            self._target = Target(api, mirror, inventory, self._config.scope == "cluster")
        return self._target

    def _records(self) -> Mapping[tuple[str, str], Record]:
        return self._cluster().inventory.records

    def _eyes(self) -> Sight:
        if self._sight is None:
            self._sight = Sight(self._cluster(), self._state, self._clock)
        return self._sight


def _id(entry: Entry) -> tuple[str, str]:
    return entry.kind, entry.name
