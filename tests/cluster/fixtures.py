"""Fixtures to import into a conftest.py: a control plane per process that runs tests, a namespace per test."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import binary, control_plane
from tests.cluster.control_plane import ControlPlane

_numbers = itertools.count(1)


def binary_or_skip() -> Path:
    """Return the built binary; without it the test is skipped with the reason, and fails where CI=true."""
    try:
        return binary.find()
    except binary.Unavailable as reason:
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail(f"this test needs a real API server, on CI too: {reason}")
        pytest.skip(f"needs a real API server: {reason}")


@pytest.fixture(scope="session")
def api_server() -> Iterator[ControlPlane]:
    """A control plane without controllers: what a test does to an object's status stays. It dies with this process."""
    components = binary_or_skip()
    # etcd's and the tests' paths stay short and off pytest's kept folders.
    folder = Path(tempfile.mkdtemp(prefix="edgeferry-api-"))
    try:
        cluster = control_plane.create(folder, components, controllers=False, dies_with_us=True)
        yield cluster
        control_plane.destroy(cluster)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def namespace() -> str:
    """A name that no other test of this process has; who needs the namespace makes it."""
    return f"test-{os.getpid()}-{next(_numbers)}"
