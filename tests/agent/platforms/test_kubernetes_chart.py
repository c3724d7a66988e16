"""Charts on a real API server by the real Helm: installed, upgraded, returned, mended, removed, at any line killed."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.actions import Remove, Retire
from agent.platforms import kubernetes_release
from agent.platforms.helm import ChartRefused, Helm, HelmBusy, HelmFailed
from agent.platforms.kubernetes_errors import ForeignObject, OutOfScope
from agent.platforms.kubernetes_release import AGENT, ENTRY, SECRETS, ForeignRelease
from agent.wire.errors import EdgeferryError
from tests.agent.platforms.chart_site import CONFIG, staged_chart
from tests.agent.platforms.kubernetes_site import Site, config_map, site
from tests.cluster import binary
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fixtures import skip

pytestmark = pytest.mark.cluster

MORE = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\ndata: {a: b}\n"
HOOK = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: hook, annotations: {helm.sh/hook: pre-upgrade}}
data: {a: "1"}
"""


@pytest.fixture(scope="session")
def helm_folder() -> Path:
    try:
        return binary.find(binary.helm("amd64" if os.uname().machine == "x86_64" else "arm64")).parent
    except binary.Unavailable as reason:
        skip(f"needs Helm: {reason}")


@pytest.fixture
def edge(
    api_server: ControlPlane, namespace: str, tmp_path: Path, helm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    monkeypatch.setenv("PATH", f"{helm_folder}:{os.environ['PATH']}")
    with site(api_server, tmp_path / "state", namespace) as made:
        yield made


@pytest.fixture
def charts(tmp_path: Path) -> Path:
    return tmp_path / "trees"


def helm(edge: Site, *command: str) -> Any:
    line = ["helm", *command, "--namespace", edge.namespace, "--kubeconfig", str(edge.cluster.kubeconfig)]
    out = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    return json.loads(out) if "json" in command else out


def history(edge: Site, release: str = "reader") -> list[tuple[int, str]]:
    return [(one["revision"], one["status"]) for one in helm(edge, "history", release, "--output", "json")]


def secrets(edge: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = edge.person.list(SECRETS, edge.namespace, "owner=helm")["items"]
    return sorted(found, key=lambda one: int(one["metadata"]["labels"]["version"]))


def data(edge: Site, name: str = "reader-settings") -> dict[str, str] | None:
    live = edge.get("ConfigMap", name)
    return None if live is None else dict(live["data"])


def test_a_chart_is_installed_as_a_release_with_the_entrys_values(edge: Site, charts: Path) -> None:
    one = staged_chart(charts, edge.namespace, values={"threshold": "'0.7'", "replicas": "2", "service.port": "9090"})
    edge.switch(one)
    assert history(edge) == [(1, "deployed")]
    assert data(edge) == {"threshold": "0.7", "text": "1.0.0"}
    live = edge.get("Deployment", "reader", "apps/v1")
    assert live is not None and live["spec"]["replicas"] == 2
    assert secrets(edge)[0]["metadata"]["labels"][ENTRY] == one.digest[7:47]
    assert edge.seen(one).url == f"http://reader.{edge.namespace}.svc:9090"
    edge.ready("reader", 2)
    assert edge.until_health("current", one).drift == ""


def test_doing_it_again_does_nothing(edge: Site, charts: Path) -> None:
    one = staged_chart(charts, edge.namespace)
    edge.switch(one)
    before = edge.get("Deployment", "reader", "apps/v1")
    edge.switch(one)
    edge.restart()
    edge.switch(one)
    assert history(edge) == [(1, "deployed")]
    assert edge.get("Deployment", "reader", "apps/v1") == before


def test_an_upgrade_takes_away_what_the_chart_no_longer_has(edge: Site, charts: Path) -> None:
    one = staged_chart(charts, edge.namespace, more=MORE)
    two = staged_chart(charts, edge.namespace, "2.0.0")
    edge.switch(one)
    assert data(edge, "more") == {"a": "b"}
    edge.switch(two, one)
    assert data(edge) == {"threshold": "0.5", "text": "2.0.0"}
    assert data(edge, "more") is None
    assert history(edge) == [(1, "superseded"), (2, "deployed")]


def test_a_return_is_helms_rollback_to_the_revision_that_served(edge: Site, charts: Path) -> None:
    one, two = staged_chart(charts, edge.namespace, more=MORE), staged_chart(charts, edge.namespace, "2.0.0")
    edge.switch(one)
    edge.switch(two, one)
    edge.switch(one, two)
    assert history(edge) == [(1, "superseded"), (2, "superseded"), (3, "deployed")]
    assert "Rollback to 1" in str(helm(edge, "history", "reader"))
    assert data(edge) == {"threshold": "0.5", "text": "1.0.0"}
    assert data(edge, "more") == {"a": "b"}
    edge.until(lambda observed: observed.seen[0].digest == one.digest and not observed.seen[0].drift, one)


def test_history_is_bounded(edge: Site, charts: Path) -> None:
    for number in range(6):
        edge.switch(staged_chart(charts, edge.namespace, f"1.{number}.0"))
    assert len(history(edge)) == 5


def test_what_people_edit_delete_and_scale_is_put_right_without_a_new_revision(edge: Site, charts: Path) -> None:
    one = staged_chart(charts, edge.namespace)
    edge.switch(one)
    edge.ready("reader")
    edge.until_health("current", one)
    edge.edit("ConfigMap", "reader-settings", {"data": {"text": "mine"}})
    assert "ConfigMap" in edge.until_drift(one)
    edge.repair(one)
    assert data(edge) == {"threshold": "0.5", "text": "1.0.0"}
    edge.delete("Service", "reader")
    assert "is missing" in edge.until_drift(one)
    edge.repair(one)
    assert edge.get("Service", "reader") is not None
    edge.edit("Deployment", "reader", {"spec": {"replicas": 0}}, "apps/v1", "/scale")
    assert "Deployment" in edge.until_drift(one)
    edge.repair(one)
    live = edge.get("Deployment", "reader", "apps/v1")
    assert live is not None and live["spec"]["replicas"] == 1
    edge.until(lambda observed: not observed.seen[0].drift, one)
    assert history(edge) == [(1, "deployed")]
    two = staged_chart(charts, edge.namespace, "2.0.0")
    edge.switch(two, one)
    assert history(edge) == [(1, "superseded"), (2, "deployed")]


def test_an_upgrade_by_hand_is_put_right(edge: Site, charts: Path) -> None:
    one = staged_chart(charts, edge.namespace)
    edge.switch(one)
    assert one.chart is not None
    helm(edge, "upgrade", "reader", str(one.chart / "reader"), "--set", "threshold=0.9")
    assert "reader-settings" in edge.until_drift(one)
    edge.repair(one)
    assert data(edge) == {"threshold": "0.5", "text": "1.0.0"}
    edge.until(lambda observed: not observed.seen[0].drift, one)


def test_a_release_uninstalled_by_hand_comes_back(edge: Site, charts: Path) -> None:
    one = staged_chart(charts, edge.namespace)
    edge.switch(one)
    helm(edge, "uninstall", "reader")
    edge.until_drift(one)
    edge.repair(one)
    assert history(edge) == [(1, "deployed")]
    assert data(edge) == {"threshold": "0.5", "text": "1.0.0"}


def test_a_lost_release_takes_its_own_objects_up_again(edge: Site, charts: Path) -> None:
    one = staged_chart(charts, edge.namespace)
    edge.switch(one)
    before = edge.get("Deployment", "reader", "apps/v1")
    for secret in secrets(edge):
        edge.delete("Secret", secret["metadata"]["name"])
    edge.repair(one)
    after = edge.get("Deployment", "reader", "apps/v1")
    assert before is not None and after is not None and before["metadata"]["uid"] == after["metadata"]["uid"]
    assert history(edge) == [(1, "deployed")]


def test_nothing_is_left_of_a_removed_chart(edge: Site, charts: Path) -> None:
    one = staged_chart(charts, edge.namespace)
    edge.switch(one)
    edge.write(config_map("foreign", a="b"))
    edge.platform.execute(Remove("model", "reader"))
    edge.platform.execute(Remove("model", "reader"))
    assert secrets(edge) == []
    for kind, name, version in (
        ("ConfigMap", "reader-settings", "v1"),
        ("Service", "reader", "v1"),
        ("Deployment", "reader", "apps/v1"),
    ):
        assert edge.get(kind, name, version) is None
    assert data(edge, "foreign") == {"a": "b"}
    assert edge.platform.observe(()).seen == ()


def test_a_first_version_that_fails_leaves_nothing(edge: Site, charts: Path) -> None:
    one = staged_chart(charts, edge.namespace)
    edge.switch(one)
    edge.platform.execute(Retire(one))
    assert secrets(edge) == []
    assert data(edge) is None


def test_an_object_that_a_chart_asks_to_keep_outlives_it(edge: Site, charts: Path) -> None:
    kept = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept, annotations: {helm.sh/resource-policy: keep}}\n"
    one = staged_chart(charts, edge.namespace, kept=kept)
    edge.switch(one)
    edge.platform.execute(Remove("model", "reader"))
    assert edge.get("ConfigMap", "kept") is not None
    edge.switch(one)
    assert history(edge) == [(1, "deployed")]


def test_a_foreign_object_is_not_taken_and_nothing_is_installed(edge: Site, charts: Path) -> None:
    one = staged_chart(charts, edge.namespace)
    edge.person.request(
        "POST",
        "/api/v1/namespaces",
        body={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": edge.namespace}},
    )
    edge.write(config_map("reader-settings", text="theirs"))
    with pytest.raises(ForeignObject):
        edge.switch(one)
    assert data(edge) == {"text": "theirs"}
    assert secrets(edge) == []


def test_a_foreign_release_is_not_taken(edge: Site, charts: Path) -> None:
    one, two = staged_chart(charts, edge.namespace), staged_chart(charts, edge.namespace, "2.0.0")
    assert one.chart is not None
    helm(edge, "install", "reader", str(one.chart / "reader"), "--create-namespace")
    with pytest.raises(ForeignRelease):
        edge.switch(two)
    edge.platform.execute(Remove("model", "reader"))
    assert history(edge) == [(1, "deployed")]
    assert data(edge) == {"threshold": "0.5", "text": "1.0.0"}


def test_what_a_schema_or_a_template_refuses_changes_nothing(edge: Site, charts: Path) -> None:
    one = staged_chart(charts, edge.namespace)
    edge.switch(one)
    with pytest.raises(ChartRefused, match="replicas"):
        edge.switch(staged_chart(charts, edge.namespace, values={"replicas": "many"}), one)
    broken = staged_chart(charts, edge.namespace, "2.0.0", more='{{ fail "no such thing" }}')
    with pytest.raises(ChartRefused, match="no such thing"):
        edge.switch(broken, one)
    assert history(edge) == [(1, "deployed")]
    assert edge.until(lambda observed: bool(observed.seen), one).seen[0].drift == ""


def test_a_cluster_scoped_object_is_refused_also_as_a_hook(edge: Site, charts: Path) -> None:
    role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: wide}\n"
    with pytest.raises(OutOfScope):
        edge.switch(staged_chart(charts, edge.namespace, role=role))
    hook = role.replace("{name: wide}", "{name: wide, annotations: {helm.sh/hook: pre-install}}")
    with pytest.raises(OutOfScope):
        edge.switch(staged_chart(charts, edge.namespace, role=hook))
    assert secrets(edge) == []


def test_a_chart_is_told_where_its_model_is_staged(edge: Site, charts: Path) -> None:
    text = CONFIG.replace("TEXT", '{{ printf "%s/%s" .Values.edgeferry.model.hostPath .Values.edgeferry.model.file }}')
    one = staged_chart(charts, edge.namespace, model=b"weights", config=text)
    edge.switch(one)
    found = data(edge)
    assert found is not None and found["text"] == str(one.model)


@pytest.mark.parametrize("status", ["pending-install", "pending-upgrade", "pending-rollback"])
def test_what_a_killed_helm_left_is_gone_on_from(edge: Site, charts: Path, status: str) -> None:
    one, two = staged_chart(charts, edge.namespace), staged_chart(charts, edge.namespace, "2.0.0", more=MORE)
    if status != "pending-install":
        edge.switch(one)
    edge.switch(two)
    last = secrets(edge)[-1]["metadata"]["name"]
    edge.edit("Secret", last, {"metadata": {"labels": {"status": status}}})
    edge.restart()
    edge.switch(two)
    assert history(edge)[-1][1] == "deployed"
    assert data(edge) == {"threshold": "0.5", "text": "2.0.0"}
    edge.until(lambda observed: observed.seen[0].digest == two.digest and not observed.seen[0].drift, two)


class Killed(BaseException):
    """Stands for SIGKILL between two lines of the agent."""


@pytest.mark.parametrize(
    ("had", "line"),
    [(False, 3), (False, 4), (False, 5), *((True, line) for line in (2, 3, 4, 5, 6, 8, 9))],
    ids=lambda value: {False: "install", True: "upgrade"}[value] if isinstance(value, bool) else str(value),
)
def test_killed_at_any_request_the_next_cycle_is_right(
    edge: Site, charts: Path, monkeypatch: pytest.MonkeyPatch, had: bool, line: int
) -> None:
    one, two = staged_chart(charts, edge.namespace, more=MORE), staged_chart(charts, edge.namespace, "2.0.0")
    if had:
        edge.switch(one)
    count = 0
    real, run = type(edge.person).request, Helm._run

    def request(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal count
        if arguments[0] != "GET":
            count += 1
            if count == line:
                raise Killed
        return real(self, *arguments, **named)

    def ran(self: Helm, command: list[str], *arguments: Any) -> bytes:
        nonlocal count
        count += 1
        if count == line:
            raise Killed
        out = run(self, command, *arguments)
        count += 1
        if count == line:
            raise Killed
        return out

    with monkeypatch.context() as patch:
        patch.setattr(type(edge.person), "request", request)
        patch.setattr(Helm, "_run", ran)
        with pytest.raises(Killed):
            edge.switch(two, one if had else None)
    edge.restart()
    edge.switch(two, one if had else None)
    assert data(edge) == {"threshold": "0.5", "text": "2.0.0"}
    assert data(edge, "more") is None
    edge.until(lambda observed: observed.seen[0].digest == two.digest and not observed.seen[0].drift, two)
    edge.platform.execute(Remove("model", "reader"))
    assert secrets(edge) == []


def test_a_helm_that_outlives_its_agent_is_waited_for(edge: Site, charts: Path) -> None:
    one = staged_chart(charts, edge.namespace)
    edge.switch(one)
    lock = os.open(edge.state / "helm" / "lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(lock,)) as outliving:
        os.close(lock)
        with pytest.raises(HelmBusy):
            edge.switch(staged_chart(charts, edge.namespace, "2.0.0"), one)
        outliving.send_signal(signal.SIGKILL)
    edge.switch(staged_chart(charts, edge.namespace, "2.0.0"), one)


def test_a_failed_upgrade_is_returned_from(edge: Site, charts: Path) -> None:
    one = staged_chart(charts, edge.namespace)
    edge.switch(one)
    hook = HOOK.replace("kind: ConfigMap", "kind: Secret").replace('data: {a: "1"}', 'data: {a: "no base64"}')
    with pytest.raises(EdgeferryError) as refused:
        edge.switch(staged_chart(charts, edge.namespace, "2.0.0", hook=hook), one)
    assert isinstance(refused.value, HelmFailed | ChartRefused)
    edge.switch(one)
    assert history(edge)[-1][1] == "deployed"
    assert data(edge) == {"threshold": "0.5", "text": "1.0.0"}
    edge.until(lambda observed: observed.seen[0].digest == one.digest and not observed.seen[0].drift, one)


def test_without_helm_the_entry_is_refused_and_said_why(
    edge: Site, charts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = staged_chart(charts, edge.namespace)
    assert edge.platform.refuses(one.entry) == ""
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "Helm 3" in edge.platform.refuses(one.entry)


def test_another_agents_release_is_foreign(edge: Site, charts: Path) -> None:
    one = staged_chart(charts, edge.namespace)
    edge.switch(one)
    secret = secrets(edge)[0]
    assert secret["metadata"]["labels"][AGENT]
    edge.edit("Secret", secret["metadata"]["name"], {"metadata": {"labels": {AGENT: "somebody"}}})
    with pytest.raises(ForeignRelease):
        edge.switch(replace(one))
    assert kubernetes_release.release_name(one.entry) == "reader"
