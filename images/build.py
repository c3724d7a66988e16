"""Recipe → image: each layer is built once for what goes into it, and kept outside the checkout."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from images import debian, layer, layout, project, wheels
from images.helm import helm_binary
from images.layer import Layer
from images.layout import Descriptor
from images.recipes import STATE, USER, Architecture, Recipe

CHECKOUT: Final = Path(__file__).resolve().parents[1]
_FORM: Final = "1"
"""Changes when the same inputs shall give another layer."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where and how images are built.

    Attributes:
        cache: folder of layers and packages.
        say: told in one line what is being done.
        fresh: build every layer anew and ask Debian for its newest packages.
    """

    cache: Path
    say: Say
    fresh: bool = False


def default_cache() -> Path:
    """Return the folder for layers and packages, outside any checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeferry" / "images"


def build(recipe: Recipe, architecture: Architecture, out: Path, shop: Workshop) -> Descriptor:
    """Build one image into a layout and return its manifest's descriptor.

    Raises:
        CannotBuild: a tool, a package or the network is missing.
    """
    packages = debian.closure(recipe.debian, architecture, shop.cache, fresh=shop.fresh)
    requirements = wheels.locked(recipe, CHECKOUT, architecture)

    def system(root: Path, _: Path) -> None:
        debian.unpack(packages, architecture, root)
        project.compile_all(root, "usr/lib/python3.11")

    def libraries(root: Path, scratch: Path) -> None:
        wheels.install(requirements, architecture, root, scratch)
        project.compile_all(root, wheels.SITE)

    def own(root: Path, _: Path) -> None:
        project.install(recipe, CHECKOUT, root)
        project.compile_all(root, wheels.SITE)

    inputs = [(one.file, one.digest) for one in packages]
    what = f"{recipe.name} {architecture}"
    layers = [
        _layer(shop, f"{what}: {len(packages)} Debian packages", ["debian", architecture, inputs], system),
        _layer(shop, f"{what}: wheels", ["wheels", architecture, requirements], libraries),
    ]
    if recipe.helm:
        binary = helm_binary(architecture, shop.say)

        def helm(root: Path, _: Path) -> None:
            (root / "usr/local/bin").mkdir(parents=True)
            shutil.copy(binary, root / "usr/local/bin/helm")

        layers.append(_layer(shop, f"{what}: helm", ["helm", _digest(binary)], helm))
    sources = sorted(_sources(recipe, CHECKOUT))
    layers.append(_layer(shop, f"{what}: edgeferry", ["own", recipe.name, recipe.scripts, sources], own))
    annotations = {
        "org.opencontainers.image.title": recipe.title,
        "org.opencontainers.image.base.name": "debian:bookworm",
        "org.opencontainers.image.licenses": "Apache-2.0",
    }
    return layout.add_image(out, architecture, layers, _config(recipe), annotations)


def _config(recipe: Recipe) -> dict[str, Any]:
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": f"/{STATE}",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
    }
    return {
        "User": f"{USER}:{USER}",
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Entrypoint": list(recipe.entrypoint),
        "Cmd": list(recipe.command),
        "WorkingDir": "/",
        "StopSignal": "SIGTERM",
    }


def _layer(shop: Workshop, what: str, inputs: Sequence[object], fill: Callable[[Path, Path], None]) -> Layer:
    """Return the layer for these inputs, building it where it is not kept yet."""
    code = [(one.name, _digest(one)) for one in sorted(Path(__file__).parent.glob("*.py"))]
    text = json.dumps([_FORM, project.bytecode_magic(), code, inputs], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    folder = shop.cache / "layers"
    folder.mkdir(parents=True, exist_ok=True)
    kept, described = folder / f"{key}.tar.gz", folder / f"{key}.json"
    with (folder / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if described.exists() and kept.exists() and not shop.fresh:
            return Layer(kept, **json.loads(described.read_text()))
        shop.say(what)
        with tempfile.TemporaryDirectory(dir=folder, prefix="making-") as made:
            root, scratch = Path(made, "root"), Path(made, "scratch")
            root.mkdir()
            scratch.mkdir()
            fill(root, scratch)
            done = layer.write(root, Path(made, "layer"))
            done.path.rename(kept)
        values = {"digest": done.digest, "size_bytes": done.size_bytes, "diff_id": done.diff_id}
        described.write_text(json.dumps(values))
    return Layer(kept, done.digest, done.size_bytes, done.diff_id)


def _sources(recipe: Recipe, checkout: Path) -> list[tuple[str, str]]:
    files = [checkout / "setup.cfg", *(checkout / target for _, target in recipe.scripts if ":" not in target)]
    for package in recipe.packages:
        for folder, folders, names in os.walk(checkout / package, followlinks=True):
            folders[:] = [one for one in folders if one != "__pycache__"]
            files += [Path(folder, name) for name in names if not name.endswith(".pyc")]
    return [(path.relative_to(checkout).as_posix(), _digest(path)) for path in files]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
