"""Blobs made of older ones: a delta is fetched, followed in a process of its own, and its result compared.

Whatever goes wrong with a delta, the answer is the whole blob; only a broken way there is waited for.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.content import Content
from agent.delta_offers import Offer, read_offers, usable
from agent.http import Unreachable
from agent.oci import OtherBytes
from agent.referrers import DELTA_TYPE
from agent.sources import Source
from agent.wire.errors import EdgeferryError, Stop

_PATIENCE: Final = 3
_LONGEST_S: Final = 3600


class DeltaUseless(Stop):
    """A delta could not be followed; the whole file is fetched instead."""

    code = "EF2202"


class Rebuilding:
    """Offers of deltas for a site, and which of them were of no use.

    Args:
        content: the site's store.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._useless: set[str] = set()
        self._unreachable: dict[str, int] = {}

    def offers(self, artifact: str, source: Source) -> dict[str, Offer]:
        """Return blob → the smallest delta that makes it from what is here.

        Args:
            artifact: digest of the manifest that is to come.
            source: where it comes from.

        Raises:
            Unreachable: no answer; after some of them there are no offers.
        """
        content = self._content
        found: dict[str, Offer] = {}
        try:
            for one in usable(source.referrers(artifact, DELTA_TYPE), lambda base: content.blob(base) is not None):
                manifest = source.manifest(one.digest)
                for made, offer in read_offers(manifest, lambda blob: content.blob(blob) is not None).items():
                    known = found.get(made)
                    if offer.digest not in self._useless and (known is None or offer.size_bytes < known.size_bytes):
                        found[made] = offer
        except Unreachable:
            self._unreachable[artifact] = self._unreachable.get(artifact, 0) + 1
            if self._unreachable[artifact] < _PATIENCE:
                raise
        except EdgeferryError:
            return found  # a place that answers with nonsense here may still give the bytes
        self._unreachable.pop(artifact, None)
        return found

    def make(self, digest: str, size_bytes: int, offer: Offer, source: Source, told: Callable[[int], None]) -> bool:
        """Make a blob by an offer; return whether that worked.

        Args:
            digest: of the blob.
            size_bytes: of the blob.
            offer: how.
            source: where the delta is.
            told: how many bytes of the delta are here.

        Raises:
            DiskFull: no room.
            Retry: the delta cannot be fetched now; what came of it is kept.
        """
        content = self._content
        base = content.blob(offer.base) if offer.base else None
        if offer.base and base is None:
            return False
        try:
            content.make_room(offer.size_bytes + size_bytes - content.bytes_here(offer.digest))
            delta = content.bring(
                offer.digest, offer.size_bytes, lambda first: source.blob(offer.digest, offer.size_bytes, first), told
            )
            content.rebuild(digest, size_bytes, lambda new: follow(base, delta, new, size_bytes))
        except (DeltaUseless, OtherBytes):
            self._useless.add(offer.digest)
            content.drop_blob(offer.digest)
            return False
        content.drop_blob(offer.digest)
        return True


def follow(base: Path | None, delta: Path, new: Path, size_bytes: int) -> None:
    """Write ``new`` by a delta, in a process of its own.

    Raises:
        DeltaUseless: it cannot be followed.
        OSError: the disk is full, or broken.
    """
    words = [str(base) if base is not None else "", str(delta), str(new), str(size_bytes)]
    settings = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "agent.delta", *words],
            env=settings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeltaUseless(f"it took more than {_LONGEST_S} s", where=str(delta)) from None
    said = done.stderr.strip().splitlines()
    if done.returncode == 4:
        with contextlib.suppress(IndexError, ValueError):
            number = int(said[-1])
            raise OSError(number, os.strerror(number), str(new))
    if done.returncode:
        raise DeltaUseless((said[-1] if said else f"status {done.returncode}")[:300], where=str(delta))
