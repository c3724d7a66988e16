"""What a new model version costs on the wire: our deltas beside other codecs, on models trained here.

transfer-PAIR is (bytes on the wire − 4 KiB) ÷ the best of the codecs that rebuild that pair within 64 MiB; the
references are bytes. transfer-PAIR-encode and -decode are CPU seconds and transfer-PAIR-memory is the peak of the
process that rebuilds, Python included.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import bsdiff4
import zstandard

from bench.figure import figure
from bench.models import pairs

_FREE_BYTES: Final = 4096
_MEMORY_MIB: Final = 64
_CHUNK_MASK: Final = (1 << 16) - 1

_MEASURED: Final = """
import json, resource, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
used = resource.getrusage(resource.RUSAGE_SELF)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # since this program began
print(json.dumps({"cpu_s": used.ru_utime + used.ru_stime, "peak_mib": int(peak.split()[1]) / 1024}))
"""


def measured(*words: str) -> tuple[float, float]:
    """Run a module as a program; return its CPU time in s and its peak memory in MiB."""
    run = subprocess.run([sys.executable, "-c", _MEASURED, *words], capture_output=True, text=True, check=True)
    found = json.loads(run.stdout.splitlines()[-1])
    return found["cpu_s"], found["peak_mib"]


def references(old: bytes, new: bytes) -> dict[str, int]:
    """Return codec → bytes on the wire."""
    window = max(10, (len(old) + len(new)).bit_length())
    settings = zstandard.ZstdCompressionParameters.from_level(19, window_log=window, enable_ldm=True)
    known = zstandard.ZstdCompressionDict(old, zstandard.DICT_TYPE_RAWCONTENT)
    return {
        "zstd": len(zstandard.compress(new, 19)),
        "patch-from": len(zstandard.ZstdCompressor(compression_params=settings, dict_data=known).compress(new)),
        "bsdiff4": len(bsdiff4.diff(old, new)),
        "chunks": _chunked(old, new),
    }


def _chunked(old: bytes, new: bytes) -> int:
    """Return the bytes of a content-defined chunk dedupe: 64 KiB on average, new chunks packed, 36 bytes each named."""
    have = {hashlib.sha256(chunk).digest() for chunk in _chunks(old)}
    size = 0
    for chunk in _chunks(new):
        name = hashlib.sha256(chunk).digest()
        size += 36 + (0 if name in have else len(zstandard.compress(chunk, 19)))
        have.add(name)
    return size


def _chunks(data: bytes) -> list[bytes]:
    # Cut where the checksum of 64 bytes has 16 zero bits, looked at where a byte pair allows it: quick enough here.
    found, first = [], 0
    for match in re.finditer(rb"(?s)[\x00-\x0f].", data):
        at = match.start()
        if at - first >= 16384 and (zlib.crc32(data[at : at + 64]) & (_CHUNK_MASK >> 4)) == 0:
            found.append(data[first:at])
            first = at
    return [*found, data[first:]]


def run(name: str, old: bytes, new: bytes) -> None:
    """Print the figures of one pair."""
    with tempfile.TemporaryDirectory() as folder:
        before, after, delta, rebuilt = (Path(folder, part) for part in ("old", "new", "delta", "rebuilt"))
        before.write_bytes(old)
        after.write_bytes(new)
        encode_s, _ = measured("gitops.delta_encode", str(before), str(after), str(delta))
        decode_s, peak_mib = measured("agent.delta", str(before), str(delta), str(rebuilt), str(len(new)))
        if rebuilt.read_bytes() != new:
            raise SystemExit(f"{name}: rebuilt other bytes")
        wire = delta.stat().st_size
    others: Mapping[str, float] = references(old, new)
    best = min(others.values())
    note = f"{wire} of {len(new)} bytes; references in bytes"
    figure(f"transfer-{name}", max(0, wire - _FREE_BYTES) / best, "ratio", 1.1, others, note)
    figure(f"transfer-{name}-encode", encode_s, "s CPU", None, {})
    figure(f"transfer-{name}-decode", decode_s, "s CPU", None, {})
    figure(f"transfer-{name}-memory", peak_mib, "MiB", _MEMORY_MIB, {})


def main() -> None:
    """Print the figures of the pairs that are named, or of all."""
    found = pairs()
    for name in sys.argv[1:] or found:
        run(name, *found[name]())


if __name__ == "__main__":
    main()
