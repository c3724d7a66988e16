"""From a commit that is seen to overlays that are visible: 10,000 clusters, 1 % of them affected, warm catalog."""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.figure import figure
from gitops.hub import World
from gitops.opening import MainSource, Opened, open_fleet
from gitops.state_dir import StateDir

_LINES = 100
_MODELS = 20
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeferry-bench-") as work:
        print_figure(Path(work), arguments.clusters, arguments.rounds)


def print_figure(work: Path, clusters: int, rounds: int) -> None:
    repository = work / "models"
    _git(work, "init", "--quiet", "--initial-branch=main", str(repository))
    _write(repository, clusters)
    _commit(repository, "start")
    state = StateDir(work / "hub")
    state.make()
    fleet = open_fleet(state, MainSource(str(repository)))
    first = _step(fleet, 0)
    spent, decided, naive = [], [], []
    for n in range(1, rounds + 1):
        changed = [number for number in range(clusters) if number % _LINES == n]
        for number in changed:
            _cluster(repository, number, f"line-{(n + 50) % _LINES}")
        _commit(repository, f"round {n}")
        spent.append(_step(fleet, n))
        decided.append(len(changed))
        naive.append(_parse(repository))
    reference = {"first publication of all": first, "parsing every document as JSON": min(naive)}
    figure(f"pipeline-{clusters}", min(spent), "ms", 300, reference)


def _step(fleet: Opened, hour: int) -> float:
    """Return the CPU time of one step and its publication, in ms."""
    fleet.sources.look_again()
    began = time.process_time()
    step = fleet.hub.step(World(_NOW + timedelta(hours=hour)))
    head = fleet.hub.publish(step)
    spent = (time.process_time() - began) * 1000
    assert head is not None and step.changed
    return spent


def _write(repository: Path, clusters: int) -> None:
    for number in range(clusters):
        _cluster(repository, number, f"line-{number % _LINES}")
    _put(
        repository, "runtimes/onnx.json.yaml", "Runtime", "onnx", {"host": {"command": ["serve", "{model}", "{port}"]}}
    )
    for n in range(_MODELS):
        name = f"model-{n}"
        _put(repository, f"models/{name}/model.yaml", "Model", name, {"delivery": "server", "runtime": "onnx"})
        weights = repository / f"models/{name}/versions/1.0.0/{name}.onnx"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"weights of " + name.encode())
        lines = [
            f"line-{line}" for line in range(_LINES) if line % _MODELS in (n, (n + 1) % _MODELS, (n + 2) % _MODELS)
        ]
        term = {"matchExpressions": [{"key": "line", "operator": "In", "values": lines}]}
        _put(repository, f"placements/{name}.yaml", "Placement", name, {"model": name, "clusters": [term]})


def _cluster(repository: Path, number: int, line: str) -> None:
    name = f"cluster-{number:05d}"
    labels = {"line": line, "country": ("it", "fr", "de")[number % 3], "edgeferry.dev/site": f"site-{number // 3}"}
    _put(repository, f"clusters/{number // 100}/{name}.yaml", "Cluster", name, {}, labels)


def _put(
    repository: Path, path: str, kind: str, name: str, spec: dict[str, object], labels: dict[str, str] | None = None
) -> None:
    target = repository / path
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"name": name, "labels": labels or {}}
    document = {"apiVersion": "edgeferry.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
    target.write_text(json.dumps(document))


def _parse(repository: Path) -> float:
    began = time.process_time()
    for path in sorted(repository.rglob("*.yaml")):
        json.loads(path.read_bytes())
    return (time.process_time() - began) * 1000


def _commit(repository: Path, message: str) -> None:
    _git(repository, "add", "--all")
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    _git(repository, *identity, "commit", "--quiet", "--message", message)


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True)


if __name__ == "__main__":
    main()
