"""Two files → the smallest delta that this version can make between them, measured.

Run as a program it makes one delta, so that its memory is gone afterwards: ``python -m gitops.delta_encode OLD NEW
DELTA`` prints the codec and the size; OLD is empty for a delta from nothing, which is the new file packed.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.delta import BYTES, DATA, MOST_PREFIX_BYTES, Instruction
from gitops.delta_match import MOST_BSDIFF_BYTES, match_bytes, match_same_size, match_tensors
from gitops.delta_records import Bytes, Prefix, Slice, no_prefix, write_delta

MOST_PREFIXED_BYTES: Final = 128 << 20
"""Above this, packing with slices of the old file takes longer than it is worth."""

_MATCHED: Final = 0.9
_GOOD: Final = 0.02
"""A delta below this share of the file is good enough: nothing else is tried."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A delta in a file.

    Attributes:
        codec: ``blocks``, ``bsdiff``, ``patch-from`` or ``zstd``, for people: one decoder reads them all.
    """

    codec: str
    size_bytes: int


def encode(old: Path | None, new: Path, delta: Path) -> Encoded:
    """Write the smallest delta that is found to ``delta``, replacing it.

    Args:
        old: the file that the other side has; None for nothing.
        new: the file that it is to have.
        delta: where to; its directory must take a second file beside it.
    """
    best: Encoded | None = None
    beside = delta.with_name(f"{delta.name}.try")
    with mapped(old) as before, mapped(new) as after:
        try:
            for codec, instructions, prefix in _candidates(before, after):
                if best is not None and best.size_bytes < _GOOD * len(after):
                    break
                with beside.open("wb") as out:
                    found = Encoded(codec, write_delta(before, after, instructions, out, prefix))
                if best is None or found.size_bytes < best.size_bytes:
                    best = found
                    beside.rename(delta)
        finally:
            beside.unlink(missing_ok=True)
    assert best is not None
    return best


@contextmanager
def mapped(path: Path | None) -> Iterator[memoryview]:
    """Give the bytes of a file, empty for None, without reading them all into memory."""
    if path is None or path.stat().st_size == 0:
        yield memoryview(b"")
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as found:
        view = memoryview(found)
        try:
            yield view
        finally:
            with suppress(BufferError):
                view.release()


def _candidates(old: memoryview, new: memoryview) -> Iterator[tuple[str, list[Instruction], Prefix]]:
    whole = [Instruction(DATA, len(new))] if len(new) else []
    if not len(old) or not len(new):
        yield "zstd", whole, no_prefix
        return
    blocks, matched = match_tensors(old, new), 0
    if blocks is not None:
        yield "blocks", blocks, no_prefix
        matched = sum(one.length for one in blocks if one.kind not in (DATA, BYTES))
        if matched > _MATCHED * len(new):
            return  # numbers of several bytes against numbers: nothing that looks at bytes does better
    alike = match_same_size(old, new) if blocks is None else None
    if alike is not None:
        yield "blocks", alike, no_prefix
    if max(len(old), len(new)) <= MOST_BSDIFF_BYTES:
        yield "bsdiff", match_bytes(old, new), no_prefix
    if len(old) <= MOST_PREFIXED_BYTES and (blocks is None or matched < _MATCHED / 2 * len(new)):
        yield "patch-from", whole, lambda place, length: _window(old, new, place, length)


def _window(old: Bytes, new: Bytes, place: int, length: int) -> Slice:
    """Return the slice of the old file around where a piece of the new one would stand in it."""
    size = min(len(old), MOST_PREFIX_BYTES)
    middle = (place + length // 2) * len(old) // max(1, len(new))
    return Slice(min(max(0, middle - size // 2), len(old) - size), size)


def main(words: list[str]) -> int:
    """Make one delta; see above."""
    os.nice(10)
    old, new, delta = words
    found = encode(Path(old) if old else None, Path(new), Path(delta))
    print(found.codec, found.size_bytes)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
