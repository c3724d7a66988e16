"""Rebuilding from deltas: bit-exact, whatever the pair; bounded and coded, whatever the delta."""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.delta import (
    BYTES,
    BZIP2,
    COPY,
    DATA,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    HEAD,
    INT16,
    INT32,
    MAGIC,
    MOST_PLAIN_BYTES,
    RAW,
    RECORD,
    WIDTHS,
    XZ,
    ZSTD,
    BadDelta,
    Instruction,
    ordered,
    rebuild,
    unordered,
)
from gitops.delta_encode import encode
from gitops.delta_records import no_prefix, write_delta

OLD = bytes(np.random.default_rng(1).integers(0, 256, 50_000, np.uint8))


def rebuilt(old: bytes, delta: bytes, size: int) -> bytes:
    out = io.BytesIO()
    rebuild(io.BytesIO(old) if old else None, io.BytesIO(delta), out.write, size)
    return out.getvalue()


def written(old: bytes, new: bytes, *instructions: Instruction) -> bytes:
    out = io.BytesIO()
    assert write_delta(old, new, instructions, out, no_prefix) == len(out.getvalue())
    return out.getvalue()


def record(payload: bytes, plain: int, codec: int = RAW, place: int = 0, prefix: int = 0, size: int = 100) -> bytes:
    return HEAD.pack(MAGIC, size) + RECORD.pack(codec, len(payload), plain, place, prefix) + payload


# ── what fits, fits exactly ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", sorted(WIDTHS))
def test_numbers_of_every_kind_and_bit_pattern_come_back(kind: int) -> None:
    random = np.random.default_rng(kind)
    old, new = (random.integers(0, 256, 4096, np.uint8).tobytes() for _ in range(2))
    assert rebuilt(old, written(old, new, Instruction(kind, 4096, 0)), 4096) == new


@pytest.mark.parametrize("kind", [FLOAT16, FLOAT32, FLOAT64])
def test_floats_are_ordered_by_value(kind: int) -> None:
    width = WIDTHS[kind]
    values = np.array([-np.inf, -3.5, -1e-3, -0.0, 0.0, 1e-3, 2.0, np.inf], f"<f{width}")
    numbers = values.view(f"<u{width}")
    found = ordered(numbers, kind)
    assert list(found) == sorted(found) and len(set(found)) == 8
    assert (unordered(found, kind) == numbers).all()


def test_places_go_forth_and_back() -> None:
    new = OLD[100:200] + OLD[:50] + b"new" + OLD[49_000:]
    steps = [
        Instruction(COPY, 100, 100),
        Instruction(COPY, 50, 0),
        Instruction(DATA, 3),
        Instruction(COPY, 1000, 49_000),
    ]
    delta = written(OLD, new, *steps)
    assert rebuilt(OLD, delta, len(new)) == new
    assert len(delta) < 100


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    old=st.binary(max_size=3000),
    edits=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 200), st.binary(max_size=200)), max_size=6),
)
def test_any_edit_is_encoded_and_rebuilt(tmp_path: Path, old: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    new = old
    for place, gone, added in edits:
        new = new[:place] + added + new[place + gone :]
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    found = encode(tmp_path / "old", tmp_path / "new", tmp_path / "delta")
    delta = (tmp_path / "delta").read_bytes()
    assert found.size_bytes == len(delta)
    assert rebuilt(old, delta, len(new)) == new


def test_a_delta_from_nothing_is_the_file_packed(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"weights " * 100_000)
    found = encode(None, tmp_path / "new", tmp_path / "delta")
    assert (found.codec, found.size_bytes < 2000) == ("zstd", True)
    assert rebuilt(b"", (tmp_path / "delta").read_bytes(), 800_000) == b"weights " * 100_000


def test_as_a_program_it_rebuilds_a_file_and_says_what_is_wrong(tmp_path: Path) -> None:
    old, delta, new = tmp_path / "old", tmp_path / "delta", tmp_path / "new"
    old.write_bytes(OLD)
    delta.write_bytes(written(OLD, OLD[5:], Instruction(COPY, len(OLD) - 5, 5)))

    def run(size: int) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "agent.delta", str(old), str(delta), str(new), str(size)]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    assert run(len(OLD) - 5).returncode == 0 and new.read_bytes() == OLD[5:]
    wrong = run(len(OLD))
    assert wrong.returncode == 3 and "EF2201" in wrong.stderr


# ── what does not fit is refused, and costs little ────────────────────────────────────────────────────────────────


def bomb() -> bytes:
    return zstandard.compress(bytes(64 << 20))


@pytest.mark.parametrize(
    "delta",
    [
        pytest.param(b"", id="empty"),
        pytest.param(HEAD.pack(b"EFDELTA9", 100), id="another format"),
        pytest.param(HEAD.pack(MAGIC, 99), id="another size"),
        pytest.param(HEAD.pack(MAGIC, 100), id="no records"),
        pytest.param(record(b"\0", 1), id="no instructions"),
        pytest.param(record(b"\1", 1), id="an instruction short"),
        pytest.param(record(b"\xff" * 20, 20), id="a number without an end"),
        pytest.param(record(b"\xff\xff\xff\xff\x7f" + b"x", 6), id="more instructions than bytes"),
        pytest.param(record(b"\1\xa7\x06", 3), id="data that is not there"),
        pytest.param(record(b"\1\x07", 2), id="nothing to do"),
        pytest.param(record(b"\1\xa0\x06\x01", 4), id="a place before the file"),
        pytest.param(record(b"\1\xa0\x06\xc0\x9a\x0c", 6), id="a place after the file"),
        pytest.param(record(b"\1" + b"\xf8\xff\xff\xff\xff\xff\xff\x7f" + b"\0", 10), id="a copy larger than all"),
        pytest.param(record(b"\1\x1a\0" + bytes(3), 6, size=3), id="half a number"),
        pytest.param(record(b"\1\xa0\x06\0rest", 8), id="bytes that nothing uses"),
        pytest.param(record(b"x", MOST_PLAIN_BYTES + 1), id="a record too large"),
        pytest.param(record(b"\1\xa0\x06\0", 4, prefix=1 << 31), id="a prefix too large"),
        pytest.param(record(b"x", 4, prefix=60_000, codec=ZSTD), id="a prefix that leaves the file"),
        pytest.param(record(b"x", 4, codec=9), id="an unknown codec"),
        pytest.param(record(bomb(), 1 << 20, codec=ZSTD), id="a zstd bomb"),
        pytest.param(record(lzma.compress(bytes(8 << 20)), 1 << 20, codec=XZ), id="an xz bomb"),
        pytest.param(record(bz2.compress(bytes(8 << 20)), 1 << 20, codec=BZIP2), id="a bzip2 bomb"),
        pytest.param(record(zstandard.compress(b"")[:-1], 0, codec=ZSTD), id="a broken frame"),
        pytest.param(record(b"\1\xa0\x06\0", 4) + b"more", id="more after the end"),
        pytest.param(
            record(b"\x81\x80\x80\x00"[:1] + b"", 1, size=100)[:-1] + struct.pack("<B", 0), id="an empty record"
        ),
    ],
)
def test_a_hostile_delta_is_refused(delta: bytes) -> None:
    with pytest.raises(BadDelta):
        rebuilt(OLD, delta, 100)


def test_a_large_record_that_makes_little_is_refused() -> None:
    # 200 KB of instructions that copy one byte each are work without a result.
    count = 60_000
    plain = b"\xe0\xd4\x03" + b"\x08\x01" * count
    packed = zstandard.compress(plain)
    with pytest.raises(BadDelta):
        rebuilt(OLD, record(packed, len(plain), ZSTD, size=10), 10)


def test_an_old_file_is_wanted_where_the_delta_needs_one() -> None:
    with pytest.raises(BadDelta):
        rebuilt(b"", written(OLD, OLD, Instruction(COPY, len(OLD), 0)), len(OLD))


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 400))
def test_a_damaged_delta_gives_a_fault_or_bytes_of_the_right_number(place: int, value: int, cut: int) -> None:
    new = bytearray(OLD[:2000])
    new[100:140] = b"x" * 40
    steps = [
        Instruction(BYTES, 200, 0),
        Instruction(FLOAT32, 400, 200),
        Instruction(DATA, 40),
        Instruction(INT16, 360, 640),
        Instruction(INT32, 400, 1000),
        Instruction(COPY, 600, 1400),
    ]
    delta = bytearray(written(OLD, bytes(new), *steps))
    at = place % len(delta)
    delta[at] = value
    del delta[len(delta) - cut % len(delta) :]
    try:
        assert len(rebuilt(OLD, bytes(delta), 2000)) == 2000
    except BadDelta:
        pass


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300), codec=st.integers(0, 4), plain=st.integers(0, 5000), prefix=st.integers(0, 60_000))
def test_noise_is_no_delta(data: bytes, codec: int, plain: int, prefix: int) -> None:
    with pytest.raises(BadDelta):
        rebuilt(OLD, record(data, plain, codec, 0, prefix, 1 << 40), 1 << 40)
