"""``commit-serving``, ``infer-p99-pods``: a model behind a Service on a real cluster, made for the bench as root.

``commit-serving``: from `git push` to the first answer of the new version through the Service; the middle one of ten
pushes, in s, split by what was seen from outside: the hub's log (watch, decide, publish), the Deployment (brought:
fetch, stage and the candidate's self-test) and the answers (ready: the pod that serves).

``infer-p99-pods``: the ratio of the p99 of a request through the Service to that of the same question asked of the pod
itself, in turn, over kept connections, in peace and while versions are rolled over; the worse one of the two.
"""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from bench.figure import figure
from bench.infer import percentile
from gitops.demo.documents import DIGITS, cluster, placement
from gitops.demo.fleet import QUESTION, Fleet, ask
from gitops.demo.pods import MODELS, PodSite
from tests.cluster import testbed
from tests.cluster.site import Site
from tests.scenarios.pods import pod_fleet, push_images

PUSHES = 10
REQUESTS = 400
WARM_UP = 100
ROUNDS = 5
TARGET_RATIO = 1.5
_PUBLISHED = re.compile(r"^(\S+ \S+) INFO published .* decided in (\d+) ms, written in (\d+) ms", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Bench:
    """A fleet with one cluster where digits serves."""

    fleet: Fleet
    site: PodSite
    network: Site

    def push(self, number: int) -> str:
        """Push the next version; return the version of the example whose answers it gives."""
        like = ("1.0.0", "2.0.0")[number % 2]
        data = (DIGITS / f"digits-{like}.onnx").read_bytes()
        self.fleet.commit(f"digits {number}", {f"models/digits/versions/{number}.0.0/digits.onnx": data})
        return like

    def address(self) -> str:
        """Return the Service's address."""
        return str(self.site.get("service", "digits", f"--namespace={MODELS}")[0]["spec"]["clusterIP"])

    def pod(self) -> str:
        """Return the address of the pod that serves."""
        pods = self.site.get("pods", f"--namespace={MODELS}", "--selector=edgeferry.dev/model=digits")
        return str(next(one for one in pods if "deletionTimestamp" not in one["metadata"])["status"]["podIP"])


@contextmanager
def bench() -> Iterator[Bench]:
    """One cluster, one fleet; nothing of it stays."""
    testbed.remove_dead(testbed.base())
    bed = testbed.create(testbed.base() / f"bench-{os.getpid()}", dies_with_us=True)
    try:
        (site,) = bed.add_sites(1, kind="kubernetes", say=lambda _: None)
        with tempfile.TemporaryDirectory() as root, pod_fleet(Path(root), bed, push_images(bed), [site]) as fleet:
            fleet.init(empty=True)
            fleet.commit("Digits", cluster("edge") | placement("digits", model="digits"))
            fleet.start_hub()
            fleet.join("edge")
            fleet.expect({"edge": "1.0.0"}, within_s=180)
            seen = fleet.sites["edge"]
            assert isinstance(seen, PodSite)
            yield Bench(fleet, seen, site)
    finally:
        bed.destroy()


def commit_to_serving(here: Bench, number: int) -> dict[str, float]:
    """Push a version and return how long each part took, in s."""
    watch = [*here.site.kubectl, "get", "deployment/digits", f"--namespace={MODELS}", "--watch-only", "--output=name"]
    address = here.address()
    published = len(_PUBLISHED.findall(log(here)))
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as watching:
        applied: list[float] = []

        def read() -> None:
            assert watching.stdout is not None
            applied.extend(time.time() for _ in watching.stdout)

        reader = threading.Thread(target=read)
        reader.start()
        like = here.push(number)
        pushed = time.time()
        with here.network.network:
            while (answer := ask(f"http://{address}:8080", "digits")) is None or answer.version != like:
                time.sleep(0.005)
        served = time.time()
        watching.terminate()
        reader.join()
    written, decided_ms, written_ms = _PUBLISHED.findall(log(here))[published]
    ready_at = datetime.strptime(written, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()
    decide, publish = int(decided_ms) / 1000, int(written_ms) / 1000
    return {
        "all": served - pushed,
        "watch": max(0.0, ready_at - pushed - decide - publish),
        "decide": decide,
        "publish": publish,
        "brought": applied[0] - ready_at,
        "ready": served - applied[0],
    }


def log(here: Bench) -> str:
    """Return what the hub logged."""
    hub = here.fleet.hub
    assert hub is not None
    return hub.log.read_text()


def settled(here: Bench) -> None:
    """Wait until one pod alone is there."""
    of_models = (f"--namespace={MODELS}", "--selector=edgeferry.dev/model=digits")
    here.fleet.until("one pod is left", lambda: len(here.site.get("pods", *of_models)) == 1)


def asked(address: str) -> Iterator[float]:
    """Yield how long each of endlessly many requests took, in ms."""
    connection = http.client.HTTPConnection(address, 8080, timeout=60)
    while True:
        began = time.perf_counter()
        connection.request("POST", "/v2/models/digits/infer", QUESTION, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        yield (time.perf_counter() - began) * 1000
        if response.status != 200:
            raise SystemExit(f"{address} answered {response.status}")


def ratio(here: Bench, *, switching: int = 0) -> float:
    """Return the ratio of the p99 of the Service to that of the pod; ``switching`` is a version to push meanwhile."""
    settled(here)
    pod, service = here.pod(), here.address()
    with here.network.network:
        direct, through = asked(pod), asked(service)
        for _ in range(WARM_UP):
            next(direct), next(through)
        if switching:
            here.push(switching)
        times: dict[str, list[float]] = {"direct": [], "through": []}
        for _ in range(REQUESTS):
            try:
                times["direct"].append(next(direct))
            except (OSError, http.client.HTTPException, StopIteration):
                pod = here.pod()
                direct = asked(pod)
            times["through"].append(next(through))
    return percentile(times["through"], 0.99) / percentile(times["direct"], 0.99)


def main() -> None:
    """Print the figures."""
    with bench() as here:
        runs = []
        for number in range(3, 3 + PUSHES):
            runs.append(commit_to_serving(here, number))
            settled(here)
        parts = {name: median(run[name] for run in runs) for name in runs[0]}
        whole = parts.pop("all")
        figure("commit-serving", whole, "s", None, parts, f"{PUSHES} pushes; the references are its parts")
        first = 3 + PUSHES
        peace = median(ratio(here) for _ in range(ROUNDS))
        busy = median(ratio(here, switching=first + turn) for turn in range(ROUNDS))
    note = f"peace {peace:.2f}, while {ROUNDS} versions roll over {busy:.2f}; no request through the Service failed"
    figure("infer-p99-pods", max(peace, busy), "ratio", TARGET_RATIO, {"pod-itself": 1.0}, note)


if __name__ == "__main__":
    main()
