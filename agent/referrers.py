"""What refers to an artifact in a registry: descriptors of manifests, such as deltas to it and signatures of it.

Source: OCI distribution specification 1.1, referrers API and tag schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.wire.canonical import is_digest

DELTA_TYPE: Final = "application/vnd.dev.edgeferry.delta.v1+json"
SIGNATURE_TYPE: Final = "application/vnd.dev.edgeferry.model-signature.v1+json"
_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest that refers to another one."""

    digest: str
    size_bytes: int
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


def read_referrers(data: bytes, artifact_type: str) -> tuple[Referrer, ...]:
    """Return what an index lists of one type; what is malformed in it is passed over: nothing depends on it.

    Args:
        data: an OCI index.
        artifact_type: that is wanted.
    """
    try:
        listed = json.loads(data)["manifests"][:_MOST]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ()
    found = (_read(one) for one in listed) if isinstance(listed, list) else ()
    return tuple(one for one in found if one is not None and one.artifact_type == artifact_type)


def fallback_tag(subject: str) -> str:
    """Return the tag under which registries without the API keep the referrers of a manifest."""
    return subject.replace(":", "-")


def _read(one: object) -> Referrer | None:
    if not isinstance(one, dict):
        return None
    digest, size, kind = one.get("digest"), one.get("size"), one.get("artifactType")
    notes = one.get("annotations") or {}
    if not isinstance(digest, str) or not is_digest(digest) or type(size) is not int or not isinstance(kind, str):
        return None
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        return None
    return Referrer(digest, size, kind, notes)
