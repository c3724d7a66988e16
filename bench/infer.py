"""``infer-p99``: what a request pays for going through the forwarder of a host, in peace and while models are switched.

One client asks in turn a bare runtime process and the stable port, the same question of the same model, over kept
connections. First nothing else happens; then the model behind the stable port is switched again and again, and both get
the noise of starting processes in the same measure. Every round gives one p99 of each; its ratio is the middle one of
the rounds, as the machine is shared. The figure is the worse of the two ratios.
"""

from __future__ import annotations

import http.client
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from agent.actions import Remove, Retire, Staged, Start, Switch
from agent.config import Config
from agent.platforms.host import HostPlatform
from agent.platforms.host_ports import is_free
from agent.platforms.host_stop import stop_everything
from agent.wire.release import Artifact, Entry, Runtime, with_digest
from bench.figure import figure

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
VERSIONS = ("1.0.0", "2.0.0")
ROUNDS = 11
REQUESTS = 500
WARM_UP = 200
TARGET = 1.5


def staged(name: str, version: str) -> Staged:
    """Return a version of the digits model as the agent would have staged it."""
    command = (sys.executable, str(DIGITS.parent / "runtime" / "edgeferry-onnx-runtime"))
    entry = Entry(
        kind="model",
        name=name,
        version=version,
        delivery="server",
        artifacts=(Artifact("sha256:" + "0" * 64, 1, "application/octet-stream", "hub://digits", "digits.onnx"),),
        runtime=Runtime(
            "onnx", "", 8080, "v2", "", (*command, "--port", "{port}", "--model", "{model}", "--name", "{name}")
        ),
    )
    return Staged(with_digest(entry, {}), {}, DIGITS, DIGITS / f"digits-{version}.onnx")


def start(platform: HostPlatform, one: Staged, known: tuple[Staged, ...]) -> None:
    """Start an entry and wait until it is ready."""
    platform.execute(Start(one))
    while not any(seen.digest == one.digest and seen.health == "current" for seen in platform.observe(known).seen):
        time.sleep(0.01)


def asked(port: int, name: str, question: bytes) -> Iterator[float]:
    """Yield how long each of endlessly many requests took, in ms."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in itertools.count():
        began = time.perf_counter()
        connection.request("POST", f"/v2/models/{name}/infer", question, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        yield (time.perf_counter() - began) * 1000
        if response.status != 200:
            raise SystemExit(f"{name} answered {response.status}")


def percentile(times: list[float], share: float) -> float:
    """Return the time that ``share`` of all are within."""
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


@contextmanager
def host() -> Iterator[HostPlatform]:
    """A host platform in a directory of its own; nothing of it stays."""
    with tempfile.TemporaryDirectory() as state:
        first = next(
            port for port in range(21000, 60000, 100) if all(is_free("127.0.0.1", port + n) for n in range(50))
        )
        platform = HostPlatform(Path(state), Config("bench", "bench", first_port=first, last_port=first + 49))
        try:
            yield platform
        finally:
            platform.close()
            stop_everything(Path(state))


def measure(direct: Iterator[float], through: Iterator[float], requests: int) -> dict[str, list[float]]:
    """Return the times of requests asked in turn of the bare process and of the forwarder."""
    times: dict[str, list[float]] = {"bare": [], "forwarder": []}
    for _ in range(requests):
        times["bare"].append(next(direct))
        times["forwarder"].append(next(through))
    return times


def main() -> None:
    """Print the figure."""
    question = (DIGITS / "question.json").read_bytes()
    bare = staged("bare", VERSIONS[0])
    versions = [staged("digits", version) for version in VERSIONS]
    known = (bare, *versions)
    with host() as platform:
        for one in (bare, versions[0]):
            start(platform, one, known)
            platform.execute(Switch(one, None))
        ports = {seen.name: int(seen.url.rsplit(":", 1)[1]) for seen in platform.observe(known).seen}
        direct = asked(backend_port(platform, "model/bare"), "bare", question)
        through = asked(ports["digits"], "digits", question)
        measure(direct, through, WARM_UP)
        peace = [measure(direct, through, REQUESTS) for _ in range(ROUNDS)]
        switched = []
        for turn in range(ROUNDS):
            switching = threading.Thread(target=switch, args=(platform, versions, turn, known))
            switching.start()
            switched.append(measure(direct, through, REQUESTS))
            switching.join()
        for name in ("bare", "digits"):
            platform.execute(Remove("model", name))
    reference = {
        f"{name}-{word}-{when}-ms": median(percentile(times[name], share) for times in rounds)
        for when, rounds in (("peace", peace), ("switching", switched))
        for name in ("bare", "forwarder")
        for word, share in (("p50", 0.5), ("p99", 0.99))
    }
    ratios = [
        median(percentile(times["forwarder"], 0.99) / percentile(times["bare"], 0.99) for times in rounds)
        for rounds in (peace, switched)
    ]
    note = f"peace {ratios[0]:.2f}, {ROUNDS} switches {ratios[1]:.2f}; no request failed"
    figure("infer-p99", max(ratios), "ratio", TARGET, reference, note)


def backend_port(platform: HostPlatform, key: str) -> int:
    """Return the port of the process itself."""
    record = platform._parts()[0].records.get(key)
    serving = record.instance(record.serving)
    assert serving is not None
    return serving.port


def switch(platform: HostPlatform, versions: list[Staged], turn: int, known: tuple[Staged, ...]) -> None:
    """Bring the other version up, put it into service, stop the one before."""
    old, new = versions[turn % 2], versions[(turn + 1) % 2]
    start(platform, new, known)
    platform.execute(Switch(new, old))
    platform.execute(Retire(old))


if __name__ == "__main__":
    main()
