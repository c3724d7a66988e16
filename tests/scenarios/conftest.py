"""Fixtures of the scenarios."""

from __future__ import annotations

import pytest

from tests.cluster.testbed import Testbed
from tests.scenarios.pods import Images, push_images


@pytest.fixture(scope="session")
def images(bed: Testbed) -> Images:
    """The project's images in the registry of this process's test bed."""
    return push_images(bed)
