"""What a Kubernetes site does with a model in service: updates, bad versions, drift, quotas, cuts and reboots."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from gitops.demo.documents import DIGITS, cluster, placement
from gitops.demo.fleet import QUESTION, Fleet
from gitops.demo.pods import MODELS, PodSite
from tests.cluster.fixtures import take
from tests.cluster.site import Site
from tests.cluster.testbed import Testbed
from tests.scenarios.pods import Images, pod_fleet

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(400)]

NAMESPACE = f"--namespace={MODELS}"


@dataclass(slots=True)
class Edge:
    """A fleet with one cluster where some version of digits serves.

    Attributes:
        serves: the version of the example whose answers it gives.
    """

    fleet: Fleet
    cluster: Site
    serves: str = "1.0.0"
    _major: int = 1

    @property
    def site(self) -> PodSite:
        found = self.fleet.sites["edge"]
        assert isinstance(found, PodSite)
        return found

    def push(self, data: bytes = b"") -> str:
        """Push the next version; without bytes of its own it answers otherwise than what serves. Return its number."""
        self._major += 1
        if not data:
            self.serves = "2.0.0" if self.serves == "1.0.0" else "1.0.0"
            data = (DIGITS / f"digits-{self.serves}.onnx").read_bytes()
        number = f"{self._major}.0.0"
        self.fleet.commit(f"digits {number}", {f"models/digits/versions/{number}/digits.onnx": data})
        return number

    def serving(self) -> bool:
        """Does it answer as it should?"""
        return self.fleet.versions() == {"edge": self.serves}

    def until_serving(self) -> None:
        self.fleet.expect({"edge": self.serves}, within_s=120)

    def told(self) -> dict[str, str]:
        """What the hub says of the model."""
        entries = self.fleet.seen("edge")["entries"]
        return next((one for one in entries if one["name"] == "digits"), {})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, bed: Testbed, images: Images) -> Iterator[Edge]:
    (site,) = take(bed, 1, "kubernetes")
    with pod_fleet(tmp_path_factory.mktemp("pods"), bed, images, [site]) as fleet:
        fleet.init(empty=True)
        fleet.commit("Digits at the edge", cluster("edge", line="welding") | placement("digits", model="digits"))
        fleet.start_hub()
        fleet.join("edge")
        yield Edge(fleet, site)


@pytest.fixture
def edge(shared: Edge) -> Edge:
    """The one of this process, serving, whatever the test before did to it."""
    shared.cluster.link.restore()
    shared.until_serving()
    return shared


@dataclass(slots=True)
class Asked:
    """What clients at the site saw."""

    answers: int = 0
    faults: list[str] = field(default_factory=list)


@contextmanager
def clients(edge: Edge) -> Iterator[Asked]:
    """Two clients ask through the Service all the time: one keeps its connection, one opens a new one each time.

    What counts begins with their first answers: the node may still be learning of the Service.
    """
    address = edge.site.get("service", "digits", NAMESPACE)[0]["spec"]["clusterIP"]
    seen, answered, done = Asked(), threading.Barrier(3), threading.Event()

    def ask(*, kept: bool) -> None:
        first = True
        with edge.cluster.network:
            connection = http.client.HTTPConnection(address, 8080, timeout=20)
            while not done.is_set():
                try:
                    connection.request("POST", "/v2/models/digits/infer", QUESTION)
                    response = connection.getresponse()
                    response.read()
                    fault = "" if response.status == 200 else str(response.status)
                except (OSError, http.client.HTTPException) as error:
                    fault = repr(error)
                    connection.close()
                if not kept:
                    connection.close()
                if not first:
                    seen.answers += 1
                    seen.faults += [fault] if fault else []
                elif not fault:
                    first = False
                    answered.wait(60)

    threads = [threading.Thread(target=ask, kwargs={"kept": kept}) for kept in (True, False)]
    for one in threads:
        one.start()
    try:
        answered.wait(60)
        yield seen
    finally:
        done.set()
        for one in threads:
            one.join()


def test_an_update_loses_no_request(edge: Edge) -> None:
    with clients(edge) as seen:
        edge.push()
        edge.until_serving()
        edge.fleet.until("the old pod is gone", lambda: len(edge.site.get("pods", NAMESPACE)) == 1)
    assert seen.faults == [] and seen.answers > 100


def test_a_version_that_does_not_start_is_never_asked_and_the_old_one_serves_on(edge: Edge) -> None:
    pods = edge.site.running("model")
    with clients(edge) as seen:
        bad = edge.push(b"this is no model")
        edge.fleet.until("the hub knows", lambda: _blames(edge.told(), bad), 120, lambda: str(edge.told()))
        assert edge.serving() and edge.site.running("model") == pods
    assert seen.faults == []
    edge.push()
    edge.until_serving()


def _blames(told: dict[str, str], version: str) -> bool:
    return (told["wantedVersion"], told["code"]) == (version, "EF4062") and "CrashLoopBackOff" in told["message"]


@pytest.mark.parametrize(
    "harm",
    [
        ("scale", "deployment/digits", "--replicas=0"),
        ("delete", "deployment/digits", "--wait=false"),
        ("delete", "service/digits"),
        ("set", "env", "deployment/digits", "X=1"),
        ("label", "service/digits", "app.kubernetes.io/managed-by=somebody", "--overwrite"),
    ],
    ids=lambda harm: f"{harm[0]}-{harm[1].partition('/')[0]}",
)
def test_what_somebody_changes_by_hand_is_put_right(edge: Edge, harm: tuple[str, ...]) -> None:
    def spec(kind: str) -> object:
        found = edge.site.get(kind, "digits", NAMESPACE)
        return [(one["spec"]["selector"], one["spec"].get("replicas"), one["metadata"]["labels"]) for one in found]

    before = spec("deployment"), spec("service")
    edge.site.run(*harm, NAMESPACE)
    edge.fleet.until(
        "everything is as it was",
        lambda: (spec("deployment"), spec("service")) == before and edge.serving(),
        seen=lambda: f"{spec('deployment')} {spec('service')}",
    )


def test_a_full_quota_is_named_and_the_old_version_serves_on(edge: Edge) -> None:
    edge.fleet.until("one pod is left", lambda: len(edge.site.get("pods", NAMESPACE)) == 1)
    edge.site.run("create", "quota", "few", "--hard=pods=1", NAMESPACE)
    serves, pods = edge.serves, edge.site.running("model")
    edge.push()
    edge.fleet.until("the hub knows", lambda: "quota" in edge.told()["message"], 150, lambda: str(edge.told()))
    assert edge.fleet.versions() == {"edge": serves} and edge.site.running("model") == pods
    edge.site.run("delete", "quota", "few", NAMESPACE)
    edge.serves = serves
    edge.push()
    edge.until_serving()


def test_cut_off_and_rebooted_it_serves_and_corrects_and_then_goes_straight_to_the_newest(edge: Edge) -> None:
    edge.cluster.link.cut()
    serves, missed = edge.serves, edge.push()
    edge.site.run("delete", "deployment/digits", NAMESPACE)
    edge.fleet.until("the deleted Deployment is back", lambda: edge.fleet.versions() == {"edge": serves})
    edge.cluster.power_off()
    edge.serves = serves
    newest = edge.push()
    edge.cluster.power_on()
    edge.fleet.expect({"edge": serves}, within_s=120)
    edge.cluster.link.restore()
    edge.until_serving()
    edge.fleet.until("the hub knows", lambda: edge.told()["version"] == newest)
    switched = [one["version"] for one in edge.fleet.events("edge") if one["kind"] == "switched"]
    assert switched[-1] == newest and missed not in switched
