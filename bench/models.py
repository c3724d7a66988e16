"""Small models, really trained, in pairs of an old and a new version: what goes over the wire in bench/transfer.py.

Everything is seeded: the same pairs on every run of one NumPy version.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, Any]
Weights = dict[str, Array]

_INPUTS: Final = 256
_CLASSES: Final = 10
_NAMES: Final = {"float32": "F32", "float16": "F16", "int8": "I8"}
_ONNX_TYPES: Final = {"float32": 1, "float16": 10, "int8": 3}


def pairs() -> Mapping[str, Callable[[], tuple[bytes, bytes]]]:
    """Return name → what makes the bytes of an old and a new version."""
    return {
        "finetune-fp32": lambda: _finetuned(safetensors, "float32"),
        "finetune-fp16": lambda: _finetuned(safetensors, "float16"),
        "finetune-int8": lambda: _finetuned(safetensors, "int8"),
        "finetune-onnx-fp32": lambda: _finetuned(onnx, "float32"),
        "last-layer": _last_layer,
        "metadata": _metadata,
        "new-architecture": _new_architecture,
        "trees-retrained": lambda: (_forest(7, 120), _forest(8, 120)),
        "trees-warm-start": lambda: (_forest(7, 120), _forest(7, 150)),
    }


def safetensors(weights: Weights, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return a safetensors file."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at, parts = 0, []
    for name, array in weights.items():
        data = array.tobytes()
        offsets = [at, at + len(data)]
        header[name] = {"dtype": _NAMES[str(array.dtype)], "shape": list(array.shape), "data_offsets": offsets}
        at += len(data)
        parts.append(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def onnx(weights: Weights, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return an ONNX file with the weights as initialisers and a chain of nodes over them."""
    graph = b"".join(_field(1, _field(2, f"{name}.out".encode()) + _field(4, b"Gemm")) for name in weights)
    graph += _field(2, b"graph")
    for name, array in weights.items():
        tensor = b"".join(_number(1, size) for size in array.shape)
        tensor += _number(2, _ONNX_TYPES[str(array.dtype)]) + _field(8, name.encode()) + _field(9, array.tobytes())
        graph += _field(5, tensor)
    props = b"".join(
        _field(14, _field(1, key.encode()) + _field(2, value.encode())) for key, value in (metadata or {}).items()
    )
    return _number(1, 10) + _field(2, b"edgeferry-bench") + _field(7, graph) + props


def _finetuned(write: Callable[[Weights], bytes], kind: str) -> tuple[bytes, bytes]:
    old = _trained()
    new = _train(old, seed=3, steps=60, rate=0.002)
    return write(_as(old, kind)), write(_as(new, kind))


def _last_layer() -> tuple[bytes, bytes]:
    old = _trained()
    new = _train(old, seed=4, steps=60, rate=0.01, only="w3")
    return safetensors(old), safetensors(new)


def _metadata() -> tuple[bytes, bytes]:
    weights = _trained()
    return onnx(weights, {"author": "ann", "threshold": "0.6"}), onnx(weights, {"author": "ann", "threshold": "0.65"})


def _new_architecture() -> tuple[bytes, bytes]:
    return safetensors(_trained()), safetensors(_train(_fresh(1024 + 128, 5), seed=5, steps=60, rate=0.02))


def _as(weights: Weights, kind: str) -> Weights:
    if kind != "int8":
        return {name: array.astype(kind) for name, array in weights.items()}
    # Symmetric, with a scale per tensor that is a power of two, as calibrated scales stay over a fine-tune.
    scales = {name: 2.0 ** np.ceil(np.log2(np.abs(array).max() + 1e-9)) / 127 for name, array in weights.items()}
    return {name: np.clip(np.rint(array / scales[name]), -127, 127).astype("int8") for name, array in weights.items()}


_kept: dict[str, Weights] = {}


def _trained() -> Weights:
    if not _kept:
        _kept["base"] = _train(_fresh(1024, 1), seed=2, steps=150, rate=0.02)
    return _kept["base"]


def _fresh(width: int, seed: int) -> Weights:
    random = np.random.default_rng(seed)
    sizes = {"w1": (_INPUTS, width), "w2": (width, width), "w3": (width, _CLASSES)}
    weights: Weights = {}
    for name, (rows, columns) in sizes.items():
        weights[name] = (random.standard_normal((rows, columns)) * np.sqrt(2 / rows)).astype("float32")
        weights[f"b{name[1]}"] = np.zeros(columns, "float32")
    return weights


def _train(weights: Weights, *, seed: int, steps: int, rate: float, only: str = "") -> Weights:
    """Return the weights after some steps of Adam on a made-up classification task."""
    random = np.random.default_rng(seed)
    truth = np.random.default_rng(0).standard_normal((_INPUTS, _CLASSES)).astype("float32")
    here = {name: array.copy() for name, array in weights.items()}
    first = {name: np.zeros_like(array) for name, array in here.items()}
    second = {name: np.zeros_like(array) for name, array in here.items()}
    for step in range(1, steps + 1):
        x = random.standard_normal((64, _INPUTS)).astype("float32")
        wanted = np.argmax(x @ truth + random.standard_normal((64, _CLASSES)), axis=1)
        h1 = np.maximum(x @ here["w1"] + here["b1"], 0)
        h2 = np.maximum(h1 @ here["w2"] + here["b2"], 0)
        scores = h2 @ here["w3"] + here["b3"]
        error = np.exp(scores - scores.max(axis=1, keepdims=True))
        error /= error.sum(axis=1, keepdims=True)
        error[np.arange(64), wanted] -= 1
        error /= 64
        back2 = (error @ here["w3"].T) * (h2 > 0)
        back1 = (back2 @ here["w2"].T) * (h1 > 0)
        slopes = {"w3": h2.T @ error, "b3": error.sum(0), "w2": h1.T @ back2, "b2": back2.sum(0)}
        slopes |= {"w1": x.T @ back1, "b1": back1.sum(0)}
        for name, slope in slopes.items():
            if only and name != only:
                continue
            first[name] = 0.9 * first[name] + 0.1 * slope
            second[name] = 0.999 * second[name] + 0.001 * slope**2
            steady = np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8
            here[name] -= (rate * 0.1 * first[name] / (1 - 0.9**step) / steady).astype("float32")
    return here


def _forest(seed: int, trees: int) -> bytes:
    """Return a pickled forest; with the same seed a larger one begins with the trees of the smaller."""
    random = np.random.default_rng(seed)
    x = np.random.default_rng(0).standard_normal((3000, 16))
    y = (np.sin(x[:, 0] * 2) + x[:, 1] * x[:, 2] + 0.1 * x[:, 3] > 0).astype(float)
    return pickle.dumps({"kind": "forest", "trees": [_tree(random, x, y) for _ in range(trees)]}, protocol=5)


def _tree(random: np.random.Generator, x: Array, y: Array) -> dict[str, Array]:
    rows: list[tuple[int, float, int, int, float]] = []

    def grow(chosen: Array, depth: int) -> int:
        number = len(rows)
        rows.append((-1, 0.0, -1, -1, float(y[chosen].mean())))
        if depth and len(chosen) > 8:
            feature = int(random.integers(x.shape[1]))
            threshold = float(x[random.choice(chosen), feature])
            left = x[chosen, feature] <= threshold
            if 0 < left.sum() < len(chosen):
                value = rows[number][4]
                sides = grow(chosen[left], depth - 1), grow(chosen[~left], depth - 1)
                rows[number] = (feature, threshold, *sides, value)
        return number

    grow(random.integers(0, len(x), len(x)), 10)
    feature, threshold, left, right, value = zip(*rows, strict=True)
    return {
        "feature": np.array(feature, "int32"),
        "threshold": np.array(threshold),
        "left": np.array(left, "int32"),
        "right": np.array(right, "int32"),
        "value": np.array(value),
    }


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
