"""Looking into a registry's repositories of models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from agent.oci import OCI_MANIFEST, Registry, RegistryFault
from agent.wire.canonical import digest

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class PushedVersion:
    """One version in a repository."""

    version: str
    digest: str
    size_bytes: int
    format: str


def list_versions(registry: Registry, repository: str) -> list[PushedVersion]:
    """Return the versions of a repository, in the order of their tags.

    Raises:
        Retry: the registry does not say.
    """
    tags: list[str] = []
    while True:
        query = urlencode({"n": str(_PAGE), **({"last": tags[-1]} if tags else {})})
        answer = registry.ask("GET", repository, f"/v2/{repository}/tags/list?{query}")
        if answer.status == 404:
            return []
        page = _json(answer.body, answer.status).get("tags") or []
        tags += page
        if len(page) < _PAGE:
            break
    return [_version(registry, repository, tag) for tag in tags]


def _version(registry: Registry, repository: str, tag: str) -> PushedVersion:
    answer = registry.ask("GET", repository, f"/v2/{repository}/manifests/{tag}", {"Accept": OCI_MANIFEST})
    layers = _json(answer.body, answer.status).get("layers", [])
    names = [layer.get("annotations", {}).get("org.cncf.model.filepath", "") for layer in layers]
    endings = sorted({name.rpartition(".")[2] for name in names if "." in name} - {"json", "md", "txt", "yaml"})
    return PushedVersion(tag, digest(answer.body), sum(layer["size"] for layer in layers), ", ".join(endings))


def _json(body: bytes, status: int) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if status != 200 or not isinstance(found, dict):
        raise RegistryFault(f"status {status}, and no list or manifest")
    return found
