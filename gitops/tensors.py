"""Where the numbers stand in a model file: safetensors and ONNX, read without their libraries.

Source: the safetensors format; onnx.proto3 (ModelProto, GraphProto, TensorProto); the protobuf wire format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from agent.delta import BYTES, FLOAT16, FLOAT32, FLOAT64, INT16, INT32
from gitops.protobuf import BadProtobuf, fields

_SAFETENSORS: Final = {
    "F64": FLOAT64, "F32": FLOAT32, "F16": FLOAT16, "BF16": FLOAT16, "I64": INT32, "U64": INT32, "I32": INT32,
    "U32": INT32, "I16": INT16, "U16": INT16,
}  # fmt: skip
_ONNX: Final = {1: FLOAT32, 4: INT16, 5: INT16, 6: INT32, 7: INT32, 10: FLOAT16, 11: FLOAT64, 12: INT32, 16: FLOAT16}
_MOST_HEADER_BYTES: Final = 100 << 20


@dataclass(frozen=True, slots=True)
class Span:
    """The numbers of one tensor.

    Attributes:
        kind: of numbers, as agent/delta.py names them.
        place: of the first byte in the file.
        length: in bytes.
    """

    name: str
    kind: int
    place: int
    length: int


def tensor_spans(data: memoryview) -> list[Span]:
    """Return the tensors of a model file in the order of their places; nothing where it is of another format."""
    found = list(_safetensors(data)) or list(_onnx(data))
    found = [one for one in found if one.length and one.place + one.length <= len(data)]
    found.sort(key=lambda one: one.place)
    apart = all(one.place + one.length <= other.place for one, other in pairwise(found))
    return found if apart else []


def safetensors_header(data: memoryview) -> dict[str, dict[str, object]]:
    """Return the header of a safetensors file; empty where it is none."""
    size = int.from_bytes(data[:8], "little") if len(data) > 8 else 0
    if not 2 <= size <= min(len(data) - 8, _MOST_HEADER_BYTES) or data[8] != ord("{"):
        return {}
    try:
        header = json.loads(bytes(data[8 : 8 + size]))
    except (ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


def _safetensors(data: memoryview) -> Iterator[Span]:
    start = 8 + int.from_bytes(data[:8], "little")
    for name, one in safetensors_header(data).items():
        offsets = one.get("data_offsets") if isinstance(one, dict) else None
        if isinstance(offsets, list) and len(offsets) == 2 and all(type(place) is int for place in offsets):
            first, end = offsets
            if 0 <= first <= end:
                yield Span(name, _SAFETENSORS.get(str(one.get("dtype")), BYTES), start + first, end - first)


def _onnx(data: memoryview) -> Iterator[Span]:
    try:
        for graph in fields(data):
            if graph.number != 7 or graph.data is None:
                continue
            for tensor in fields(graph.data, graph.place):
                if tensor.number == 5 and tensor.data is not None:
                    yield from _tensor(tensor.data, tensor.place)
    except BadProtobuf:
        return


def _tensor(data: memoryview, place: int) -> Iterator[Span]:
    name, kind, found = "", BYTES, None
    for one in fields(data, place):
        if one.number == 2 and one.data is None:
            kind = _ONNX.get(one.value, BYTES)
        elif one.number == 8 and one.data is not None:
            name = bytes(one.data).decode(errors="replace")
        elif one.number in (4, 9, 10) and one.data is not None:  # raw_data, or packed floats or doubles
            found = one
    if found is not None and found.data is not None:
        yield Span(name, kind, found.place, len(found.data))
