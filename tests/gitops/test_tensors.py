"""Tensors are found where they stand, in files that libraries wrote, and nowhere in what is no model."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from agent.delta import BYTES, COPY, DATA, FLOAT16, FLOAT32
from bench.models import onnx, safetensors
from gitops.delta_match import match_tensors
from gitops.tensors import tensor_spans

DIGITS = Path(__file__).parents[2] / "gitops" / "demo" / "digits"


@pytest.mark.parametrize("write", [safetensors, onnx], ids=["safetensors", "onnx"])
@pytest.mark.parametrize(("kind", "number"), [("float32", FLOAT32), ("float16", FLOAT16), ("int8", BYTES)])
def test_every_tensor_is_found(write: object, kind: str, number: int) -> None:
    weights = {"a": np.arange(60).reshape(6, 10).astype(kind), "b": np.arange(7).astype(kind)}
    data = write(weights)  # type: ignore[operator]  # one of the two writers
    spans = tensor_spans(memoryview(data))
    assert {one.name: one.kind for one in spans} == {"a": number, "b": number}
    assert {one.name: data[one.place : one.place + one.length] for one in spans} == {
        name: array.tobytes() for name, array in weights.items()
    }


def test_a_real_onnx_files_weights_are_found() -> None:
    files = [DIGITS / f"digits-{version}.onnx" for version in ("2.0.0", "2.1.0")]
    for file in files:
        data = file.read_bytes()
        spans = tensor_spans(memoryview(data))
        found = [one for one in spans if one.kind == FLOAT32]
        assert sum(one.length for one in found) > 0.8 * len(data)
        assert all(np.isfinite(np.frombuffer(data[one.place : one.place + one.length], "<f4")).all() for one in found)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"\x3a\x7f" + b"x" * 20,
        struct.pack("<Q", 20) + b'{"a": {"dtype": 3}}  ',
        struct.pack("<Q", 1 << 60) + b"{",
        struct.pack("<Q", 44) + b'{"a":{"dtype":"F32","data_offsets":[9,100]}}' + bytes(4),
    ],
)
def test_what_is_no_model_has_no_tensors(data: bytes) -> None:
    assert tensor_spans(memoryview(data)) == []


def test_what_did_not_change_is_copied_and_what_did_is_a_difference_of_numbers() -> None:
    old = {"a": np.ones(1000, "float32"), "b": np.ones(500, "float32")}
    new = {"a": np.ones(1000, "float32"), "b": np.full(500, 1.01, "float32"), "c": np.zeros(64, "float32")}
    found = match_tensors(memoryview(safetensors(old)), memoryview(safetensors(new)))
    assert found is not None
    kinds = {one.kind for one in found}
    assert {COPY, FLOAT32, DATA} <= kinds
    assert [one.length for one in found if one.kind == FLOAT32] == [2000]
