"""A model file or folder → its artifact in a registry, and its version document in the working tree."""

from __future__ import annotations

import hashlib
import io
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from agent.oci import OCI_MANIFEST, BadReference, Login, Registry, read_logins
from agent.oci_push import push_blob, push_manifest
from agent.wire.canonical import digest
from agent.wire.errors import Stop
from agent.wire.model_signature import NAME as SIGNATURE
from agent.wire.model_signature import PrivateKey, sign_model
from gitops.artifacts import Stored
from gitops.packing import PackFile, assembled, checked

TOKEN: Final = "EDGEFERRY_TOKEN"  # noqa: S105  # the name of a variable
"""Variable with the hub's operator token, or another registry's password."""

Told = Callable[[str, int, int], None]
"""(file, bytes there, bytes in all)"""

_HIDDEN: Final = {".git", ".gitattributes", ".github", ".gitignore", SIGNATURE, "version.yaml"}


class NoModelFiles(Stop):
    """There is nothing to pack."""

    code = "EF2220"


@dataclass(frozen=True, slots=True)
class Packed:
    """A model version, ready to be pushed.

    Attributes:
        files: where each layer's bytes stand, in the order of the layers.
    """

    files: tuple[tuple[Path, Stored], ...]
    paths: tuple[str, ...]
    config: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        """Of the manifest: the version's digest."""
        return digest(self.manifest)

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(stored.size_bytes for _, stored in self.files)

    def by_path(self) -> Mapping[str, str]:
        """Return path → digest of its files: what a signature covers."""
        return {path: stored.digest for path, (_, stored) in zip(self.paths, self.files, strict=True)}

    def signed(self, name: str, key: PrivateKey) -> bytes:
        """Return ``model.sig`` for it."""
        return sign_model(self.by_path(), name, key)


def packed(model: Path, name: str, version: str) -> Packed:
    """Return the artifact of a model: the same that the hub makes of the same files in Git.

    Args:
        model: a file, or a folder with all that belongs to it.
        name: of the model.
        version: of the model.

    Raises:
        NoModelFiles: nothing is there.
        UnsafeContent, TooMuchContent: see gitops/packing.py.
    """
    found = {model.name: model} if model.is_file() else _below(model)
    if not found:
        raise NoModelFiles("there is no file", where=str(model), do="name a model file, or a folder that holds one")
    files = checked(
        [PackFile(path, place.stat().st_size, partial(_open, place)) for path, place in found.items()],
        f"{name} {version}",
    )
    stored = [_hashed(found[file.path]) for file in files]
    config, manifest = assembled(files, stored, name, version)
    paths = tuple(file.path for file in files)
    places = tuple((found[path], one) for path, one in zip(paths, stored, strict=True))
    return Packed(places, paths, config, manifest)


def push(registry: Registry, repository: str, model: Packed, tag: str, told: Told) -> int:
    """Have a version in a repository; return how many bytes had to be sent.

    Raises:
        Retry: the registry does not take it; what it has is not sent again the next time.
    """
    sent = 0
    for path, (place, stored) in zip(model.paths, model.files, strict=True):
        size = stored.size_bytes
        with place.open("rb") as file:
            if push_blob(registry, repository, stored.digest, size, file, partial(_tell, told, path, size), _pause):
                sent += size
    with _bytes(model.config) as file:
        push_blob(registry, repository, digest(model.config), len(model.config), file, lambda _: None, _pause)
    push_manifest(registry, repository, tag, model.manifest, OCI_MANIFEST)
    return sent + len(model.manifest)


def version_document(name: str, version: str, ref: str, model: Packed) -> str:
    """Return version.yaml for a pushed version."""
    return (
        "apiVersion: edgeferry.dev/v1alpha1\n"
        "kind: ModelVersion\n"
        f'metadata: {{name: {name}, version: "{version}"}}\n'
        "spec:\n"
        "  artifact:\n"
        f"    ref: {ref}\n"
        f'    digest: "{model.digest}"\n'
        f"    size: {model.size_bytes}\n"
    )


def logins(environment: Mapping[str, str]) -> Login:
    """Return the logins of a person: ``EDGEFERRY_TOKEN`` for any host, else what docker, podman or skopeo keep.

    Raises:
        BadReference: a login file is damaged.
    """
    token = environment.get(TOKEN, "")
    if token:
        return lambda _host: ("edgeferry", token)
    home = Path(environment.get("HOME", "/"))
    places = [
        environment.get("REGISTRY_AUTH_FILE", ""),
        f"{environment['XDG_RUNTIME_DIR']}/containers/auth.json" if environment.get("XDG_RUNTIME_DIR") else "",
        str(home / ".docker" / "config.json"),
    ]
    known = [read_logins(Path(place).read_bytes(), place) for place in places if place and Path(place).is_file()]
    return lambda host: next((found for login in known if (found := login(host)) is not None), None)


def split_reference(ref: str) -> tuple[str, str]:
    """Return host with port, and repository, of ``oci://HOST/REPOSITORY``.

    Raises:
        BadReference: it is of another form.
    """
    host, _, repository = ref.removeprefix("oci://").partition("/")
    if not ref.startswith("oci://") or not host or not repository:
        raise BadReference(
            f"{ref[:200]!r} names no repository", do="write it like oci://hub.example:8460/models/reader"
        )
    return host, repository


def _below(folder: Path) -> dict[str, Path]:
    found = {}
    for place in sorted(folder.rglob("*")):
        parts = place.relative_to(folder).parts
        if place.is_file() and parts[0] not in _HIDDEN:
            found["/".join(parts)] = place
    return found


def _hashed(place: Path) -> Stored:
    with place.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        return Stored(f"sha256:{found}", os.fstat(file.fileno()).st_size)


def _open(place: Path) -> BinaryIO:
    return place.open("rb")


def _bytes(data: bytes) -> BinaryIO:

    return io.BytesIO(data)


def _tell(told: Told, path: str, size_bytes: int, there: int) -> None:
    told(path, there, size_bytes)


def _pause(attempt: int) -> None:
    time.sleep(min(30.0, 2.0**attempt / 2) * random.uniform(0.5, 1.0))
