"""Every test of the store runs on both databases."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gitops.store import Store
from gitops.store.opening import open_store
from tests.gitops.store.postgres_server import Missing, Server, serving


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A real server, for this test process."""
    try:
        with serving() as server:
            yield server
    except Missing as reason:
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail(f"this test runs on CI too, and {reason}")
        pytest.skip(str(reason))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the database is: a path or a URL."""
    if request.param == "sqlite":
        return str(tmp_path / "hub.sqlite")
    server: Server = request.getfixturevalue("postgres")
    return server.fresh()


@pytest.fixture
def open_again(database: str) -> Iterator[Callable[[], Store]]:
    """Opens the database as another process does."""
    opened: list[Store] = []

    def again() -> Store:
        opened.append(open_store(database))
        return opened[-1]

    yield again
    for one in opened:
        one.close()


@pytest.fixture
def store(open_again: Callable[[], Store]) -> Store:
    return open_again()
