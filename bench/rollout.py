"""A rollout over 10,000 clusters: one step that folds 100 reports, and a plan that touches every cluster."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.wire.report import EntryReport, Report, decode_report, encode_report
from bench.figure import figure
from bench.pipeline import _commit, _git, _put
from gitops.hub import World
from gitops.opening import MainSource, Opened, open_fleet
from gitops.planning import plan_of_step
from gitops.state_dir import StateDir
from placement.rollout import advance
from placement.rollout_types import Field, Told

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_NEWS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeferry-bench-") as work:
        print_figures(Path(work), arguments.clusters, arguments.rounds)


def print_figures(work: Path, clusters: int, rounds: int) -> None:
    repository = work / "models"
    _git(work, "init", "--quiet", "--initial-branch=main", str(repository))
    names = [f"cluster-{n:05d}" for n in range(clusters)]
    for n, name in enumerate(names):
        _put(repository, f"clusters/{n // 100}/{name}.yaml", "Cluster", name, {}, {"line": f"line-{n % 100}"})
    _put(repository, "runtimes/onnx.yaml", "Runtime", "onnx", {"host": {"command": ["serve", "{model}", "{port}"]}})
    _put(repository, "models/digits/model.yaml", "Model", "digits", {"delivery": "server", "runtime": "onnx"})
    _version(repository, "1.0.0")
    rollout = {"waves": [{"percent": 100}], "maxConcurrent": 2 * _NEWS, "maxFailures": "50%"}
    _put(repository, "placements/digits.yaml", "Placement", "digits", {"model": "digits"})
    _commit(repository, "start")
    state = StateDir(work / "hub")
    state.make()
    fleet = open_fleet(state, MainSource(str(repository)))
    _step(fleet, World(_NOW))
    _put(repository, "placements/digits.yaml", "Placement", "digits", {"model": "digits", "rollout": rollout})
    _version(repository, "2.0.0")
    _commit(repository, "a new version")
    seen = dict.fromkeys(names, _NOW)
    reports = {name: (_report(name, fleet), _NOW) for name in names}
    _step(fleet, World(_NOW, reports=reports, seen=seen))
    spent, reading = [], []
    for n in range(1, rounds + 1):
        now = _NOW + timedelta(minutes=n)
        places = fleet.hub.step(World(now, reports=reports, seen=seen)).rolled.progress["digits"].places
        moving = sorted(name for name, one in places.items() if one.step == "moving")[:_NEWS]
        said = {name: encode_report(replace(_report(name, fleet), sent_at=now)) for name in moving}
        began = time.process_time()
        reports = {**reports, **{name: (decode_report(data), now) for name, data in said.items()}}
        reading.append((time.process_time() - began) * 1000)
        step = fleet.hub.step(World(now, reports=reports, seen=seen))
        fleet.hub.publish(step)
        spent.append((time.process_time() - began) * 1000)
        assert len(step.changed) == _NEWS, len(step.changed)
    references = {"reading the reports alone": min(reading), "engine alone": _engine(names, rounds)}
    note = "reports decoded, folded, rollout led, overlays signed and published; signatures of reports are not in it"
    figure(f"rollout-step-{clusters}", min(spent), "ms", 60, references, note)
    _plan(repository, fleet, rounds, clusters)


def _plan(repository: Path, fleet: Opened, rounds: int, clusters: int) -> None:
    """Measure a plan that changes every cluster, from a commit that is read to the text of it."""
    spent, writing = [], []
    for n in range(min(rounds, 3)):
        _put(
            repository,
            "runtimes/onnx.yaml",
            "Runtime",
            "onnx",
            {"host": {"command": ["serve", "{model}", "{port}", f"--n={n}"]}},
        )
        _commit(repository, f"plan {n}")
        fleet.sources.look_again()
        began = time.process_time()
        step = fleet.hub.step(World(_NOW + timedelta(hours=1 + n)))
        plan = plan_of_step(step, fleet.hub.published)
        text = json.dumps(plan.as_json())
        spent.append((time.process_time() - began) * 1000)
        assert len(plan.moves) == clusters
        began = time.process_time()
        json.loads(text)
        writing.append((time.process_time() - began) * 1000)
    figure(f"plan-all-{clusters}", min(spent), "ms", 2500, {"reading its JSON": min(writing)})


def _engine(names: list[str], rounds: int) -> float:
    """Return the CPU time of the engine alone, half of the fleet done, in ms."""
    from bench.figure import cpu_ms
    from placement.rollout_types import RolloutPolicy

    old, new = "sha256:" + "0" * 64, "sha256:" + "1" * 64
    told = {name: Told(new, new, "current", _NOW) for name in names[: len(names) // 2]}
    seen = dict.fromkeys(names, _NOW)
    scene = Field(RolloutPolicy(), dict.fromkeys(names, new), dict.fromkeys(names, old), _NOW, {}, seen)
    state = advance(scene, None).state
    later = replace(scene, told=told, has=dict.fromkeys(names, new), now=_NOW + timedelta(minutes=1))
    return cpu_ms(lambda: advance(later, state), rounds)


def _report(name: str, fleet: Opened) -> Report:
    """Return the report of a cluster that has taken up what is published to it."""
    entries = fleet.hub.published[name].entries
    found = tuple(
        EntryReport(kind, subject, version, digest, digest, "current", _NOW, since=_NOW)
        for (kind, subject), (version, digest) in entries.items()
    )
    return Report("fleet", name, "i", 1, _NOW, entries=found)


def _version(repository: Path, number: str) -> None:
    weights = repository / f"models/digits/versions/{number}/digits.onnx"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(f"weights {number}".encode())


def _step(fleet: Opened, world: World) -> None:
    fleet.sources.look_again()
    fleet.hub.publish(fleet.hub.step(world))


if __name__ == "__main__":
    main()
