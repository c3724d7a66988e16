"""What an agent costs a small device while nothing happens: memory, and CPU of a look at what runs.

A real agent process on a bare host with 50 file entries, in its steady state. Its pause between looks is made short, so
that there are many of them in the time measured; the poll waits longer than that.

    python -m bench.footprint [--entries N] [--seconds S]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.figure import figure
from gitops.demo.documents import cluster, document, placement
from gitops.demo.fleet import Fleet
from gitops.demo.processes import BIN, environment, run

_LOOK_S: Final = 0.1
_STEADY_S: Final = 3.0
_PLAIN: Final = "import click, sqlite3, ssl, yaml, cryptography.hazmat.primitives.asymmetric.ed25519; input()"


def main() -> None:
    """Print footprint-host and footprint-cycle."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        fleet = Fleet(Path(directory) / "fleet")
        fleet.open()
        try:
            _prepare(fleet, options.entries)
            resident_mib, cycle_ms = _measure(fleet, options.seconds)
        finally:
            fleet.close()
    figure("footprint-host", round(resident_mib, 1), "MiB", 32, {"Python with the same libraries": _plain_mib()})
    figure("footprint-cycle", round(cycle_ms, 3), "ms", 1, {})


def _prepare(fleet: Fleet, entries: int) -> None:
    """Publish so many models of one small file to one site, and bring the site to all of them."""
    fleet.init(empty=True)
    files: dict[str, str | bytes | None] = dict(cluster("edge"))
    for n in range(entries):
        name = f"model-{n:03}"
        files |= {
            f"models/{name}/model.yaml": document("Model", name, {"delivery": "file"}),
            f"models/{name}/versions/1.0.0/{name}.bin": os.urandom(4096),
            **placement(name, model=name, clusters=[{"names": ["edge"]}]),
        }
    fleet.commit("models", files)
    fleet.edgeferry("publish", str(fleet.origin), "--fleet", "fleet.git", "--keys", "keys")
    for file in ("1.json", "1.json.sig"):
        (fleet.root / file).write_text(run(["git", "show", f"main:trust/{file}"], cwd=fleet.root / "fleet.git"))
    settings = {"probation_s": 0.1, "look_s": _LOOK_S, "wait_s": 3600}
    more = [part for name, value in settings.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    where = ["--git", "fleet.git", "--trust", "1.json", "--store", "artifacts"]
    run([str(BIN / "edgeferry-agent"), "join", "--state", "site", "--cluster", "edge", *where, *more], cwd=fleet.root)
    once = ["once", "--state", "site", "--until-current", "--timeout", "120"]
    run([str(BIN / "edgeferry-agent"), *once], cwd=fleet.root)


def _measure(fleet: Fleet, seconds: float) -> tuple[float, float]:
    """Return MiB resident, and ms of CPU of one cycle."""
    command = [str(BIN / "edgeferry-agent"), "run", "--state", "site"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=fleet.root, env=environment(None), stdout=quiet, stderr=quiet) as agent:
        time.sleep(_STEADY_S)
        began_s, before_s = time.monotonic(), _cpu_s(agent.pid)
        time.sleep(seconds)
        cpu_s, lasted_s = _cpu_s(agent.pid) - before_s, time.monotonic() - began_s
        resident_mib = _resident_mib(agent.pid)
        agent.terminate()
    # Every cycle lasts its own time and the pause: so many fit into what was measured.
    return resident_mib, 1000 * cpu_s * _LOOK_S / (lasted_s - cpu_s)


def _plain_mib() -> float:
    """Return MiB of a Python process that has loaded what an agent is built on, and does nothing."""
    with subprocess.Popen([sys.executable, "-c", _PLAIN], stdin=subprocess.PIPE) as plain:
        time.sleep(1)
        found = _resident_mib(plain.pid)
        assert plain.stdin is not None
        plain.stdin.write(b"\n")
    return round(found, 1)


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _cpu_s(pid: int) -> float:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


if __name__ == "__main__":
    main()
