"""The form of every figure: one JSON line, lower is better, the reference measured in the same run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping


def figure(
    name: str, value: float, unit: str, target: float | None, reference: Mapping[str, float], note: str = ""
) -> None:
    """Print one figure.

    Args:
        name: kept for ever.
        value: what was measured.
        unit: of value, target and references.
        target: of design; None where there is none.
        reference: the same work done otherwise, in the same run; published figures say so in their name.
        note: what a reader must know to compare; empty for nothing.
    """
    rounded = {name: round(one, 4) for name, one in reference.items()}
    line = {"name": name, "value": round(value, 4), "unit": unit, "target": target, "reference": rounded}
    print(json.dumps(line | ({"note": note} if note else {})), flush=True)


def cpu_ms(work: Callable[[], object], repeat: int) -> float:
    """Return the least CPU time of ``repeat`` runs, in ms."""
    spent = []
    for _ in range(repeat):
        began = time.process_time()
        work()
        spent.append((time.process_time() - began) * 1000)
    return min(spent)
