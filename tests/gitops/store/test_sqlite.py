"""What is particular to the file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gitops.store.connection import StoreUnreadable
from gitops.store.opening import BadStoreUrl, open_store


def test_the_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    store = open_store(tmp_path / "hub.sqlite")
    assert store.lead()
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    store.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hub.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreUnreadable):
        open_store(tmp_path / "hub.sqlite")


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(BadStoreUrl, match="postgresql"):
        open_store("mysql://db/edgeferry")
