"""What a model file says of itself: format, precision, parameters, inputs and outputs; from its header alone.

Source: the safetensors format; onnx.proto3 (ModelProto, GraphProto, ValueInfoProto); the GGUF magic.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gitops.protobuf import BadProtobuf, fields, varint
from gitops.tensors import safetensors_header

_ONNX_TYPES: Final = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip
_SAFETENSORS: Final = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output: ``shape`` has a name or ``?`` where a size is open."""

    name: str
    type: str
    shape: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a file says; empty and 0 where it does not.

    Attributes:
        format: ``onnx``, ``safetensors``, ``gguf``, or empty.
        precision: type of most of the parameters.
        parameters: how many numbers it holds.
    """

    format: str = ""
    precision: str = ""
    parameters: int = 0
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()


def read_facts(data: memoryview) -> ModelFacts:
    """Return what a model file says of itself; nothing for a file of another format, never a fault."""
    header = safetensors_header(data)
    if header:
        return _safetensors(header)
    if bytes(data[:4]) == b"GGUF":
        return ModelFacts("gguf")
    try:
        return _onnx(data)
    except BadProtobuf:
        return ModelFacts()


def _safetensors(header: dict[str, dict[str, object]]) -> ModelFacts:
    count: Counter[str] = Counter()
    for name, one in header.items():
        shape = one.get("shape") if isinstance(one, dict) and name != "__metadata__" else None
        if isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape):
            count[_SAFETENSORS.get(str(one.get("dtype")), str(one.get("dtype"))[:16])] += math.prod(shape)
    return ModelFacts("safetensors", _most(count), count.total())


def _onnx(data: memoryview) -> ModelFacts:
    graph = next((one for one in fields(data) if one.number == 7 and one.data is not None), None)
    if graph is None or graph.data is None or not any(one.number == 8 for one in fields(data)):  # opset_import
        return ModelFacts()
    count: Counter[str] = Counter()
    ports: dict[int, list[Port]] = {11: [], 12: []}
    held: set[str] = set()
    for one in fields(graph.data):
        if one.data is None:
            continue
        if one.number == 5:
            kind, size, name = _tensor(one.data)
            count[kind] += size
            held.add(name)
        elif one.number in ports:
            ports[one.number].append(_port(one.data))
    inputs = tuple(port for port in ports[11] if port.name not in held)
    return ModelFacts("onnx", _most(count), count.total(), inputs, tuple(ports[12]))


def _tensor(data: memoryview) -> tuple[str, int, str]:
    kind, size, name = "", 1, ""
    for one in fields(data):
        if one.number == 1 and one.data is None:
            size *= one.value
        elif one.number == 1 and one.data is not None:
            for number in _packed(one.data):
                size *= number
        elif one.number == 2:
            kind = _ONNX_TYPES.get(one.value, f"type {one.value}")
        elif one.number == 8 and one.data is not None:
            name = bytes(one.data).decode(errors="replace")
    return kind, min(size, 1 << 50), name


def _packed(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = varint(data, at)
        yield value


def _port(data: memoryview) -> Port:
    name, kind, shape = "", "", []
    for one in fields(data):
        if one.number == 1 and one.data is not None:
            name = bytes(one.data).decode(errors="replace")
        elif one.number == 2 and one.data is not None:
            for tensor in fields(one.data):
                for part in fields(tensor.data) if tensor.number == 1 and tensor.data is not None else ():
                    if part.number == 1 and part.data is None:
                        kind = _ONNX_TYPES.get(part.value, f"type {part.value}")
                    elif part.number == 2 and part.data is not None:
                        shape = [_size(dim.data) for dim in fields(part.data) if dim.data is not None]
    return Port(name[:200], kind, tuple(shape))


def _size(data: memoryview) -> str:
    for one in fields(data):
        if one.number == 1 and one.data is None:
            return str(one.value) if one.value < 1 << 62 else "?"
        if one.number == 2 and one.data is not None:
            return bytes(one.data).decode(errors="replace")[:40]
    return "?"


def _most(count: Counter[str]) -> str:
    return count.most_common(1)[0][0] if count else ""
