"""Trees in memory, for tests: files by their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from gitops.tree import File, Tree

API = "apiVersion: edgeferry.dev/v1alpha1\n"


@dataclass(slots=True)
class Bytes:
    """Blobs by their id, and which of them were read."""

    known: dict[str, bytes] = field(default_factory=dict)
    read_paths: list[str] = field(default_factory=list)

    def read(self, file: File, at_most: int) -> bytes:
        self.read_paths.append(file.path)
        return self.known[file.oid][:at_most]


def tree(
    files: Mapping[str, str | bytes], source: str = "main", revision: str = "1", blobs: Bytes | None = None
) -> Tree:
    blobs = blobs or Bytes()
    found = {}
    for path, text in sorted(files.items()):
        data = text.encode() if isinstance(text, str) else text
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        blobs.known[oid] = data
        found[path] = File(path, oid, len(data))
    return Tree(source, revision, datetime(2026, 11, 24, tzinfo=UTC), found, blobs)


def document(kind: str, name: str, spec: str = "", labels: str = "") -> str:
    text = f"{API}kind: {kind}\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n"
    return text + (f"spec: {spec}\n" if spec else "")


def model(name: str, *versions: str, spec: str = "delivery: file") -> dict[str, str]:
    files = {f"models/{name}/model.yaml": document("Model", name, f"{{{spec}}}")}
    return files | {f"models/{name}/versions/{one}/{name}.bin": f"{name} {one}" for one in versions}
