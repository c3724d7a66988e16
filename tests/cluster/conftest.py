"""Fixtures of the clusters' own tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.fixtures import KINDS, clear, take
from tests.cluster.site import Site
from tests.cluster.testbed import Testbed


@pytest.fixture(params=KINDS)
def site(bed: Testbed, request: pytest.FixtureRequest) -> Iterator[Site]:
    """One site with one node of each kind in turn, shared with the other tests of this process."""
    sites = take(bed, 1, request.param)
    yield sites[0]
    clear(sites)
