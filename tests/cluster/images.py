"""The images of the cluster's own tests: packed from bytes, the same every time, without a daemon."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_OCI: Final = "application/vnd.oci.image"
_TIME: Final = "1970-01-01T00:00:00Z"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_BUSYBOX: Final = Path("/bin/busybox")

Files = Mapping[str, bytes]


def pack(path: Path, name: str, layers: Sequence[Files], config: Mapping[str, object]) -> str:
    """Write an image as an OCI archive and return its digest.

    Args:
        path: of the archive.
        name: that the image has where the archive is imported.
        layers: path in the image → content, executable; the lowest first.
        config: entry point and so on, as the OCI image configuration has it.
    """
    blobs: dict[str, bytes] = {}

    def put(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": f"{_OCI}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    raw = [_tar(layer) for layer in layers]
    document = {
        "architecture": _ARCHITECTURES[platform.machine()],
        "os": "linux",
        "created": _TIME,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in raw]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": put(_json(document), "config.v1+json"),
        "layers": [put(gzip.compress(one, compresslevel=1, mtime=0), "layer.v1.tar+gzip") for one in raw],
    }
    described = put(_json(manifest), "manifest.v1+json")
    annotations = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
    }
    index = {"schemaVersion": 2, "manifests": [{**described, "annotations": annotations}]}
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index), **blobs}
    path.write_bytes(_tar(files))
    return str(described["digest"])


def web(path: Path, version: str) -> None:
    """Write the image ``web:VERSION``: busybox with a web server on port 8080 that says ``web VERSION``."""
    program = _BUSYBOX.read_bytes()
    names = subprocess.run([_BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    install = {f"bin/{name}": b"" for name in names if name != "busybox"}
    config = {"Entrypoint": ["/bin/httpd", "-f", "-v", "-p", "8080", "-h", "/www"], "Env": ["PATH=/bin"]}
    base = {"bin/busybox": program, **install, "etc/passwd": b"root:x:0:0::/:/bin/sh\n", "tmp/.keep": b""}
    pack(path, f"web:{version}", [base, {"www/index.html": f"web {version}\n".encode()}], config)


def data(path: Path, files: Files) -> None:
    """Write the image ``data:1``, which holds nothing but files."""
    pack(path, "data:1", [files], {})


def _tar(files: Files) -> bytes:
    """Return a tar of the files in order of their names; an empty one below bin/ is a link to busybox beside it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if name.startswith("bin/") and not content:
                member.type, member.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True).encode()
