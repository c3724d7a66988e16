"""Facts that jitter move nothing: bench/flapping.py in small. The full run is the bench."""

from __future__ import annotations

import pytest

from bench.flapping import Play


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_moves_without_a_reason_that_a_person_would_accept(seed: int) -> None:
    play = Play(clusters=120, steps=60, seed=seed).run()
    assert play.unexplained == 0
    assert play.moves


def test_deciding_anew_each_time_would_flap() -> None:
    assert sum(Play(clusters=120, steps=10).run(keep=False).moves.values()) > 50
