"""A bad way and a lying registry: every byte about once, nothing wrong is ever taken, and it ends when they behave."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import Config
from agent.content import Content
from agent.proof import Fixed
from agent.sources import Sources
from agent.stage import FILE, SiteBytes
from agent.wire.canonical import digest
from agent.wire.errors import Retry
from agent.wire.release import Artifact, Entry
from tests.agent.http_server import Asked, Reply, serving

BLOB = os.urandom(3_000_000)
ENTRY = Entry(
    "model",
    "reader",
    "1.0.0",
    "file",
    "sha256:" + "e" * 64,
    artifacts=(Artifact(digest(BLOB), len(BLOB), FILE, "hub://models/reader", "m"),),
)


def site(root: Path, url: str) -> SiteBytes:
    return SiteBytes(Content(root / "content", 0), Sources(Config("milan-01", "f-1", hub=url), Fixed("secret"), root))


def ranged(asked: Asked) -> tuple[int, Reply]:
    span = asked.headers.get("range")
    if not span:
        return 0, Reply(200, BLOB)
    first = int(span.removeprefix("bytes=").partition("-")[0])
    return first, Reply(206, BLOB[first:], {"content-range": f"bytes {first}-{len(BLOB) - 1}/{len(BLOB)}"})


def test_a_transfer_that_is_cut_twenty_times_sends_each_byte_about_once(tmp_path: Path) -> None:
    sent: list[int] = []
    cuts = 20

    def answer(asked: Asked) -> Reply:
        _, honest = ranged(asked)
        upto = len(BLOB) // 21 if len(sent) < cuts else len(honest.body)
        sent.append(upto)
        return Reply(honest.status, honest.body, honest.headers, cut_at=upto)

    with serving(answer) as server:
        for attempt in range(cuts + 1):
            here = site(tmp_path, server.url)  # an agent that was started anew
            try:
                staged = here.stage(ENTRY, {})
            except Retry:
                assert attempt < cuts
            finally:
                here.close()
    assert staged.model is not None and staged.model.read_bytes() == BLOB
    assert sum(sent) <= 1.02 * len(BLOB)


def wrong_bytes(first: int, honest: Reply) -> Reply:
    return Reply(honest.status, os.urandom(len(honest.body)), honest.headers)


def too_much(first: int, honest: Reply) -> Reply:
    return Reply(honest.status, honest.body + b"more", honest.headers)


def too_little(first: int, honest: Reply) -> Reply:
    return Reply(honest.status, honest.body[:-1000], honest.headers)


def cut(first: int, honest: Reply) -> Reply:
    return Reply(honest.status, honest.body, honest.headers, cut_at=len(honest.body) // 3)


def another_range(first: int, honest: Reply) -> Reply:
    return Reply(206, BLOB[first // 2 :], {"content-range": f"bytes {first // 2}-{len(BLOB) - 1}/{len(BLOB)}"})


def status(code: int) -> Callable[[int, Reply], Reply]:
    def refuse(_first: int, _honest: Reply) -> Reply:
        return Reply(code, b"{}", {"retry-after": "1"})

    return refuse


LIES = [wrong_bytes, too_much, too_little, cut, another_range, *map(status, (200, 404, 416, 429, 500, 503))]


@pytest.mark.parametrize("seed", range(6))
def test_nothing_wrong_is_taken_and_the_transfer_ends_when_the_registry_behaves(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # which lie comes when; the same for a seed
    lies = [chance.choice(LIES) for _ in range(12)]

    def answer(asked: Asked) -> Reply:
        first, honest = ranged(asked)
        return lies.pop()(first, honest) if lies else honest

    with serving(answer) as server:
        here = site(tmp_path, server.url)
        for _ in range(40):
            try:
                staged = here.stage(ENTRY, {})
                break
            except Retry:
                assert here.present(ENTRY, {}) is None, "nothing counts before all of it is right"
        here.close()
    assert staged.model is not None and staged.model.read_bytes() == BLOB
