"""What is particular to the server: it goes away and comes back, and a killed hub's place is free at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gitops.store.opening import open_store
from gitops.store.postgres import StoreAway
from tests.gitops.store.postgres_server import Server

_LEAD = """
import sys
from gitops.store.opening import open_store
store = open_store(sys.argv[1])
print(store.lead(), flush=True)
sys.stdin.read()
"""


def test_a_killed_hub_leaves_its_place_at_once(postgres: Server) -> None:
    url = postgres.fresh()
    store = open_store(url)
    command = [sys.executable, "-c", _LEAD, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        assert not store.lead()
        other.kill()
        other.wait()
    until(store.lead)
    store.close()


def test_a_server_that_went_away_is_a_fault_that_passes(postgres: Server) -> None:
    store = open_store(postgres.fresh())
    assert store.lead() and store.registrations() == ()
    postgres.kill()
    with pytest.raises(StoreAway):
        store.registrations()
    assert not store.lead(), "who cannot reach the database decides nothing"
    postgres.start()
    assert store.registrations() == ()
    until(store.lead)
    store.close()


def test_nobody_there_is_a_coded_fault(postgres: Server) -> None:
    with pytest.raises(StoreAway):
        open_store("postgresql://nobody@/x?host=/nonexistent")


def until(holds: object) -> None:
    import time

    deadline = time.monotonic() + 20
    while not holds():  # type: ignore[operator]  # a function
        assert time.monotonic() < deadline
