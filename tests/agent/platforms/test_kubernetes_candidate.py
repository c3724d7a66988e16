"""The self-test on a real API server: the question goes by way of the API server to a real port of this machine."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.actions import Remove, Retire, Staged, Start
from agent.actions import Test as Question
from agent.inference import NotAnswering, SelfTestFailed
from agent.platforms.kubernetes_apply import Target
from agent.platforms.kubernetes_candidate import ask
from agent.platforms.kubernetes_errors import RightMissing
from agent.platforms.kubernetes_objects import key_of, read
from agent.wire.release import SelfTest, with_digest
from tests.agent.platforms.kubernetes_site import Object, Site, deployment, service, site, staged
from tests.cluster import control_plane
from tests.cluster.control_plane import ControlPlane

pytestmark = pytest.mark.cluster
ANSWER = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]}]}


@pytest.fixture
def edge(api_server: ControlPlane, tmp_path: Path, namespace: str) -> Iterator[Site]:
    with site(api_server, tmp_path, namespace) as made:
        yield made


@pytest.fixture
def address() -> str:
    """An address of this machine that the API server is willing to ask: not the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but the loopback")
        return str(one.getsockname()[0])


class Model(http.server.BaseHTTPRequestHandler):
    answers: tuple[int, Any] = (200, ANSWER)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = type(self).answers
        body = json.dumps(answer).encode()
        self.send_response(status if self.path == "/v2/models/defect-detector/infer" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def model(address: str) -> Iterator[http.server.HTTPServer]:
    with http.server.ThreadingHTTPServer((address, 0), type("Mine", (Model,), {})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def with_self_test(namespace: str, port: int, version: str = "2.1.0", switch: str = "auto") -> Staged:
    serving = deployment(image=f"registry.example/model:{version}")
    serving["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": port}]
    entry = staged(namespace, serving, service(), version=version)
    files = {
        **entry.files,
        "models/defect-detector/selftest/input.json": b'{"inputs": []}',
        "models/defect-detector/selftest/output.json": json.dumps(ANSWER).encode(),
    }
    paths = [path for path in files if "selftest" in path]
    declared = replace(entry.entry, self_test=SelfTest(paths[0], paths[1], "0.001"), switch=switch)
    return Staged(with_digest(declared, files), files)


def pod(edge: Site, name: str, labels: dict[str, str], address: str) -> None:
    body: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "model", "image": "x"}]},
    }
    edge.write(body)
    ready = {"type": "Ready", "status": "True"}
    status = {"podIP": address, "podIPs": [{"ip": address}], "conditions": [ready]}
    edge.edit("Pod", name, {"status": status}, sub="/status")


def test_a_candidate_is_asked_before_it_gets_requests(edge: Site, model: http.server.HTTPServer, address: str) -> None:
    entry = with_self_test(edge.namespace, model.server_port)
    edge.platform.execute(Start(entry))
    made = edge.get("Deployment", "defect-detector-candidate", "apps/v1")
    assert made and edge.get("Deployment", "defect-detector", "apps/v1") is None
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert labels == made["spec"]["selector"]["matchLabels"] == {"edgeferry.dev/candidate": "defect-detector"}
    assert (edge.seen(entry).serving, edge.seen(entry).health) == (False, "progressing")
    with pytest.raises(NotAnswering, match="no pod"):
        edge.platform.execute(Question(entry))
    edge.ready("defect-detector-candidate")
    assert edge.until_health("current", entry).serving is False
    pod(edge, "candidate-1", labels, address)
    edge.platform.execute(Question(entry))
    edge.restart()
    edge.platform.execute(Question(entry))
    edge.switch(entry)
    assert edge.get("Deployment", "defect-detector-candidate", "apps/v1") is None
    assert [one.serving for one in edge.platform.observe([entry]).seen] == [True]


@pytest.mark.parametrize(
    ("answer", "said"),
    [((200, {"outputs": []}), "differs"), ((400, {"error": "no such input"}), "status 400"), ((500, {}), "status 500")],
)
def test_a_wrong_answer_fails_the_candidate_only(
    edge: Site, model: http.server.HTTPServer, address: str, answer: tuple[int, Any], said: str
) -> None:
    model.RequestHandlerClass.answers = answer  # type: ignore[attr-defined]  # of our handler
    old, new = with_self_test(edge.namespace, 8080), with_self_test(edge.namespace, model.server_port, "2.2.0")
    edge.switch(old)
    edge.platform.execute(Start(new))
    pod(edge, "candidate-1", {"edgeferry.dev/candidate": "defect-detector"}, address)
    with pytest.raises(SelfTestFailed, match=said):
        edge.platform.execute(Question(new))
    assert {(one.digest, one.serving) for one in edge.platform.observe([new, old]).seen} == {
        (old.digest, True),
        (new.digest, False),
    }
    edge.platform.execute(Retire(new))
    assert edge.get("Deployment", "defect-detector-candidate", "apps/v1") is None
    assert edge.seen(old).serving


def test_a_pod_that_nobody_reaches_is_asked_again_later(edge: Site, address: str) -> None:
    with socket.socket() as closed:
        closed.bind((address, 0))
        entry = with_self_test(edge.namespace, closed.getsockname()[1])
        edge.switch(entry)
        pod(edge, "serving-1", {"edgeferry.dev/model": "defect-detector"}, address)
        with pytest.raises(NotAnswering):
            edge.platform.execute(Question(entry))


def test_what_serves_is_asked_where_there_is_no_candidate(
    edge: Site, model: http.server.HTTPServer, address: str
) -> None:
    entry = with_self_test(edge.namespace, model.server_port, switch="replace")
    edge.platform.execute(Start(entry))
    assert edge.platform.observe([entry]).seen == ()
    edge.switch(entry)
    pod(edge, "serving-1", {"edgeferry.dev/model": "defect-detector"}, address)
    edge.platform.execute(Question(entry))
    target: Target = edge.platform._cluster()
    ask(target, entry, read(entry), candidate=False, direct=True)


def test_what_served_before_comes_back_without_a_candidate(edge: Site) -> None:
    old, new = with_self_test(edge.namespace, 8080), with_self_test(edge.namespace, 8080, "2.2.0")
    edge.switch(old)
    edge.switch(new, old)
    edge.platform.execute(Start(old))
    assert edge.get("Deployment", "defect-detector-candidate", "apps/v1") is None


def test_a_model_is_removed_with_its_candidate(edge: Site) -> None:
    old, new = with_self_test(edge.namespace, 8080), with_self_test(edge.namespace, 8080, "2.2.0")
    edge.switch(old)
    edge.platform.execute(Start(new))
    edge.platform.execute(Remove("model", "defect-detector"))
    assert edge.platform.observe([old, new]).seen == ()
    assert edge.get("Deployment", "defect-detector-candidate", "apps/v1") is None


def test_without_the_right_to_ask_pods_the_right_is_named(
    edge: Site, api_server: ControlPlane, tmp_path: Path, address: str
) -> None:
    entry = with_self_test(edge.namespace, 8080)
    edge.switch(entry)
    pod(edge, "serving-1", {"edgeferry.dev/model": "defect-detector"}, address)
    rules = [{"apiGroups": ["", "apps"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    group = "rbac.authorization.k8s.io"
    edge.write({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": rules})
    edge.write(
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "r"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "r"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": f"reader-{edge.namespace}"}],
        }
    )
    kubeconfig = control_plane.certificate_kubeconfig(api_server, f"reader-{edge.namespace}", edge.namespace)
    with (
        site(api_server, tmp_path / "reader", edge.namespace, kubeconfig=kubeconfig) as reader,
        pytest.raises(RightMissing, match="pods/proxy"),
    ):
        reader.platform.execute(Question(entry))


def test_a_file_is_a_stable_path_that_switches_at_once(edge: Site, tmp_path: Path) -> None:
    def file(version: str) -> Staged:
        content = tmp_path / "content" / "trees" / version
        content.mkdir(parents=True)
        (content / "model.onnx").write_text(version)
        made = staged(edge.namespace, name="grip", version=version, delivery="file")
        return replace(made, content=content, model=content / "model.onnx")

    one, two = file("1.0.0"), file("2.0.0")
    edge.switch(one)
    path = Path(edge.seen(one).path)
    assert path.read_text() == "1.0.0"
    edge.switch(two, one)
    assert (path.read_text(), edge.seen(two, one).digest, edge.seen(two, one).health) == (
        "2.0.0",
        two.digest,
        "current",
    )
    path.unlink()
    edge.restart()
    assert "does not lead to" in edge.seen(two, one).drift
    edge.repair(two)
    assert path.read_text() == "2.0.0"
    edge.platform.execute(Remove("model", "grip"))
    assert not path.exists() and not path.is_symlink()


def test_who_listens_is_called_for_what_changes_and_not_for_noise(edge: Site) -> None:
    entry = staged(edge.namespace, service())
    rung = threading.Event()
    edge.platform.listen(rung.set)
    edge.switch(entry)
    edge.seen(entry)
    rung.clear()
    noisy = edge.edit("Service", "defect-detector", {"metadata": {"annotations": {"noise": "1"}}})
    version, mirror = int(noisy["metadata"]["resourceVersion"]), edge.platform._cluster().mirror
    edge.until(lambda _: getattr(mirror.get(key_of(noisy)), "version", 0) == version)
    assert not rung.is_set()
    edge.delete("Service", "defect-detector")
    assert rung.wait(10)
