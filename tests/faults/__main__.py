"""``python -m tests.faults [--schedules N] [--seed S] [--length L] [--cells PATTERN]``: one JSON line a cell.

Without ``--schedules`` the whole matrix is played once, in order. A schedule is a random sequence of cells on one site.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.matrix import MATRIX, PLAYED, Cell
from tests.faults.play import play
from tests.faults.site import World

_CHUNK = 12
"""So many cells of the whole matrix share a fleet."""


def schedule(seed: int, length: int) -> list[Cell]:
    """Return the cells of one schedule."""
    return random.Random(seed).sample(PLAYED, min(length, len(PLAYED)))


def run(cells: Sequence[Cell], label: str) -> int:
    """Play cells one after the other on one site, a line for each; return how many failed."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="edgeferry-faults-") as directory:
        world: World | None = None
        for number, cell in enumerate(cells):
            began, why = time.monotonic(), ""
            try:
                if world is None:
                    world = World(Path(directory, str(number)), small=os.geteuid() == 0)
                    world.root.mkdir()
                    world.open()
                play(world, cell)
            except Exception as error:  # what goes wrong in a cell is its result
                failed, why = failed + 1, f"{type(error).__name__}: {error}"[:3000]
                if world is not None:
                    world.close()
                world = None
            line = {"cell": cell.name, "schedule": label, "seconds": round(time.monotonic() - began, 1)}
            print(json.dumps(line | {"ok": not why} | ({"why": why} if why else {}), ensure_ascii=False), flush=True)
        if world is not None:
            world.close()
    return failed


def main() -> int:
    """Play what the command line asks for; 1 where a cell failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--schedules", type=int, default=0, help="random schedules; 0: the whole matrix")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--length", type=int, default=8, help="cells of a schedule")
    parser.add_argument("--cells", default="*", help="pattern of cells of the matrix, as link-*×staging")
    options = parser.parse_args()
    if options.schedules:
        runs = [(f"{n}", schedule(n, options.length)) for n in range(options.seed, options.seed + options.schedules)]
    else:
        chosen = [cell for cell in PLAYED if fnmatch.fnmatch(cell.name, options.cells)]
        runs = [(f"matrix-{at}", chosen[at : at + _CHUNK]) for at in range(0, len(chosen), _CHUNK)]
    failed = sum(run(cells, label) for label, cells in runs)
    played = sum(len(cells) for _, cells in runs)
    left_out = len(MATRIX) - len(PLAYED)
    print(json.dumps({"cells": played, "schedules": len(runs), "failed": failed, "leftOut": left_out}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
