"""An entry as it was published once, so that it can be published again byte for byte. Pure.

A cluster that waits for its wave keeps what it has, and one that goes back gets what it had: neither is rendered
again, as what it was rendered from may be gone.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from agent.wire.canonical import canonical, digest
from agent.wire.errors import Malformed
from agent.wire.fields import Fields
from agent.wire.release import NAME, decode_entry
from gitops import manifests
from gitops.render.entries import Rendered, identities

FORMATS: Final = (1,)


def from_overlay(overlay: Mapping[str, bytes], kind: str, name: str) -> Rendered | None:
    """Return an entry of a published overlay; None where it has none of that name.

    Args:
        overlay: path → bytes, of one cluster.
        kind: ``model`` or ``workload``.
        name: of the entry.
    """
    release = json.loads(overlay[NAME])
    for encoded in release["entries"]:
        if (encoded["kind"], encoded["name"]) == (kind, name):
            own = f"{kind}s/{name}/"
            files = {path: data for path, data in overlay.items() if path.startswith(own)}
            return _rendered(encoded, files, f"{NAME} {kind}/{name}")
    return None


def encode_kept(one: Rendered) -> bytes:
    """Return the canonical bytes of an entry with its files."""
    files = {path: base64.b64encode(data).decode() for path, data in one.files.items()}
    return canonical({"format": 1, "entry": one.encoded, "files": files})


def decode_kept(data: bytes, where: str) -> Rendered:
    """Read an entry with its files.

    Raises:
        Malformed: a part is missing, or not base64.
    """
    top = Fields.parse(data, where)
    top.format(FORMATS)
    try:
        files = {path: base64.b64decode(text, validate=True) for path, text in top.mapping("files").items()}
        return _rendered(json.loads(data)["entry"], files, where)
    except (ValueError, KeyError, TypeError) as error:
        raise Malformed(f"unreadable: {error}", where=where) from None


def _rendered(encoded: dict[str, Any], files: Mapping[str, bytes], where: str) -> Rendered:
    entry = decode_entry(Fields(encoded, where))
    paths = tuple(path for path in sorted(files) if path.endswith(".yaml"))
    objects = [one for path in paths for one in manifests.load(files[path])]
    return Rendered(
        entry=entry,
        encoded=encoded,
        files=dict(files),
        digests={path: digest(data) for path, data in files.items()},
        manifests=paths,
        objects=identities(entry, objects),
    )
