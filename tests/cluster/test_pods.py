"""A site's cluster is a real one: pods run, answer, change and come back."""

from __future__ import annotations

import pytest

from tests.cluster import probe
from tests.cluster.site import Site
from tests.cluster.testbed import Testbed

pytestmark = pytest.mark.nodes


@pytest.fixture(params=["kubernetes", "k3s-shaped"])
def site(request: pytest.FixtureRequest) -> Site:
    """One site of each kind."""
    found = request.getfixturevalue(f"{request.param.replace('-', '_')}_site")
    assert isinstance(found, Site)
    return found


def test_a_pod_answers_through_its_service_at_its_site_and_from_the_hub(
    bed: Testbed, site: Site, namespace: str
) -> None:
    address = probe.run(site, namespace, probe.push(bed, "1"))
    assert probe.answer(site, address) == "web 1"
    assert bed.run(["busybox", "wget", "-q", "-O-", f"http://{address}/"]).stdout == "web 1\n"
