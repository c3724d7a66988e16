"""Fixtures of all tests (tests/conftest.py): per process a control plane or a test bed, per test a namespace.

A test bed's sites are shared by the tests of a process: a test makes what it makes in a namespace of its own. What it
does to the site (power, link) is undone before the next test gets it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

import pytest

from tests.cluster import binary, control_plane, packages, testbed
from tests.cluster import site as sites_module
from tests.cluster.control_plane import ControlPlane
from tests.cluster.site import Site
from tests.cluster.testbed import Testbed

# Kinds of site that tests for each kind run on; the first is also the one that tests for any kind take.
KINDS: Final = tuple(os.environ.get("EDGEFERRY_KINDS", "kubernetes,k3s-shaped").split(","))

_NAMESPACES: Final = "test-"

_numbers = itertools.count(1)


def binary_or_skip() -> Path:
    """Return the built binary; without it the test is skipped with the reason, and fails where CI=true."""
    try:
        return binary.find()
    except binary.Unavailable as reason:
        skip(f"needs a real API server: {reason}")


def kubectl_or_skip() -> Path:
    """Return kubectl; without it the test is skipped with the reason, and fails where CI=true."""
    return binary_or_skip().parent / "kubectl"


def skip(reason: str) -> NoReturn:
    """Skip the test; fail it where CI=true."""
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(f"this test runs on CI too, and {reason}")
    pytest.skip(reason)


def nodes_or_skip(*kinds: str) -> None:
    """Skip the test with the reason where sites of these kinds cannot run; fail it where CI=true."""
    reasons = packages.missing(testbed.base())
    try:
        sites_module.binaries(kinds, None)
    except binary.Unavailable as reason:
        reasons.append(str(reason))
    if reasons:
        skip("needs clusters with nodes: " + "; ".join(reasons))


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


@pytest.fixture(scope="session")
def bed() -> Iterator[Testbed]:
    """A hub's network with a registry, and no sites until a test asks for them. It dies with this process."""
    nodes_or_skip()
    with testbed.own("tests") as made:
        yield made


@pytest.fixture
def one_site(bed: Testbed) -> Iterator[Site]:
    """One site with one node, shared with the other tests of this process."""
    sites = take(bed)
    yield sites[0]
    clear(sites)


@pytest.fixture
def three_sites(bed: Testbed) -> Iterator[list[Site]]:
    """Three sites around one hub, shared with the other tests of this process."""
    sites = take(bed, 3)
    yield sites
    clear(sites)


def take(bed: Testbed, count: int = 1, kind: str = KINDS[0]) -> list[Site]:
    """Return so many sites of a kind: those that the test bed has, in order again, and new ones."""
    nodes_or_skip(kind)
    found = [site for site in bed.sites if site.kind == kind][:count]
    for site in found:
        site.link.restore()
        site.link.shape()
    sites_module.boot(found)
    if missing := count - len(found):
        found += bed.add_sites(missing, kind=kind)
    return found


def clear(sites: list[Site]) -> None:
    """Delete the namespaces that tests made, and do not wait; a site without power keeps them."""
    for site in sites:
        names = site.kubectl("get", "namespaces", "-o", "name", "--request-timeout=5s", check=False).split()
        if ours := [name for name in names if name.startswith(f"namespace/{_NAMESPACES}")]:
            site.kubectl("delete", "--wait=false", *ours, check=False)


@pytest.fixture
def namespace() -> str:
    """A name that no other test of this process has; who needs the namespace makes it."""
    return f"{_NAMESPACES}{os.getpid()}-{next(_numbers)}"
