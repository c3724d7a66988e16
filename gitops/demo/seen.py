"""What is seen of a fleet from outside: processes, files, Git, HTTP; never our own internals."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

from gitops.demo.documents import DIGITS
from gitops.demo.fleet import QUESTION, Fleet, Wrong
from gitops.demo.processes import run
from gitops.demo.sites import Kind


class Client:
    """Asks a site's model all the time, from a thread of its own."""

    def __init__(self, fleet: Fleet, site: str) -> None:
        self._fleet, self._site, self._asked, self._failed = fleet, site, 0, list[str]()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def stop(self) -> tuple[int, list[str]]:
        """Return how often it asked, and what went wrong."""
        self._done.set()
        self._thread.join(10)
        return self._asked, self._failed

    def _ask(self) -> None:
        while not self._done.is_set():
            answer = self._fleet.ask(self._site)
            self._asked += 1
            if answer is None or not answer.version:
                self._failed.append(repr(answer))


def runtimes(fleet: Fleet, site: str, kind: Kind = "model") -> tuple[str, ...]:
    """Return what identifies the processes or pods of a site that run models, or workloads, found from outside."""
    return fleet.sites[site].running(kind)


def overlay_of(fleet: Fleet, site: str) -> str:
    """Return the tree id of a cluster's overlay."""
    return fleet_git(fleet, "rev-parse", f"main:{overlay_path(site)}").strip()


def check_empty_and_signed(fleet: Fleet, site: str) -> None:
    """Check a cluster's release with git and ssh-keygen alone."""

    def empty() -> object:
        return json.loads(fleet_git(fleet, "show", f"main:{overlay_path(site)}/release.json"))["entries"] == []

    fleet.until(f"the release of {site} is empty", empty)
    where = fleet.root / f"check-{site}"
    where.mkdir(exist_ok=True)
    release = fleet_git(fleet, "show", f"main:{overlay_path(site)}/release.json")
    (where / "sig").write_text(fleet_git(fleet, "show", f"main:{overlay_path(site)}/release.json.sig"))
    keys = json.loads(fleet_git(fleet, "show", "main:trust/1.json"))["releaseKeys"]
    (where / "allowed").write_text("".join(f"hub {key}\n" for key in keys))
    command = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "hub", "-n", "edgeferry-release", "-s", "sig"]
    done = subprocess.run(command, cwd=where, input=release.encode(), capture_output=True, check=False)
    if done.returncode != 0:
        raise Wrong(f"ssh-keygen refuses the release of {site}: {done.stderr.decode()}")


def overlay_path(site: str) -> str:
    """Return where a cluster's overlay stands in the fleet repository."""
    first = hashlib.sha256(site.encode()).hexdigest()
    return f"clusters/{first[0]}/{first[1]}/{first[2]}/{site}"


def fleet_git(fleet: Fleet, *arguments: str) -> str:
    """Run git in the hub's fleet repository."""
    return run(["git", *arguments], cwd=fleet.hub_state / "fleet.git")


def until_known(fleet: Fleet, site: str) -> None:
    """Wait until a cluster's release names the key that it joined with: its overlay is still from then on."""

    def known() -> object:
        return json.loads(fleet_git(fleet, "show", f"main:{overlay_path(site)}/release.json"))["clusterKey"]

    fleet.until(f"the release of {site} names its key", known)


def until_seen(fleet: Fleet, commit: str) -> None:
    """Wait until the hub has taken a commit into account, whether or not it published anything for it."""
    fleet.until(f"the hub has seen {commit}", lambda: commit in [one["used"] for one in fleet.status()["sources"]])


def until_held(fleet: Fleet, source: str, commit: str) -> None:
    """Wait until the hub says that it does not use a source's commit, with at least two faults."""

    def held() -> bool:
        found = [one for one in fleet.status()["sources"] if one["name"] == source]
        return bool(found) and found[0]["revision"] == commit and len(found[0]["faults"]) >= 2

    fleet.until(f"{source} is held", held, seen=lambda: str(fleet.status()["sources"]))


def read_workload(fleet: Fleet, site: str) -> dict[str, Any]:
    """Return what the workload tells of itself; empty while it does not answer."""
    data = fleet.fetch(site, "reader")
    told: dict[str, Any] = json.loads(data) if data else {}
    return told


def until_readers(fleet: Fleet, wanted: dict[str, tuple[str, float]]) -> None:
    """Wait until the workloads answer with these versions of theirs and these digits."""

    def seen() -> dict[str, tuple[str, float]]:
        found: dict[str, tuple[str, float]] = {}
        for site in wanted:
            data = fleet.fetch(site, "reader", QUESTION)
            told: dict[str, Any] = json.loads(data) if data else {"version": "", "digit": -1}
            found[site] = (told["version"], told["digit"])
        return found

    fleet.until(f"the workloads answer {wanted}", lambda: seen() == wanted, seen=lambda: str(seen()))


def until_weights(fleet: Fleet, number: str) -> None:
    """Wait until the workload has loaded the file of this version."""
    wanted = hashlib.sha256((DIGITS / f"digits-{number}.onnx").read_bytes()).hexdigest()
    fleet.until(
        f"the workload has loaded weights {number}", lambda: read_workload(fleet, "host").get("weights") == wanted
    )


def staged_files(fleet: Fleet, site: str, model: str) -> list[tuple[str, ...]]:
    """Return what identifies every staged file of a model."""
    return fleet.sites[site].staged(model)


def write_files(folder: Path, files: dict[str, str | bytes | None]) -> None:
    """Write or remove files below a folder."""
    for path, content in files.items():
        if content is None:
            run(["rm", "-r", path], cwd=folder)
            continue
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)


def same(what: str, before: object, after: object) -> None:
    """Check that something did not change."""
    if before != after:
        raise Wrong(f"{what} changed: {before!r} → {after!r}")
