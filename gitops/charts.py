"""Helm charts in version folders: where one stands, whether it is one, and its OCI artifact.

The artifact is what ``helm push`` makes; the same files give the same digest, on every machine, at any time.

Source: https://helm.sh/docs/topics/charts/ and https://helm.sh/docs/topics/registries/
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from agent.wire.canonical import canonical
from agent.wire.release import Artifact
from gitops import faults
from gitops.artifacts import ArtifactStore
from gitops.faults import Fault
from gitops.oci_manifest import OCI_MANIFEST
from gitops.packing import PackFile, checked
from gitops.tree import File, Tree
from gitops.yaml_text import MAX_BYTES

CONFIG_TYPE: Final = "application/vnd.cncf.helm.config.v1+json"
CONTENT_TYPE: Final = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
FOLDER: Final = "chart"
"""Where a chart stands in a version's folder, if the folder is not the chart itself."""

_MOST_BYTES: Final = 1 << 20
"""Helm keeps a chart with each revision of its release, in a Secret of at most 1 MiB."""

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")
_VERSION: Final = re.compile(r"v?[0-9]+(\.[0-9]+){0,2}([-+][0-9A-Za-z.+-]+)?\Z")


def place_of(files: Mapping[str, File]) -> str | None:
    """Return the path within a version's folder where its chart stands; empty for the folder itself, None for none."""
    if "Chart.yaml" in files:
        return ""
    return FOLDER if f"{FOLDER}/Chart.yaml" in files else None


def below(files: Mapping[str, File], place: str) -> dict[str, File]:
    """Return the files of a folder by their paths within it."""
    start = f"{place}/" if place else ""
    return {path.removeprefix(start): file for path, file in files.items() if path.startswith(start)}


def check(tree: Tree, files: Mapping[str, File]) -> list[Fault]:
    """Return the faults of a chart's folder.

    Args:
        tree: that it stands in.
        files: path within the chart → file; ``Chart.yaml`` is one of them.
    """
    file = files["Chart.yaml"]
    found = []
    for what, do in _wrong(_load(tree.blobs.read(file, MAX_BYTES + 1)), files):
        found.append(faults.BAD_CHART.at(file.path, what, do, source=tree.source))
    size = sum(one.size_bytes for one in files.values())
    if size > _MOST_BYTES:
        what = f"a chart of {size} bytes; Helm keeps at most {_MOST_BYTES} with a release"
        do = "put the model beside the chart, as the version's artifact"
        found.append(faults.BAD_CHART.at(file.path, what, do, source=tree.source))
    return found


def pack_chart(store: ArtifactStore, repository: str, files: Sequence[PackFile], tag: str) -> Artifact:
    """Put a chart into the store as ``helm push`` would, and return where it is.

    Args:
        store: where to.
        repository: as ``charts/models/defect-detector``.
        files: of the chart, checked; in any order.
        tag: of the artifact in its repository.

    Raises:
        UnsafeContent, TooMuchContent, StoreFull: see gitops/packing.py.
    """
    read = {file.path: _bytes(file) for file in checked(files, repository)}
    described = _load(read["Chart.yaml"])
    content = store.put_bytes(_archive(str(described["name"]), read))
    config = store.put_bytes(canonical(_plain(described)))
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": CONFIG_TYPE, "digest": config.digest, "size": config.size_bytes},
            "layers": [{"mediaType": CONTENT_TYPE, "digest": content.digest, "size": content.size_bytes}],
            "annotations": {
                "org.opencontainers.image.title": str(described["name"]),
                "org.opencontainers.image.version": str(described["version"]),
            },
        }
    )
    put = store.put_manifest(repository, manifest, tag=tag)
    return Artifact(put, content.size_bytes, OCI_MANIFEST, f"hub://{repository}")


def _wrong(described: Any, files: Mapping[str, File]) -> list[tuple[str, str]]:
    if not isinstance(described, dict):
        return [("no mapping in it", "write apiVersion, name and version")]
    found = []
    if described.get("apiVersion") != "v2":
        found.append((f"apiVersion is {described.get('apiVersion')!r}", "write apiVersion: v2"))
    for field, pattern in (("name", _NAME), ("version", _VERSION)):
        value = described.get(field)
        if not isinstance(value, str) or not pattern.match(value):
            found.append((f"`{field}` is {str(value)[:60]!r}", f"write the chart's {field}, in quotes"))
    if described.get("type") == "library":
        found.append(("a library chart installs nothing", "write type: application"))
    there = {path.split("/")[1] for path in files if path.startswith("charts/")}
    for one in described.get("dependencies") or ():
        name = str(one.get("name")) if isinstance(one, dict) else ""
        if not any(other == name or other.startswith(f"{name}-") for other in there):
            do = "run `helm dependency build` and add charts/: nothing is fetched at the edge"
            found.append((f"its dependency {name[:60]} is not in charts/", do))
    return found


def _load(data: bytes) -> Any:
    try:
        return yaml.load(data, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _plain(value: Any) -> Any:
    """Return what JSON can say of a value: dates become text."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


def _archive(name: str, read: Mapping[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, data in sorted(read.items()):
            info = tarfile.TarInfo(f"{name}/{path}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    # Stored, not deflated: another zlib would give another digest, and a chart is small.
    return gzip.compress(raw.getvalue(), compresslevel=0, mtime=0)


def _bytes(file: PackFile) -> bytes:
    with file.open() as stream:
        return stream.read()
