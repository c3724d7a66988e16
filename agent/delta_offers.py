"""Deltas that lead to an artifact from what the site has: found beside it in its registry, never trusted.

A delta artifact is a manifest with ``subject`` the new artifact. Each layer is a delta (agent/delta.py) to one layer of
the new artifact. Annotations:

    dev.edgeferry.delta.base     digest of the manifest (on a layer: of the blob) it starts from; absent for nothing
    dev.edgeferry.delta.result   on a layer: digest of the blob that it makes
    dev.edgeferry.delta.codec    on a layer, for people
    dev.edgeferry.delta.bytes    on the manifest: of all its layers together
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from agent.referrers import Referrer
from agent.wire.canonical import Json, is_digest

BASE: Final = "dev.edgeferry.delta.base"
RESULT: Final = "dev.edgeferry.delta.result"
CODEC: Final = "dev.edgeferry.delta.codec"
BYTES: Final = "dev.edgeferry.delta.bytes"
LAYER_TYPE: Final = "application/vnd.dev.edgeferry.delta.layer.v1"

MOST_LOOKED_AT: Final = 4
"""Manifests of deltas that are fetched for one artifact."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to make a blob.

    Attributes:
        digest: of the delta.
        size_bytes: of the delta.
        base: digest of the blob that it starts from; empty for nothing.
        codec: for people.
    """

    digest: str
    size_bytes: int
    base: str
    codec: str


def usable(found: Iterable[Referrer], here: Callable[[str], bool]) -> list[Referrer]:
    """Return the delta manifests worth a look: from what is here or from nothing, the smallest first.

    Args:
        found: what refers to the artifact.
        here: tells whether a manifest is at the site.
    """
    fitting = [one for one in found if not one.annotations.get(BASE) or here(one.annotations[BASE])]
    return sorted(fitting, key=lambda one: (_bytes(one), one.digest))[:MOST_LOOKED_AT]


def read_offers(manifest: bytes, here: Callable[[str], bool]) -> dict[str, Offer]:
    """Return blob that is made → the offer, of a delta manifest; what is malformed in it is passed over.

    Args:
        manifest: verified to be what the referrer names, and nothing more.
        here: tells whether a blob is at the site.
    """
    try:
        layers = json.loads(manifest)["layers"]
        offers = dict(filter(None, map(_offer, layers)))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
    return {made: one for made, one in offers.items() if not one.base or here(one.base)}


def _offer(layer: Json) -> tuple[str, Offer] | None:
    notes = layer.get("annotations") or {}
    base, made = notes.get(BASE, ""), notes.get(RESULT, "")
    digest, size = layer["digest"], layer["size"]
    if not is_digest(digest) or not is_digest(made) or (base and not is_digest(base)) or type(size) is not int:
        return None
    return made, Offer(digest, max(size, 0), base, str(notes.get(CODEC, ""))[:32])


def _bytes(one: Referrer) -> int:
    text = one.annotations.get(BYTES, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 1 << 62
