"""Deltas of versions: made for those that wait, once, found by those that may, used, and thrown away."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.config import Config
from agent.content import Content
from agent.proof import Fixed
from agent.sources import Sources
from agent.stage import SiteBytes
from agent.wire.release import Artifact, Entry
from bench.models import safetensors
from gitops.artifacts import ArtifactStore
from gitops.changes import Published
from gitops.delta_encode import encode
from gitops.delta_maker import DeltaMaker
from gitops.deltas import Pair, Site, deltas_of, drop_old, make, wanted
from gitops.packing import PackFile, pack
from tests.gitops.serve.conftest import NOW, Hub

REPOSITORY = "models/reader"


def quick(old: Path | None, new: Path, delta: Path) -> tuple[str, int]:
    found = encode(old, new, delta)
    return found.codec, found.size_bytes


def weights(shift: float, size: int = 60_000) -> bytes:
    base = np.random.default_rng(1).standard_normal(size).astype("float32")
    moved = base + np.float32(shift) * np.random.default_rng(2).standard_normal(size).astype("float32")
    return safetensors({"w": moved.astype("float32")})


def version(store: ArtifactStore, number: str, data: bytes, labels: bytes = b"[]") -> Artifact:
    files = {"model.safetensors": data, "labels.json": labels}
    packed = [PackFile(name, len(one), lambda one=one: io.BytesIO(one)) for name, one in files.items()]  # type: ignore[misc]
    return pack(store, REPOSITORY, packed, "reader", number)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.open(tmp_path / "store")


def entry(artifact: Artifact, number: str = "1.0.0") -> Entry:
    return Entry("model", "reader", number, "file", "sha256:" + number[0] * 64, artifacts=(artifact,))


def test_what_sites_wait_for_is_made_once_and_most_waited_for_first(store: ArtifactStore) -> None:
    one, two, three = (version(store, f"{n}.0.0", weights(n / 1000)).digest for n in (1, 2, 3))
    sites = [
        Site({REPOSITORY: "3.0.0"}, frozenset({one})),
        Site({REPOSITORY: "3.0.0"}, frozenset({two})),
        Site({REPOSITORY: "3.0.0"}, frozenset({two})),
        Site({REPOSITORY: "3.0.0"}, frozenset({three})),
        Site({REPOSITORY: "9.0.0", "models/none": "1.0.0"}, frozenset({one})),
    ]
    found = wanted(store, sites)
    assert found == [Pair(REPOSITORY, "", three), Pair(REPOSITORY, two, three), Pair(REPOSITORY, one, three)]
    make(store, found[1], quick)
    assert wanted(store, sites) == [found[0], found[2]]


def test_a_pair_that_gains_nothing_is_remembered(store: ArtifactStore) -> None:
    one, two = (version(store, f"{n}.0.0", os.urandom(100_000)).digest for n in (1, 2))
    pair = Pair(REPOSITORY, one, two)
    assert make(store, pair, quick).layers == 0
    assert wanted(store, [Site({REPOSITORY: "2.0.0"}, frozenset({one}))]) == [Pair(REPOSITORY, "", two)]


def test_deltas_go_when_nobody_asks_for_them(store: ArtifactStore) -> None:
    one, two = (version(store, f"{n}.0.0", weights(n / 1000)).digest for n in (1, 2))
    made = make(store, Pair(REPOSITORY, one, two), quick)
    now_s = time.time()
    assert drop_old(store, lambda _: True, now_s, 100.0) == 0
    assert drop_old(store, lambda _: True, now_s + 50, 100.0) == 0
    assert drop_old(store, lambda _: False, now_s + 50, 100.0) == 1
    assert not store.has(made.digest) and deltas_of(store, REPOSITORY) == []
    assert store.has(two)


# ── from hub to site ──────────────────────────────────────────────────────────────────────────────────────────────


class Field:
    """A hub with two versions, and a site that has the first."""

    def __init__(self, root: Path) -> None:
        (root / "hub").mkdir()
        self.hub = Hub(root / "hub")
        self.hub.server.start()
        self.old = version(self.hub.artifacts, "1.0.0", weights(0.001))
        self.new = version(self.hub.artifacts, "2.0.0", weights(0.002))
        self.credential = self.hub.join("milan-01")
        self.hub.publish("milan-01", None, entry(self.old, "1.0.0"))
        self.content = Content(root / "state" / "content", 0)
        self.site = SiteBytes(
            self.content,
            Sources(Config("milan-01", "fleet-1", hub=self.hub.url), Fixed(self.credential), root / "state"),
        )
        self.site.stage(entry(self.old, "1.0.0"), {})
        self.hub.publish("milan-01", None, entry(self.new, "2.0.0"), sequence=2)

    def close(self) -> None:
        self.site.close()
        self.hub.close()


@pytest.fixture
def field(tmp_path: Path) -> Any:
    field = Field(tmp_path)
    yield field
    field.close()


def model(staged: Any) -> bytes:
    data: bytes = (staged.content / "model.safetensors").read_bytes()
    return data


def test_a_site_takes_the_delta_and_has_the_very_file(field: Field) -> None:
    delta = make(field.hub.artifacts, Pair(REPOSITORY, field.old.digest, field.new.digest), quick)
    assert 0 < delta.size_bytes < 0.8 * field.new.size_bytes
    told: list[int] = []
    staged = field.site.stage(entry(field.new, "2.0.0"), {}, told.append)
    assert model(staged) == weights(0.002)
    assert "saved by deltas" in staged.note
    assert told == sorted(told) and told[-1] == field.new.size_bytes
    assert sorted(path.name for path in (field.content._root / "partial").iterdir()) == []


def test_what_packs_well_is_sent_packed_without_an_old_version(field: Field) -> None:
    plain = version(field.hub.artifacts, "3.0.0", b"tree " * 50_000)
    field.hub.publish("milan-01", None, entry(plain, "3.0.0"), sequence=3)
    make(field.hub.artifacts, Pair(REPOSITORY, "", plain.digest), quick)
    staged = field.site.stage(entry(plain, "3.0.0"), {})
    assert model(staged) == b"tree " * 50_000 and "saved" in staged.note


def test_a_delta_that_makes_other_bytes_is_answered_by_the_whole_file(field: Field) -> None:
    def lie(old: Path | None, new: Path, delta: Path) -> tuple[str, int]:
        other = delta.with_name("other")
        other.write_bytes(weights(0.003))
        try:
            return quick(old, other, delta)
        finally:
            other.unlink()

    make(field.hub.artifacts, Pair(REPOSITORY, field.old.digest, field.new.digest), lie)
    staged = field.site.stage(entry(field.new, "2.0.0"), {})
    assert (model(staged), staged.note) == (weights(0.002), "")


def test_noise_in_place_of_a_delta_is_answered_by_the_whole_file(field: Field) -> None:
    def noise(_old: Path | None, _new: Path, delta: Path) -> tuple[str, int]:
        delta.write_bytes(os.urandom(1000))
        return "noise", 1000

    make(field.hub.artifacts, Pair(REPOSITORY, field.old.digest, field.new.digest), noise)
    staged = field.site.stage(entry(field.new, "2.0.0"), {})
    assert (model(staged), staged.note) == (weights(0.002), "")
    assert list((field.content._root / "making").iterdir()) == []


def test_deltas_to_what_a_cluster_may_not_have_are_not_there(field: Field) -> None:
    delta = make(field.hub.artifacts, Pair(REPOSITORY, field.old.digest, field.new.digest), quick)
    other = field.hub.join("turin-01")
    field.hub.publish("turin-01", None, entry(field.old, "1.0.0"))
    for path in (f"referrers/{field.new.digest}", f"manifests/{delta.digest}"):
        assert field.hub.ask("GET", f"/v2/{REPOSITORY}/{path}", bearer=other).status == 404
        assert field.hub.ask("GET", f"/v2/{REPOSITORY}/{path}", bearer=field.credential).status == 200


def test_the_hub_makes_in_the_background_what_reports_say_is_still_in_the_field(field: Field) -> None:
    from agent.wire.report import Report, encode_report

    report = Report("fleet-1", "milan-01", "i", 1, NOW, artifacts=(field.old.digest,))
    field.hub.store.put_report("milan-01", report, encode_report(report), NOW)
    release = Published(2, "c", "", {("model", "reader"): ("2.0.0", "d")})
    maker = DeltaMaker(field.hub.artifacts, field.hub.store, lambda: {"milan-01": release})
    assert maker.round() == 2
    made = [delta.pair.base for delta in deltas_of(field.hub.artifacts, REPOSITORY) if delta.layers]
    assert field.old.digest in made
    assert maker.round() == 0
    assert "saved" in field.site.stage(entry(field.new, "2.0.0"), {}).note
