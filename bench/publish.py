"""Publishing 10,000 overlays of 7 files, durably; what a reader sees meanwhile; rendering and signing releases.

The bytes are rendered and signed before the clock starts. A published overlay is one commit on main and one on the
cluster's branch; the references that write main alone say so.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from multiprocessing.synchronize import Event
from pathlib import Path

import pygit2

from agent.wire.canonical import digest
from agent.wire.release import Artifact, Entry, Release, Runtime, encode_entry, encode_release, with_digest
from agent.wire.signature import RELEASE, SigningKey
from bench.figure import figure
from gitops.fleet import FleetRepository, cluster_path
from gitops.keys import Keyring, first_trust
from gitops.publish import Change, publish

_AT = datetime(2026, 1, 1, tzinfo=UTC)
_MODELS = 20
_READ_CLUSTERS = 50
_Overlay = dict[str, bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--publishes", type=int, default=1000, help="of publish-mixed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeferry-bench-") as work:
        _render_and_sign(arguments.clusters, arguments.rounds)
        _publish(Path(work), arguments.clusters, arguments.rounds)
        _mixed(Path(work), arguments.publishes)


def _render_and_sign(clusters: int, rounds: int) -> None:
    key = SigningKey.generate()
    fleet = _Rendered(key)
    drafts = [fleet.release(n, 1) for n in range(clusters)]
    encoded = [[encode_entry(one) for one in draft.entries] for draft in drafts]
    datas = [encode_release(draft, entries)[0] for draft, entries in zip(drafts, encoded, strict=True)]

    def both() -> None:
        for draft, entries in zip(drafts, encoded, strict=True):
            key.sign(encode_release(draft, entries)[0], RELEASE)

    def signatures() -> None:
        for data in datas:
            key.sign(data, RELEASE)

    figure(
        f"render-sign-{clusters}", _least(both, rounds), "ms", 1200, {"signatures alone": _least(signatures, rounds)}
    )


def _publish(work: Path, clusters: int, rounds: int) -> None:
    keyring = Keyring.open(work / "keys", create=True)
    rendered = _Rendered(keyring.release)
    start = {_name(n): rendered.overlay(n, 0) for n in range(clusters)}
    ours = _Ours(work / "ours.git", keyring)
    others: dict[str, _FastImport | _Pygit2] = {
        "git fast-import, main alone": _FastImport(work / "fast.git"),
        "pygit2, main alone": _Pygit2(work / "pygit2.git"),
    }
    for one in (ours, *others.values()):
        one.publish(start, start)
    for share, target in ((100, 25), (1, 600)):
        spent: list[float] = []
        wall: list[float] = []
        reference: dict[str, list[float]] = {name: [] for name in others}
        for sequence in range(1, rounds + 1):
            changed = {_name(n): rendered.overlay(n, share * 1000 + sequence) for n in range(0, clusters, share)}
            new = {name: {p: d for p, d in files.items() if start[name][p] != d} for name, files in changed.items()}
            began = time.perf_counter()
            spent.append(_cpu(lambda changed=changed, new=new: ours.publish(changed, new)))  # type: ignore[misc]  # now
            wall.append((time.perf_counter() - began) * 1000)
            for name, one in others.items():
                reference[name].append(_cpu(lambda one=one, new=new: one.publish({}, new)))  # type: ignore[misc]  # now
        least = {name: min(times) for name, times in reference.items()} | {"ours, wall time": min(wall)}
        figure(f"publish-{100 // share}pct", min(spent), "ms", target, least, note=_note(clusters))


def _note(clusters: int) -> str:
    return "" if clusters == 10_000 else f"{clusters} clusters; the target is for 10,000"


class _Rendered:
    """Overlays as the hub renders them: two models of twenty, release, signature, kustomization."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._entries: list[Entry] = []
        self._files: list[_Overlay] = []
        for n in range(_MODELS):
            name = f"model-{n:02d}"
            files = {f"models/{name}/{kind}.yaml": _manifest(name, kind) for kind in ("deployment", "service")}
            artifact = Artifact(digest(name.encode()), 45_441_912, "application/json", f"hub://models/{name}")
            runtime = Runtime("onnx", f"registry.example/onnx@{digest(b'image')}", 8080, "v2", command=("serve",))
            values = {"threshold": "0.6"}
            entry = Entry("model", name, "2.1.0", "server", artifacts=(artifact,), runtime=runtime, values=values)
            self._entries.append(with_digest(entry, files))
            self._files.append(files)

    def release(self, n: int, sequence: int) -> Release:
        chosen = (n % _MODELS, (n + 7) % _MODELS)
        files = {p: digest(d) for m in chosen for p, d in self._files[m].items()}
        entries = tuple(self._entries[m] for m in chosen)
        source = {"main": sha256(b"%d" % sequence).hexdigest()[:40]}
        return Release("fleet", _name(n), sequence, _AT, 1, entries, files, source, digest(_name(n).encode()))

    def overlay(self, n: int, sequence: int) -> _Overlay:
        release = self.release(n, sequence)
        files = {p: d for m in (n % _MODELS, (n + 7) % _MODELS) for p, d in self._files[m].items()}
        files["kustomization.yaml"] = "".join(f"- {path}\n" for path in sorted(files)).encode()
        data, _ = encode_release(replace(release, files={path: digest(one) for path, one in files.items()}))
        return {**files, "release.json": data, "release.json.sig": self._key.sign(data, RELEASE)}


class _Ours:
    def __init__(self, path: Path, keyring: Keyring) -> None:
        self._fleet = FleetRepository.open(path, create=True)
        self._keyring = keyring
        self._head: str | None = None

    def publish(self, overlays: Mapping[str, _Overlay], _: Mapping[str, _Overlay]) -> None:
        files = first_trust(self._keyring) if self._head is None else {}
        self._head = publish(self._fleet, Change(overlays, files, "Publish", _AT), self._keyring.release, self._head)


class _FastImport:
    def __init__(self, path: Path) -> None:
        pygit2.init_repository(str(path), bare=True)
        self._path = path
        self._is_first = True

    def publish(self, _: Mapping[str, _Overlay], new: Mapping[str, _Overlay]) -> None:
        command = ["git", "--git-dir", str(self._path), "-c", "core.fsync=all", "fast-import", "--quiet"]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write(b"".join(self._stream(new)))
        assert process.returncode == 0
        self._is_first = False

    def _stream(self, new: Mapping[str, _Overlay]) -> Iterator[bytes]:
        yield b"commit refs/heads/main\ncommitter Bench <bench@example.org> 1 +0000\ndata 1\nx\n"
        if not self._is_first:
            yield b"from refs/heads/main^0\n"
        for name, files in new.items():
            below = cluster_path(name)
            for path, data in files.items():
                yield b"M 100644 inline %b\ndata %d\n%b\n" % (f"{below}/{path}".encode(), len(data), data)


class _Pygit2:
    def __init__(self, path: Path) -> None:
        self._repository = pygit2.init_repository(str(path), bare=True)
        self._who = pygit2.Signature("Bench", "bench@example.org", 1, 0)

    def publish(self, _: Mapping[str, _Overlay], new: Mapping[str, _Overlay]) -> None:
        repository = self._repository
        nested: dict[str, object] = {}
        for name, files in new.items():
            for path, data in files.items():
                place = nested
                *folders, last = f"{cluster_path(name)}/{path}".split("/")
                for folder in folders:
                    place = place.setdefault(folder, {})  # type: ignore[assignment]  # a folder's
                place[last] = repository.create_blob(data)
        parents = [] if repository.is_empty else [repository.references["refs/heads/main"].target]
        tree = self._tree(None if not parents else repository[parents[0]].tree, nested)
        repository.create_commit("refs/heads/main", self._who, self._who, "x", tree, parents)

    def _tree(self, old: pygit2.Tree | None, edits: Mapping[str, object]) -> pygit2.Oid:
        builder = self._repository.TreeBuilder() if old is None else self._repository.TreeBuilder(old)
        for name, edit in edits.items():
            if isinstance(edit, dict):
                below = old[name] if old is not None and name in old else None
                builder.insert(name, self._tree(below, edit), pygit2.enums.FileMode.TREE)  # type: ignore[arg-type]  # a tree
            else:
                builder.insert(name, edit, pygit2.enums.FileMode.BLOB)  # type: ignore[arg-type]  # an id
        return builder.write()


def _mixed(work: Path, publishes: int) -> None:
    """Count the snapshots that hold old and new overlays, as stock git sees them while we publish."""
    keyring = Keyring.open(work / "keys", create=True)
    fleet = FleetRepository.open(work / "mixed.git", create=True)
    head = publish(fleet, Change({}, first_trust(keyring), "Trust", _AT), keyring.release, None)

    def change(n: int) -> Change:
        return Change({_name(c): {"release.json": b"%d" % n} for c in range(_READ_CLUSTERS)}, {}, "Publish", _AT)

    head = publish(fleet, change(-1), keyring.release, head)

    def ours() -> None:
        nonlocal head
        for n in range(publishes):
            head = publish(fleet, change(n), keyring.release, head)

    seen = _observed(fleet.path, ours)
    states = [_state(fleet.path, commit) for commit in _commits(fleet.path, 2)]

    def loop() -> None:
        command = _git(fleet.path, "update-ref", "--stdin")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            assert process.stdin is not None
            for n in range(publishes // 5):
                lines = "".join(f"update {name} {value}\n" for name, value in states[n % 2].items())
                process.stdin.write(f"start\n{lines}commit\n".encode())
                process.stdin.flush()

    theirs = _observed(fleet.path, loop)
    name = f"git update-ref, a transaction a publish, {publishes // 5} publishes"
    reference = {name: theirs[True], "its snapshots": theirs.total(), "our snapshots": seen.total()}
    figure("publish-mixed", seen[True], "count", 0, reference)


def _observed(path: Path, work: Callable[[], None]) -> Counter[bool]:
    """Return how many snapshots were mixed and not, while ``work`` ran in another process."""
    context = multiprocessing.get_context("fork")
    stop, results = context.Event(), context.SimpleQueue()
    reader = context.Process(target=_read, args=(path, stop, results), daemon=True)
    reader.start()
    work()
    stop.set()
    found: Counter[bool] = results.get()
    reader.join()
    return found


def _read(path: Path, stop: Event, results: multiprocessing.SimpleQueue[Counter[bool]]) -> None:
    shown = "%(objectname) %(refname) %(contents:trailers:key=Fleet-Commit,valueonly)"
    seen: Counter[bool] = Counter()
    while not stop.is_set():
        command = _git(path, "for-each-ref", f"--format={shown}", "refs/heads")
        lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split("\n")
        words = [line.split() for line in lines if line]
        main = {word[0] for word in words if word[1] == "refs/heads/main"}
        seen[{word[2] for word in words if word[1] != "refs/heads/main"} != main] += 1
    results.put(seen)


def _commits(path: Path, count: int) -> list[str]:
    command = _git(path, "rev-list", f"--max-count={count}", "main")
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()


def _state(path: Path, commit: str) -> dict[str, str]:
    """Return main and the clusters' commits that belong to it: among all objects, those with its trailer."""
    repository = pygit2.Repository(str(path))
    found = {"refs/heads/main": commit}
    for oid in repository:
        text = repository[oid].read_raw()
        if text.endswith(f"Fleet-Commit: {commit}\n".encode()):
            found[f"refs/heads/cluster/{text.split()[-3].decode()}"] = str(oid)
    return found


def _git(path: Path, *arguments: str) -> list[str]:
    return ["git", "--git-dir", str(path), *arguments]


def _name(n: int) -> str:
    return f"site-{n:06d}"


def _manifest(name: str, kind: str) -> bytes:
    lines = [f"    line-{n:02d}: {sha256(f'{name}{kind}{n}'.encode()).hexdigest()[:24]}" for n in range(60)]
    return "\n".join(
        ["apiVersion: v1", f"kind: {kind}", "metadata:", f"  name: {name}", "  data:", *lines, ""]
    ).encode()


def _least(work: Callable[[], None], rounds: int) -> float:
    return min(_cpu(work) for _ in range(rounds))


def _cpu(work: Callable[[], None]) -> float:
    """Return CPU time of this process and of the children that end meanwhile, in ms."""
    began = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    work()
    ended = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(began, ended, strict=True)) * 1000


if __name__ == "__main__":
    main()
