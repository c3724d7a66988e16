"""Fields of a protobuf message, by number: enough of the wire format to look into a file without its schema's library.

Source: the protobuf encoding, wire types 0, 1, 2 and 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


class BadProtobuf(Exception):
    """The bytes are no protobuf message. It never leaves the modules that read model files."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field as it stands in the message.

    Attributes:
        value: of a number; 0 for what has bytes.
        data: of a length-delimited field; None for a number.
        place: of ``data`` in the file.
    """

    number: int
    value: int
    data: memoryview | None
    place: int


def fields(data: memoryview, place: int = 0) -> Iterator[Field]:
    """Give the fields of a message in their order.

    Args:
        data: the message.
        place: where it begins in the file.

    Raises:
        BadProtobuf: it is none.
    """
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise BadProtobuf("field 0")
        if wire == 0:
            value, at = varint(data, at)
            yield Field(number, value, None, 0)
        elif wire == 2:
            size, at = varint(data, at)
            if at + size > len(data):
                raise BadProtobuf("a field that leaves its message")
            yield Field(number, 0, data[at : at + size], place + at)
            at += size
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            if at + size > len(data):
                raise BadProtobuf("a number that leaves its message")
            yield Field(number, int.from_bytes(data[at : at + size], "little"), None, 0)
            at += size
        else:
            raise BadProtobuf(f"wire type {wire}")


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return a number and where it ends.

    Raises:
        BadProtobuf: there is none.
    """
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise BadProtobuf("a number without an end")
