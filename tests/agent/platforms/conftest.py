"""Fixtures of the platforms' tests."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.config import Config
from agent.platforms.host_stop import stop_everything
from tests.cluster.fixtures import api_server, namespace

__all__ = ["api_server", "namespace"]

REAPER = """
import sys
from pathlib import Path
from agent.platforms.host_stop import stop_everything
sys.stdin.read()
for one in Path(sys.argv[1]).rglob("host/id"):
    stop_everything(one.parent.parent)
"""


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


host_site = _load("host_site")


@pytest.fixture(scope="session")
def _reaper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ends what tests left running, even when they are killed: it waits until our end of the pipe is closed."""
    command = [sys.executable, "-c", REAPER, str(tmp_path_factory.getbasetemp())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield


@pytest.fixture
def sites(tmp_path: Path, _reaper: None) -> Iterator[Callable[..., Any]]:
    """Makes sites; what they run ends with the test."""
    made = []

    def make(name: str = "state", **settings: Any) -> Any:
        first, last = host_site.ports()
        settings = {"first_port": first, "last_port": last, "drain_s": 5.0, **settings}
        made.append(host_site.Site(tmp_path / name, Config("milan-01", "f-1", **settings)))
        return made[-1]

    yield make
    for site in made:
        site.platform.close()
        stop_everything(site.state)


@pytest.fixture
def site(sites: Callable[..., Any]) -> Any:
    """A site with defaults."""
    return sites()
