"""The scenarios on platform host, checked from outside. `edgeferry demo --scenario S2` shows one to people."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitops.demo.fleet import Fleet
from gitops.demo.scenarios import SCENARIOS


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_scenario(name: str, tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "fleet")
    fleet.open()
    try:
        assert list(SCENARIOS[name](fleet))
    finally:
        fleet.close()
