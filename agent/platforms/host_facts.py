"""What one machine can tell of itself, cheaply: by files of the kernel, and by asking programs once per change."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.platforms.accelerators import accelerators

RUNTIMES: Final = ("containerd", "docker", "podman", "ollama", "tritonserver", "edgeferry-onnx-runtime")
"""Programs that run models, or containers, and tell their version by ``--version``."""

ARCHITECTURES: Final = {
    "x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386", "riscv64": "riscv64",
}  # fmt: skip
_TIMEOUT_S: Final = 5.0
_PERCENT: Final = 100


@dataclass(slots=True)
class HostFacts:
    """Measures one machine.

    Attributes:
        root: ``/``; a tree like it in tests.
        storage: directory that models are staged in.
    """

    storage: Path
    root: Path = Path("/")
    _versions: dict[str, tuple[tuple[str, int, int], str]] = field(default_factory=dict)

    def measure(self) -> Mapping[str, str]:
        """Return fact name → text, in the unit of the fact's definition; what cannot be measured is left out."""
        machine = platform.machine()
        memory = self._memory()
        found = {
            "arch": ARCHITECTURES.get(machine, machine),
            "os": platform.system().lower(),
            "kernel.version": platform.release(),
            "cpu.capacity": str(len(os.sched_getaffinity(0))),
            **({"memory.capacity": str(memory)} if memory else {}),
            **self._disk(),
            **accelerators(self.root, memory),
        }
        for program in RUNTIMES:
            version = self._version(program)
            if version:
                found[f"runtime.{program}.version"] = version
        return found

    def _memory(self) -> int:
        """Return bytes of main memory, or of the part of it that this control group may use; 0 for not known."""
        total = re.search(r"^MemTotal:\s+(\d+) kB$", _text(self.root / "proc/meminfo"), re.MULTILINE)
        sizes = [] if total is None else [int(total[1]) << 10]
        limit = _text(self.root / "sys/fs/cgroup/memory.max").strip()
        sizes += [int(limit)] if limit.isdigit() else []
        return min(sizes, default=0)

    def _disk(self) -> dict[str, str]:
        """Return size and free bytes of the disk; the free ones in steps of a percent, so that they seldom change."""
        try:
            seen = os.statvfs(self.storage)
        except OSError:
            return {}
        size, free = seen.f_blocks * seen.f_frsize, seen.f_bavail * seen.f_frsize
        step = max(1, size // _PERCENT)
        return {"disk.capacity": str(size), "disk.free": str(free // step * step)}

    def _version(self, program: str) -> str:
        """Return what a program calls its version; it is asked again only when its file changed."""
        path = shutil.which(program)
        if path is None:
            return ""
        try:
            seen = Path(path).stat()
            stamp = (path, seen.st_mtime_ns, seen.st_size)
            known = self._versions.get(program)
            if known is None or known[0] != stamp:
                command = [path, "--version"]
                asked = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
                match = re.search(r"v?(\d+(?:\.\d+)+[-+.\w]*)", asked.stdout + asked.stderr)
                known = self._versions[program] = stamp, match[1][:64] if match and not asked.returncode else ""
        except (OSError, subprocess.SubprocessError):
            return ""
        return known[1]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
