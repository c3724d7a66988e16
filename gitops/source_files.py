"""One tree → parsed files and version folders; what did not change since the last read is not read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from gitops import faults, layout
from gitops.documents import Parsed, parse
from gitops.faults import Fault
from gitops.tree import File, Tree
from gitops.version_folders import Folder
from gitops.yaml_text import MAX_BYTES

T = TypeVar("T")
_EMPTY: Final[dict[str, File]] = {}


@dataclass(slots=True, eq=False)
class SourceFiles:
    """What the last read of one source found.

    Attributes:
        files: path → file, all of them.
        parsed: path → documents and faults, of files that have any.
        folders: (owner, version) → version folder with at least one file besides version.yaml.
        collisions: faults of paths that differ only in case.
    """

    files: Mapping[str, File] = field(default_factory=dict)
    parsed: dict[str, Parsed] = field(default_factory=dict)
    folders: dict[tuple[str, str], Folder] = field(default_factory=dict)
    collisions: list[Fault] = field(default_factory=list)
    _made: dict[tuple[str, ...], tuple[tuple[Any, ...], Any, list[Fault]]] = field(default_factory=dict)

    def update(self, tree: Tree) -> bool:
        """Read what differs from the last tree; tell whether anything does."""
        changed, gone = _differences(self.files, tree.files)
        if not changed and not gone:
            return False
        added = any(path not in self.files for path in changed)
        self.files = tree.files
        touched: dict[tuple[str, str], dict[str, File | None]] = {}
        for path in gone:
            self.parsed.pop(path, None)
            _touch(touched, path, None)
        for path, file in changed.items():
            if layout.standing(path).role in ("document", "maybe", "version"):
                self._parse(tree, file)
            else:
                _touch(touched, path, file)
        for key, edits in touched.items():
            self._edit(key, edits)
        if added or gone:
            self.collisions = list(_collisions(tree))
        return True

    def once(
        self, key: tuple[str, ...], found: list[Fault], make: Callable[..., tuple[T, list[Fault]]], tree: Tree, *of: Any
    ) -> T:
        """Return what ``make(tree, *of)`` made, from the last time where ``of`` is still the same; add its faults."""
        known = self._made.get(key)
        if known is None or known[0] != of:
            value, wrong = make(tree, *of)
            known = self._made[key] = (of, value, wrong)
        found += known[2]
        made: T = known[1]
        return made

    def _parse(self, tree: Tree, file: File) -> None:
        parsed = parse(file, tree.blobs.read(file, MAX_BYTES + 1), tree.source)
        if parsed.documents or parsed.faults:
            self.parsed[file.path] = parsed
        else:
            self.parsed.pop(file.path, None)

    def _edit(self, key: tuple[str, str], edits: Mapping[str, File | None]) -> None:
        known = self.folders.get(key)
        files = {**(_EMPTY if known is None else known.files), **edits}
        left = {name: file for name, file in sorted(files.items()) if file is not None}
        if left:
            self.folders[key] = Folder(*key, left)
        else:
            self.folders.pop(key, None)
            for kind in ("model", "workload"):
                self._made.pop((kind, *key), None)


@dataclass(slots=True, eq=False)
class Cache:
    """Remembers the last read of every source. Kept by who reads the same sources again and again."""

    sources: dict[str, SourceFiles] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)


def _differences(old: Mapping[str, File], new: Mapping[str, File]) -> tuple[dict[str, File], list[str]]:
    changed = {path: file for path, file in new.items() if (known := old.get(path)) is None or known.oid != file.oid}
    if len(new) == len(old) and not any(path not in old for path in changed):
        return changed, []
    return changed, [path for path in old if path not in new]


def _touch(touched: dict[tuple[str, str], dict[str, File | None]], path: str, file: File | None) -> None:
    stands = layout.standing(path)
    if stands.role == "content":
        name = path[len(f"{stands.owner}versions/{stands.version}/") :]
        touched.setdefault((stands.owner, stands.version), {})[name] = file


def _collisions(tree: Tree) -> Iterator[Fault]:
    """Yield a fault for files and folders that differ only in case: they are one on some machines."""
    folders = {layout.parent(path) for path in tree.files}
    if len({path.lower() for path in tree.files}) == len(tree.files) and len({one.lower() for one in folders}) == len(
        folders
    ):
        return
    seen: dict[str, str] = {}
    told: set[str] = set()
    for path in sorted(tree.files):
        parts = path.split("/")
        for whole in ("/".join(parts[: n + 1]) for n in range(len(parts))):
            other = seen.setdefault(whole.lower(), whole)
            if other != whole:
                if whole not in told:
                    told.add(whole)
                    what = f"differs only in case from {other}"
                    yield faults.CASE_COLLISION.at(whole, what, "rename one of them", source=tree.source)
                break
