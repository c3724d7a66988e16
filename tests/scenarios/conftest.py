"""Fixtures of the scenarios."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import testbed
from tests.cluster.fixtures import nodes_or_skip
from tests.cluster.testbed import Testbed
from tests.scenarios.pods import Images, push_images


@pytest.fixture(scope="session")
def bed() -> Iterator[Testbed]:
    """A test bed of the scenarios' own: its sites have one node each, and no other test does anything to them."""
    nodes_or_skip()
    with testbed.own("scenarios") as made:
        yield made


@pytest.fixture(scope="session")
def images(bed: Testbed) -> Images:
    """The project's images in the registry of this process's test bed."""
    return push_images(bed)
