"""How far bad versions come on 1,000 simulated clusters with ten canaries: the table in docs/rollouts.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.figure import figure
from gitops.cli.simulate import STANDARD
from gitops.rolling import to_rollout
from gitops.simulated import Setting
from gitops.simulating import Simulation, bad_versions
from gitops.simulation_text import bad_rows, markdown

PAGE = Path(__file__).parents[1] / "docs" / "rollouts.md"
BEGIN, END = "<!-- bad versions: begin -->\n", "<!-- bad versions: end -->"
SETTING = Setting(to_rollout(STANDARD), clusters=1000, canary=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="Put the table into docs/rollouts.md.")
    arguments = parser.parse_args()
    text = PAGE.read_text()
    if arguments.write:
        PAGE.write_text(with_table(text))
    found = bad_versions(SETTING)
    good = Simulation(SETTING).run()
    ran = max(len(course.started) for course in found.values())
    figure(
        "bad-version-sites", ran, "clusters", 10, {"a good version": len(good.started)}, "the worst of six, of 1,000"
    )


def with_table(text: str) -> str:
    """Return the page with the table as a run gives it now."""
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}{markdown(bad_rows(bad_versions(SETTING)))}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    main()
