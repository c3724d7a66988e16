"""Layers and a configuration → an OCI image layout."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from images.layer import Layer

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
NAME: Final = "org.opencontainers.image.ref.name"

_EPOCH: Final = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of something it names."""

    media_type: str
    digest: str
    size_bytes: int

    def written(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size_bytes}


def add_image(
    out: Path, architecture: str, layers: Sequence[Layer], config: Mapping[str, Any], annotations: Mapping[str, str]
) -> Descriptor:
    """Write an image's blobs and its manifest into a layout, and return the manifest's descriptor.

    Args:
        out: folder of the layout, made where it is absent.
        architecture: ``amd64`` or ``arm64``.
        layers: lowest first.
        config: what the image specification calls ``config``: Entrypoint, User, …
        annotations: of the manifest.
    """
    made: dict[str, Any] = {"created": _EPOCH, "architecture": architecture, "os": "linux", "config": dict(config)}
    made["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    made["history"] = [{"created": _EPOCH} for _ in layers]
    described = [_link(out, layer) for layer in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _put(out, CONFIG, made).written(),
        "layers": [one.written() for one in described],
        "annotations": dict(annotations),
    }
    return _put(out, MANIFEST, manifest)


def name_index(out: Path, name: str, images: Mapping[str, Descriptor]) -> Descriptor:
    """Write the index over an image's architectures and give it a name in the layout.

    Args:
        out: folder of the layout.
        name: that tools find it by: ``skopeo copy oci:OUT:NAME …``.
        images: architecture → its manifest.
    """
    manifests = [{**images[one].written(), "platform": {"architecture": one, "os": "linux"}} for one in sorted(images)]
    index = _put(out, INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    listed = {entry["annotations"][NAME]: entry for entry in named(out)}
    listed[name] = {**index.written(), "annotations": {NAME: name}}
    top = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed[one] for one in sorted(listed)]}
    _replace(out / "index.json", _json(top))
    _replace(out / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}\n')
    return index


def named(out: Path) -> list[dict[str, Any]]:
    """Return the entries of a layout's index; none where there is no layout."""
    try:
        found: list[dict[str, Any]] = json.loads((out / "index.json").read_bytes())["manifests"]
    except FileNotFoundError:
        return []
    return found


def blob(out: Path, digest: str) -> Path:
    """Return where a blob of a layout stands."""
    return out / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _link(out: Path, layer: Layer) -> Descriptor:
    place = blob(out, layer.digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        beside = place.with_name(f"{place.name}.{os.getpid()}")
        try:
            os.link(layer.path, beside)
        except OSError:
            shutil.copyfile(layer.path, beside)
        beside.rename(place)
    return Descriptor(LAYER, layer.digest, layer.size_bytes)


def _put(out: Path, media_type: str, value: Mapping[str, Any]) -> Descriptor:
    data = _json(value)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    place = blob(out, digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    _replace(place, data)
    return Descriptor(media_type, digest, len(data))


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_bytes(data)
    beside.rename(path)
