"""Random schedules of faults on real processes. ``python -m tests.faults`` plays more, or the whole matrix."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.__main__ import schedule
from tests.faults.matrix import FAULTS, MATRIX, PHASES
from tests.faults.play import play
from tests.faults.site import World

SEEDS = (3, 11, 19, 24)
LENGTH = 6


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path, small=os.geteuid() == 0)
    found.open()
    try:
        yield found
    finally:
        found.close()


def test_the_matrix_has_every_fault_in_every_phase_or_says_why_not() -> None:
    assert len(MATRIX) == len(FAULTS) * len(PHASES)
    assert all(len(cell.left_out) > 5 for cell in MATRIX if cell.left_out)
    assert all(any(not cell.left_out for cell in MATRIX if cell.fault == fault) for fault in FAULTS)


def test_a_seed_is_a_schedule() -> None:
    assert schedule(7, 20) == schedule(7, 20) != schedule(8, 20)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_schedule_of_faults_leaves_the_site_right(world: World, seed: int) -> None:
    for cell in schedule(seed, LENGTH):
        play(world, cell)
