"""The scenarios on real clusters: pods, Services, kubelets, the agent's chart. The steps are those of the hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitops.demo.scenarios import SCENARIOS
from tests.cluster.fixtures import take
from tests.cluster.testbed import Testbed
from tests.scenarios.pods import Images, pod_fleet

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

SITES = {"S1": 4, "S2": 2, "S3": 3, "S4": 2, "S5": 1}


@pytest.mark.parametrize("name", SITES)
def test_scenario(name: str, tmp_path: Path, bed: Testbed, images: Images) -> None:
    with pod_fleet(tmp_path, bed, images, take(bed, SITES[name], "kubernetes")) as fleet:
        assert list(SCENARIOS[name](fleet))
