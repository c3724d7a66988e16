"""The scenarios: what a person does, and what must then be seen from outside. Each yields the titles of its steps.

A step is yielded when it has been done and checked; whoever plays the scenario prints what it likes in between.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from typing import Final

from gitops.demo.bad_version import bad_version
from gitops.demo.documents import (
    DIGITS,
    cluster,
    document,
    model,
    placement,
    reader,
    version,
    workload,
    workload_version,
)
from gitops.demo.fleet import ANSWERS, Fleet, Wrong
from gitops.demo.joining import registration
from gitops.demo.processes import run
from gitops.demo.scenario_offline import cut_off
from gitops.demo.seen import (
    Client,
    check_empty_and_signed,
    overlay_of,
    runtimes,
    same,
    staged_files,
    until_held,
    until_known,
    until_readers,
    until_seen,
    until_weights,
    write_files,
)

Scenario = Callable[[Fleet], Iterator[str]]


def one_many_labels(fleet: Fleet) -> Iterator[str]:
    """S1: one site, many sites, the same by label, a second model, and everything gone again."""
    fleet.init(empty=True)
    labels = {"milan-01": "welding", "turin-01": "welding", "lyon-01": "welding", "paris-01": "packing"}
    files = {path: text for name, line in labels.items() for path, text in cluster(name, line=line).items()}
    files |= placement("digits", model="digits", clusters=[{"names": ["milan-01"]}])
    fleet.commit("Four clusters; digits for Milan", files)
    fleet.start_hub()
    for name in labels:
        fleet.join(name)
    fleet.expect({"milan-01": "1.0.0", "turin-01": "", "lyon-01": "", "paris-01": ""})
    yield "1. 1.0.0 is pushed and the placement names one site: it serves"

    three = ["milan-01", "turin-01", "lyon-01"]
    fleet.commit("Widen to three sites", placement("digits", model="digits", clusters=[{"names": three}]))
    serving = dict.fromkeys(three, "1.0.0") | {"paris-01": ""}
    fleet.expect(serving)
    yield "2. Widened to three sites: all serve"

    before = {name: runtimes(fleet, name) for name in three}
    by_label = [{"matchLabels": {"line": "welding"}}]
    commit = fleet.commit("Select by label", placement("digits", model="digits", clusters=by_label))
    until_seen(fleet, commit)
    fleet.expect(serving)
    same("the processes on the three sites", before, {name: runtimes(fleet, name) for name in three})
    yield "3. The names replaced by a label that selects the same three: nothing restarts"

    second: dict[str, str | bytes | None] = {**model("letters"), **version("letters", "1.0.0", "2.0.0")}
    second |= placement("letters", model="letters", clusters=[{"matchLabels": {"line": "packing"}}])
    fleet.commit("A second model for packing", second)
    fleet.expect(dict.fromkeys(three, "") | {"paris-01": "2.0.0"}, "letters")
    fleet.expect(serving)
    same("the processes on the three sites", before, {name: runtimes(fleet, name) for name in three})
    yield "4. A second model to another group: the groups are independent"

    fleet.sites["milan-01"].put_foreign()
    foreign = fleet.sites["milan-01"].foreign()
    fleet.commit("No placements", {"placements/digits.yaml": None, "placements/letters.yaml": None})
    for name in labels:
        fleet.until(f"nothing runs at {name}", lambda name=name: not runtimes(fleet, name))  # type: ignore[misc]
        check_empty_and_signed(fleet, name)
    fleet.expect(dict.fromkeys(labels, ""))
    same("what is not ours", foreign, fleet.sites["milan-01"].foreign())
    yield "5. The placements deleted: all of ours is gone, nothing foreign is, the releases are signed and empty"


def label_moves_the_model(fleet: Fleet) -> Iterator[str]:
    """S2: one commit relabels two clusters, and the model moves."""
    fleet.init(empty=True)
    files = cluster("a", line="welding") | cluster("b", line="packing")
    files |= placement("digits", model="digits", clusters=[{"matchLabels": {"line": "welding"}}])
    fleet.commit("Digits where the line is welding", files)
    fleet.start_hub()
    fleet.join("a")
    fleet.join("b")
    fleet.expect({"a": "1.0.0", "b": ""})
    yield "1. 1.0.0 on A (line=welding), B is empty"

    fleet.commit("A packs now, B welds", cluster("a", line="packing") | cluster("b", line="welding"))
    yield "2. One commit relabels A to packing and B to welding"

    fleet.expect({"a": "", "b": "1.0.0"})
    yield "3. B serves"

    fleet.until("nothing runs at A", lambda: not runtimes(fleet, "a"))
    yield "4. A is pruned"

    told = fleet.edgeferry("explain", "digits", "a", "--source", str(fleet.origin))
    if "line" not in told or "packing" not in told:
        raise Wrong(f"explain does not name the label: {told}")
    yield f"5. explain names the label: {told.strip().splitlines()[0]}"


def models_and_workloads_apart(fleet: Fleet) -> Iterator[str]:
    """S3: different versions on different clusters, models and workloads each for themselves."""
    fleet.init(empty=True)
    uses = [{"name": "digits", "version": ">=1 <3", "onChange": "reload"}]
    files: dict[str, str | bytes | None] = {}
    for name in "abc":
        files |= cluster(name, group=name)
    files |= placement("digits", model="digits", version="1.0.0")
    files |= workload("reader", "1.0.0", reader("1.0.0"), fleet.runtime_image, models=uses)
    files |= placement("reader", workload="reader", version="1.0.0")
    fleet.commit("Model 1.0.0 and workload 1.0.0 everywhere", files)
    fleet.start_hub()
    for name in "abc":
        fleet.join(name)
    fleet.expect(dict.fromkeys("abc", "1.0.0"))
    until_readers(fleet, dict.fromkeys("abc", ("1.0.0", ANSWERS["1.0.0"]["digit"])))
    yield "1. Model 1.0.0 and workload 1.0.0 on A, B and C"

    process = runtimes(fleet, "a", "workload")
    release = overlay_of(fleet, "c")
    files = dict(version("digits", "2.0.0"))
    files |= placement("digits-a", model="digits", version="2.0.0", priority=10, clusters=[{"names": ["a"]}])
    fleet.commit("Model 2.0.0 to A only", files)
    fleet.expect({"a": "2.0.0", "b": "1.0.0", "c": "1.0.0"})
    until_readers(fleet, {"a": ("1.0.0", ANSWERS["2.0.0"]["digit"])})
    same("A's workload process", process, runtimes(fleet, "a", "workload"))
    yield "2. Model 2.0.0 to A only: its workload keeps its process"

    staged = staged_files(fleet, "b", "digits")
    files = dict(workload_version("reader", "2.0.0", reader("2.0.0"), fleet.runtime_image))
    files |= placement("reader-b", workload="reader", version="2.0.0", priority=10, clusters=[{"names": ["b"]}])
    fleet.commit("Workload 2.0.0 to B only", files)
    until_readers(fleet, {"b": ("2.0.0", ANSWERS["1.0.0"]["digit"])})
    same("what B staged of the model", staged, staged_files(fleet, "b", "digits"))
    yield "3. Workload 2.0.0 to B only: its model is not staged again"

    same("C's overlay", release, overlay_of(fleet, "c"))
    yield "4. C is byte-identical to before"

    def pairs() -> set[tuple[tuple[str, str], ...]]:
        told = {one["name"]: one["entries"] for one in fleet.status()["clusters"]}
        return {tuple(sorted((entry["name"], entry["version"]) for entry in told[name])) for name in "abc"}

    fleet.until("the hub shows three distinct pairs", lambda: len(pairs()) == 3, seen=lambda: str(pairs()))
    yield "5. The hub shows three distinct pairs"


def plain_git(fleet: Fleet) -> Iterator[str]:
    """S4: a stock clone, git add, commit, push; a client that asks all the time sees no failed request."""
    fleet.init(empty=True)
    files = cluster("here", line="welding") | cluster("there", line="packing")
    files |= placement("digits", model="digits", clusters=[{"names": ["here"]}])
    fleet.commit("Digits here", files)
    fleet.start_hub("--no-watch", "--poll", "3600")
    hook = fleet.origin / "hooks" / "post-receive"
    trusted = f"ssl.create_default_context(cafile='{fleet.hub_ca}')" if fleet.hub_url.startswith("https:") else "None"
    request = f"r.Request('{fleet.hub_url}/hooks/push', method='POST')"
    call = f"import ssl, urllib.request as r; r.urlopen({request}, context={trusted})"
    hook.write_text(f'#!/bin/sh\nexec {" ".join(fleet.place.words)} {sys.executable} -c "{call}"\n')
    hook.chmod(0o755)
    fleet.join("here")
    fleet.join("there")
    fleet.expect({"here": "1.0.0", "there": ""})
    until_known(fleet, "there")
    clone = fleet.root / "clone"
    run(["git", "clone", "--quiet", str(fleet.origin), str(clone)])
    folder = clone / "models" / "digits" / "versions" / "2.0.0"
    folder.mkdir()
    (folder / "digits.onnx").write_bytes((DIGITS / "digits-2.0.0.onnx").read_bytes())
    client = Client(fleet, "here")
    before = overlay_of(fleet, "there")
    for command in (["add", "models"], ["commit", "--quiet", "-m", "digits 2.0.0"], ["push", "--quiet"]):
        run(["git", "-c", "user.name=Bo", "-c", "user.email=bo@example.org", *command], cwd=clone)
    yield "1. A stock clone: git add, commit, push; nothing else"

    head = run(["git", "rev-parse", "HEAD"], cwd=clone).strip()
    until_seen(fleet, head)
    yield "2. The webhook is seen"

    fleet.expect({"here": "2.0.0", "there": ""})
    same("the other site's overlay", before, overlay_of(fleet, "there"))
    yield "3. Only the targeted site fetches"

    yield f"4. Its inference answer changes: {fleet.ask('here')}"

    asked, failed = client.stop()
    if failed or asked < 10:
        raise Wrong(f"of {asked} requests {len(failed)} failed: {failed[:3]}")
    yield f"5. A client asked all the time: {asked} requests, none failed"

    data = (DIGITS / "digits-2.1.0.onnx").read_bytes()
    oid = hashlib.sha256(data).hexdigest()
    kept = fleet.origin / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
    kept.parent.mkdir(parents=True)
    kept.write_bytes(data)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n"
    run(["git", "pull", "--quiet", "--rebase", "origin", "main"], cwd=fleet.repository)
    fleet.commit("digits 2.1.0 in Git LFS", {"models/digits/versions/2.1.0/digits.onnx": pointer})
    fleet.expect({"here": "2.1.0", "there": ""})
    yield "6. The same with a Git LFS pointer"


def deliveries(fleet: Fleet) -> Iterator[str]:
    """S5: a file loaded by a workload, a server called by a workload; push, update, delete, nothing left."""
    fleet.init(empty=True)
    weights = {"name": "weights", "onChange": "restart", "mount": "/models/weights"}
    uses = [weights, {"name": "digits", "onChange": "none"}]
    files: dict[str, str | bytes | None] = dict(cluster("host", line="welding"))
    files |= model("weights", "file")
    files |= version("weights", "1.0.0")
    files |= workload(
        "reader", "1.0.0", reader("1.0.0"), fleet.runtime_image, models=uses, placement={"sameAs": "digits"}
    )
    files |= placement("digits", model="digits") | placement("weights", model="weights")
    fleet.commit("A file, a server, and a workload that uses both", files)
    fleet.start_hub()
    fleet.join("host")
    until_readers(fleet, {"host": ("1.0.0", ANSWERS["1.0.0"]["digit"])})
    until_weights(fleet, "1.0.0")
    yield "1. The workload loads the file, and its answers come from the server"

    fleet.commit("New weights", dict(version("weights", "2.0.0")))
    until_weights(fleet, "2.0.0")
    yield "2. New weights: the workload has loaded them"

    fleet.commit("A new model", dict(version("digits", "2.0.0")))
    until_readers(fleet, {"host": ("1.0.0", ANSWERS["2.0.0"]["digit"])})
    yield "3. A new model behind the server: the workload's answers change"

    fleet.commit("Delete all", {"placements": None, "workloads": None, "models/weights": None})
    site = fleet.sites["host"]
    fleet.until("nothing is left at the site", lambda: not site.leftovers(), seen=lambda: str(site.leftovers()))
    yield "4. Deleted: nothing is left"


def two_teams(fleet: Fleet) -> Iterator[str]:
    """S10: a second repository admitted by a Source; it may do no more than that, and its faults are its own."""
    fleet.init(empty=True)
    team = fleet.root / "robotics"
    team.mkdir()
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["config", "user.name", "Cy"],
        ["config", "user.email", "cy@example.org"],
    ):
        run(["git", *command], cwd=team)

    def push(message: str, files: dict[str, str | bytes | None]) -> str:
        write_files(team, files)
        run(["git", "add", "--all"], cwd=team)
        run(["git", "commit", "--quiet", "-m", message], cwd=team)
        return run(["git", "rev-parse", "HEAD"], cwd=team).strip()

    push("Robot arm", {**model("robot-arm"), **version("robot-arm", "1.0.0")})
    allow = {"kinds": ["Model", "ModelVersion"], "names": ["robot-*"]}
    files: dict[str, str | bytes | None] = dict(cluster("cell", line="robots"))
    files["sources/robotics.yaml"] = document("Source", "robotics", {"url": str(team), "allow": allow})
    files |= placement("robots", model="robot-arm") | placement("digits", model="digits")
    fleet.commit("Admit the robotics team", files)
    fleet.start_hub("--poll", "1")
    fleet.join("cell")
    fleet.expect({"cell": "1.0.0"}, "robot-arm")
    yield "1. A second repository admitted by a Source pushes its models: they serve"

    bad = push(
        "Take over", {**version("robot-arm", "2.0.0"), **placement("mine", model="robot-arm"), **model("digits")}
    )
    until_held(fleet, "robotics", bad)
    fleet.expect({"cell": "1.0.0"}, "robot-arm")
    yield "2. It may not touch placements or other names: the commit is refused as a whole, with every fault"

    fleet.commit("Digits 2.0.0", dict(version("digits", "2.0.0")))
    fleet.expect({"cell": "2.0.0"}, "digits")
    yield "3. Its fault holds back only itself"

    push("Mend it", {"placements": None, "models/digits": None})
    fleet.expect({"cell": "2.0.0"}, "robot-arm")
    yield "4. Mended: its new version serves"


SCENARIOS: Final[dict[str, Scenario]] = {
    "S1": one_many_labels,
    "S2": label_moves_the_model,
    "S3": models_and_workloads_apart,
    "S4": plain_git,
    "S5": deliveries,
    "S7": cut_off,
    "S8": registration,
    "S9": bad_version,
    "S10": two_teams,
}
