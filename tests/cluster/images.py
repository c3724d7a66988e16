"""The images of the cluster's own tests: a static busybox or nothing but files, packed as the project's images are."""

from __future__ import annotations

import io
import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from images import layer, layout

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_BUSYBOX: Final = Path("/bin/busybox")


def pack(out: Path, name: str, files: Mapping[str, bytes], config: Mapping[str, object]) -> None:
    """Add an image to an OCI layout, for this machine's architecture.

    Args:
        out: folder of the layout.
        name: of the image in it.
        files: path in the image → content, executable.
        config: entry point and so on, as the OCI image configuration has it.
    """
    with TemporaryDirectory() as folder:
        root = Path(folder, "root")
        root.mkdir()
        for path, content in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(0o755)
        _add(out, name, root, config)


def web(out: Path, version: str) -> None:
    """Add the image ``web``: busybox with a web server on port 8080 that says ``web VERSION``."""
    names = subprocess.run([_BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    with TemporaryDirectory() as folder:
        root = Path(folder, "root")
        for name in ("bin", "etc", "tmp", "www"):
            (root / name).mkdir(parents=True)
        shutil.copy(_BUSYBOX, root / "bin" / "busybox")
        for name in names:
            if name != "busybox":
                (root / "bin" / name).symlink_to("busybox")
        (root / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
        (root / "www" / "index.html").write_text(f"web {version}\n")
        serve = ["/bin/httpd", "-f", "-v", "-p", "8080", "-h", "/www"]
        _add(out, "web", root, {"Entrypoint": serve, "Env": ["PATH=/bin"]})


def archive(out: Path, name: str, path: Path) -> None:
    """Write an image of a layout as a tar that containerd imports under that name."""
    [entry] = [one for one in layout.named(out) if one["annotations"][layout.NAME] == name]
    named = {**entry, "annotations": {**entry["annotations"], "io.containerd.image.name": name}}
    index = json.dumps({"schemaVersion": 2, "mediaType": layout.INDEX, "manifests": [named]}).encode()
    with tarfile.open(path, "w") as tar:
        for file in (out / "oci-layout", *sorted((out / "blobs").rglob("*"))):
            tar.add(file, file.relative_to(out), recursive=False)
        member = tarfile.TarInfo("index.json")
        member.size = len(index)
        tar.addfile(member, io.BytesIO(index))


def _add(out: Path, name: str, root: Path, config: Mapping[str, object]) -> None:
    architecture = _ARCHITECTURES[platform.machine()]
    packed = layer.write(root, root.parent / "layer")
    image = layout.add_image(out, architecture, [packed], config, {})
    layout.name_index(out, name, {architecture: image})
