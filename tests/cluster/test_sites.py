"""Sites: their lines to the hub, their nodes, their power, and how little they know of each other."""

from __future__ import annotations

import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.cluster import addresses, memory, probe
from tests.cluster.node import Node
from tests.cluster.probe import until
from tests.cluster.site import Site
from tests.cluster.testbed import Testbed

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(300)]
PORT = 4000


@pytest.fixture
def second_node(one_site: Site) -> Iterator[Node]:
    node = one_site.add_node()
    yield node
    node.uninstall()


def round_trip_s(site: Site, limit_s: float = 2.0) -> float:
    """Return how long a connection from the site to the hub's registry takes to stand."""
    host, port = addresses.REGISTRY.split(":")
    began = time.monotonic()
    with site.network, socket.create_connection((host, int(port)), timeout=limit_s):
        return time.monotonic() - began


def fetch_from_hub(bed: Testbed, site: Site, size: int) -> float:
    """Send so many bytes from the hub to the site over one connection; return the time that it took."""
    with bed.network:
        listener = socket.create_server((addresses.HUB, PORT))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"x" * size)

    server = threading.Thread(target=serve)
    server.start()
    began = time.monotonic()
    with listener, site.network, socket.create_connection((addresses.HUB, PORT), timeout=30) as connection:
        got = 0
        while part := connection.recv(1 << 16):
            got += len(part)
    server.join()
    assert got == size
    return time.monotonic() - began


def restarts(site: Site, namespace: str) -> str:
    return site.kubectl("get", "pods", f"--namespace={namespace}", "-o", "jsonpath={..restartCount}")


def test_a_site_that_is_cut_off_goes_on_by_itself(bed: Testbed, one_site: Site, namespace: str) -> None:
    site = one_site
    address = probe.run(site, namespace, probe.push(bed, "1"))
    site.link.cut()
    with pytest.raises(OSError, match="timed out"):
        round_trip_s(site, limit_s=1.0)
    with bed.network, pytest.raises(OSError, match="timed out"):
        urllib.request.urlopen(f"http://{address}/", timeout=1.0)
    before = site.kubectl("get", "pods", f"--namespace={namespace}", "-o", "name")
    site.kubectl("delete", f"--namespace={namespace}", before.strip())
    until(lambda: before not in site.kubectl("get", "pods", f"--namespace={namespace}", "-o", "name"))
    probe.until_answer(site, address, "web 1")
    site.link.restore()
    assert round_trip_s(site, limit_s=10.0) < 10.0
    with bed.network, urllib.request.urlopen(f"http://{address}/", timeout=10.0) as answer:
        assert answer.read() == b"web 1\n"


def test_a_line_delays_in_both_directions(one_site: Site) -> None:
    one_site.link.shape(delay_ms=150)
    assert round_trip_s(one_site) >= 0.3
    one_site.link.shape()
    assert min(round_trip_s(one_site) for _ in range(20)) < 0.3


def test_a_line_loses_its_share_and_connections_get_through(bed: Testbed, one_site: Site) -> None:
    one_site.link.shape(loss=0.05)
    before = one_site.link.lost
    fetch_from_hub(bed, one_site, 1_000_000)
    assert one_site.link.lost > before
    one_site.link.shape(loss=1.0)
    with pytest.raises(OSError, match="timed out"):
        round_trip_s(one_site, limit_s=1.0)


def test_a_line_carries_no_more_than_its_rate_and_counts(bed: Testbed, one_site: Site) -> None:
    link = one_site.link
    link.shape(rate_mbit=2)
    before = link.bytes_to_site
    assert fetch_from_hub(bed, one_site, 500_000) >= 1.5
    assert link.bytes_to_site - before >= 500_000


def test_a_further_node_runs_pods_that_everybody_reaches(
    bed: Testbed, one_site: Site, second_node: Node, namespace: str
) -> None:
    address = probe.run(one_site, namespace, probe.push(bed, "1"), nodeName=second_node.name)
    where = one_site.kubectl("get", "pods", f"--namespace={namespace}", "-o", "jsonpath={..spec.nodeName}")
    assert where == second_node.name
    assert probe.answer(one_site, address) == "web 1"
    assert bed.run(["busybox", "wget", "-q", "-O-", f"http://{address}/"]).stdout == "web 1\n"


def test_a_node_whose_cable_is_cut_keeps_its_pods(
    bed: Testbed, one_site: Site, second_node: Node, namespace: str
) -> None:
    address = probe.run(one_site, namespace, probe.push(bed, "1"), nodeName=second_node.name)
    second_node.cut_link()
    until(lambda: not second_node.is_ready)
    with pytest.raises(OSError, match=r"timed out|No route|refused"):
        probe.answer(one_site, address)
    second_node.restore_link()
    until(lambda: second_node.is_ready)
    assert probe.until_answer(one_site, address, "web 1")
    assert restarts(one_site, namespace) == "0"


def test_a_small_node_has_the_memory_that_it_was_given(one_site: Site) -> None:
    node = one_site.add_node(memory_mib=1024)
    try:
        capacity = one_site.kubectl("get", "node", node.name, "-o", "jsonpath={.status.capacity.memory}")
        assert capacity == "1Gi"
    finally:
        node.uninstall()


def test_a_site_serves_again_after_a_power_cut(bed: Testbed, site: Site, namespace: str) -> None:
    address = probe.run(site, namespace, probe.push(bed, "1"))
    (site.nodes[0].disk / "srv").mkdir(exist_ok=True)
    (site.nodes[0].disk / "srv" / namespace).write_text("kept")
    site.link.cut()
    site.power_off()
    with pytest.raises(OSError, match=r"timed out|unreachable"):
        probe.answer(site, address)
    site.power_on()
    # The pod that the API server remembers is started again, without the hub.
    assert probe.until_answer(site, address, "web 1")
    assert (site.nodes[0].disk / "srv" / namespace).read_text() == "kept"


def test_three_sites_fit_in_three_gib_and_one_that_is_cut_off_is_alone(bed: Testbed, three_sites: list[Site]) -> None:
    first, second, third = three_sites
    assert memory.of_testbed(bed) < 3 << 10
    first.link.cut()
    with pytest.raises(OSError, match="timed out"):
        round_trip_s(first, limit_s=1.0)
    assert round_trip_s(second) < 2.0
    assert round_trip_s(third) < 2.0
    # Sites reach each other by way of the hub, as pods of theirs do.
    with second.network, socket.create_connection((addresses.node(third.number, 1), addresses.API_PORT), timeout=2):
        pass
