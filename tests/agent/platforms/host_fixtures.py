"""Sites for the tests of platform host; a test module takes them by ``pytest_plugins``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.config import Config
from agent.platforms.host_stop import stop_everything
from tests.agent.platforms.host_site import Site, ports

REAPER = """
import sys
from pathlib import Path
from agent.platforms.host_stop import stop_everything
sys.stdin.read()
for one in Path(sys.argv[1]).rglob("host/id"):
    stop_everything(one.parent.parent)
"""


@pytest.fixture(scope="session")
def reaper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ends what tests left running, even when they are killed: it waits until our end of the pipe is closed."""
    command = [sys.executable, "-c", REAPER, str(tmp_path_factory.getbasetemp())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield


@pytest.fixture
def sites(tmp_path: Path, reaper: None) -> Iterator[Callable[..., Site]]:
    """Makes sites; what they run ends with the test."""
    made = []

    def make(name: str = "state", **settings: Any) -> Site:
        first, last = ports()
        settings = {"first_port": first, "last_port": last, "drain_s": 5.0, **settings}
        made.append(Site(tmp_path / name, Config("milan-01", "f-1", **settings)))
        return made[-1]

    yield make
    for site in made:
        site.platform.close()
        stop_everything(site.state)


@pytest.fixture
def site(sites: Callable[..., Site]) -> Site:
    """A site with defaults."""
    return sites()
