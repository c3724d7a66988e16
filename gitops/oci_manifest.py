"""Reading OCI manifests and indexes: what they are, and what they lead to."""

from __future__ import annotations

import json
from typing import Final

from agent.wire.canonical import Json, is_digest
from agent.wire.errors import Stop

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
MAX_MANIFEST_BYTES: Final = 4 << 20
_KNOWN: Final = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
_ELSEWHERE: Final = (
    "application/vnd.oci.image.layer.nondistributable.",
    "application/vnd.docker.image.rootfs.foreign.",
)


class BadManifest(Stop):
    """A manifest is not an OCI manifest, is too large, or names blobs that are not there."""

    code = "EF2182"


def read_manifest(data: bytes, media_type: str = "") -> dict[str, Json]:
    """Return a manifest or an index with its ``mediaType``, checked as far as ``children`` and ``subject_of`` need.

    Args:
        data: its bytes.
        media_type: what it is, where it does not say so itself; empty to see by what it holds.

    Raises:
        BadManifest: it is something else.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise BadManifest(f"more than {MAX_MANIFEST_BYTES} bytes")
    try:
        top: dict[str, Json] = json.loads(data)
        children(top)
        subject_of(top)
        found = top.get("mediaType") or media_type or (OCI_INDEX if "manifests" in top else OCI_MANIFEST)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadManifest(f"unreadable: {error}") from None
    if found not in _KNOWN or ("manifests" in top) != (found in (OCI_INDEX, DOCKER_LIST)):
        raise BadManifest(f"media type {str(found)[:80]!r}", do=f"send {OCI_MANIFEST} or {OCI_INDEX}")
    return {**top, "mediaType": found}


def children(top: dict[str, Json]) -> list[str]:
    """Return the digests that a manifest or an index names.

    Raises:
        ValueError: one is not a sha256 digest.
    """
    named = [top["config"]] if "config" in top else []
    named += [*top.get("layers", []), *top.get("manifests", []), *top.get("blobs", [])]
    digests = [one["digest"] for one in named]
    for one in digests:
        if not isinstance(one, str) or not is_digest(one):
            raise ValueError(f"{str(one)[:80]!r} is not a sha256 digest")
    return digests


def required(top: dict[str, Json]) -> list[str]:
    """Return those of ``children`` that must stand beside it: all but layers that may not be distributed."""
    foreign = {one["digest"] for one in top.get("layers", []) if str(one.get("mediaType")).startswith(_ELSEWHERE)}
    return [one for one in children(top) if one not in foreign]


def subject_of(top: dict[str, Json]) -> str:
    """Return the digest of the manifest that this one refers to; empty for none.

    Raises:
        ValueError: it is not a sha256 digest.
    """
    if top.get("subject") is None:
        return ""
    found = top["subject"]["digest"]
    if not isinstance(found, str) or not is_digest(found):
        raise ValueError(f"{str(found)[:80]!r} is not a sha256 digest")
    return found
