"""Reading OCI manifests and indexes: what they are, and what they lead to."""

from __future__ import annotations

import json
from typing import Final

from agent.wire.canonical import Json, is_digest
from agent.wire.errors import Stop

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
MAX_MANIFEST_BYTES: Final = 4 << 20


class BadManifest(Stop):
    """A manifest is not an OCI manifest, is too large, or names blobs that are not there."""

    code = "EF2182"


def read_manifest(data: bytes) -> dict[str, Json]:
    """Return a manifest or an index, checked as far as ``children`` needs.

    Raises:
        BadManifest: it is something else.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise BadManifest(f"more than {MAX_MANIFEST_BYTES} bytes")
    try:
        top: dict[str, Json] = json.loads(data)
        children(top)
        media_type = top.get("mediaType")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadManifest(f"unreadable: {error}") from None
    if media_type not in (OCI_MANIFEST, OCI_INDEX):
        raise BadManifest(f"media type {str(media_type)[:80]!r}", do=f"send {OCI_MANIFEST} or {OCI_INDEX}")
    return top


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
