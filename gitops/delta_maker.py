"""Deltas made in the background: woken by publications and reports, one at a time, at low priority."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from agent.wire.errors import EdgeferryError
from gitops.artifacts import ArtifactStore
from gitops.changes import Published
from gitops.deltas import Encode, Encoder, Pair, Site, drop_old, make, wanted
from gitops.store import Store

UNUSED_S: Final = 30 * 86400.0
"""A delta that nobody asked for so long is thrown away; one to a version that no release names, after a day."""

_LOOK_S: Final = 60.0
_CLEAN_S: Final = 3600.0
_log: Final = logging.getLogger("edgeferry.hub")


class DeltaMaker:
    """Makes the deltas that the sites in the field wait for.

    Args:
        artifacts: where versions are, and deltas go.
        store: what the sites reported.
        published: gives cluster → its release.
        encode: makes one delta; None for a process of its own.
    """

    def __init__(
        self,
        artifacts: ArtifactStore,
        store: Store,
        published: Callable[[], Mapping[str, Published]],
        encode: Encode | None = None,
    ) -> None:
        self._artifacts = artifacts
        self._store = store
        self._published = published
        self._apart = Encoder()
        self._encode = encode or self._apart
        self._woken = threading.Event()
        self._ended = False
        self._failed: set[Pair] = set()
        self._cleaned_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="deltas", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """There may be something to do."""
        self._woken.set()

    def stop(self) -> None:
        """Make no further delta; one under way is given up."""
        self._ended = True
        self._woken.set()
        self._apart.stop()

    def sites(self) -> list[Site]:
        """Return what every cluster is to run, and what it has."""
        reports = self._store.latest_reports()
        found = []
        for cluster, release in self._published().items():
            report = reports.get(cluster)
            names = {
                f"{kind}s/{name}": version for (kind, name), (version, _) in release.entries.items() if kind == "model"
            }
            found.append(Site(names, frozenset(report.report.artifacts) if report is not None else frozenset()))
        return found

    def round(self) -> int:
        """Make what is wanted now; return how many deltas that were."""
        count = 0
        while not self._ended:
            pairs = [pair for pair in wanted(self._artifacts, self.sites()) if pair not in self._failed]
            if not pairs:
                break
            try:
                made = make(self._artifacts, pairs[0], self._encode)
            except (EdgeferryError, OSError, ValueError, LookupError) as error:
                self._failed.add(pairs[0])
                _log.warning("no delta for %s: %s", pairs[0].repository, error)
                continue
            count += 1
            if made.layers:
                _log.info("delta for %s: %d bytes (%s)", made.pair.repository, made.size_bytes, ", ".join(made.codecs))
        return count

    def _run(self) -> None:
        while not self._ended:
            try:
                self.round()
                if time.monotonic() - self._cleaned_s > _CLEAN_S:
                    self._cleaned_s = time.monotonic()
                    self._clean()
            except Exception:
                _log.exception("deltas are not made for now")
            self._woken.wait(_LOOK_S)
            self._woken.clear()

    def _clean(self) -> None:
        self._failed.clear()
        named: set[str] = set()
        for site in self.sites():
            for repository, version in site.wanted.items():
                entries = self._artifacts.repositories.entries(repository)
                named.update(one.digest for one in entries if one.tag == version)
        drop_old(self._artifacts, named.__contains__, time.time(), UNUSED_S)
