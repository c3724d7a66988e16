"""Which accelerators a machine shows: by files of the kernel and of the drivers, without their makers' libraries.

NVIDIA: ``/proc/driver/nvidia``, and ``nvidia-smi`` for the memory where it is there. AMD and Intel: display devices in
``/sys/class/drm`` by vendor and driver. Jetson: the device tree.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

_VENDORS: Final = {"0x1002": "amd", "0x8086": "intel"}
_DRIVERS: Final = {"amd": ("amdgpu",), "intel": ("i915", "xe")}
_SMI_TIMEOUT_S: Final = 10.0


def accelerators(root: Path, memory_bytes: int) -> dict[str, str]:
    """Return the facts ``accelerator.*`` of one machine; ``accelerator.kind`` is empty where there is none.

    Args:
        root: where ``/proc`` and ``/sys`` are; ``nvidia-smi`` is asked only at ``/``.
        memory_bytes: of the machine: a Jetson's accelerator shares it.
    """
    found: dict[str, str] = {}
    kinds = {**_jetson(root, memory_bytes), **_display(root)}
    if "jetson" not in kinds:
        kinds |= _nvidia(root)
    for kind, facts in kinds.items():
        found.update({f"accelerator.{kind}.{name}": value for name, value in facts.items() if value})
    found["accelerator.kind"] = ",".join(sorted(kinds))
    found["accelerator.count"] = str(sum(int(facts["count"]) for facts in kinds.values()))
    memories = [int(facts["memory"]) for facts in kinds.values() if facts.get("memory")]
    if memories:
        found["accelerator.memory"] = str(max(memories))
    return found


def _nvidia(root: Path) -> dict[str, dict[str, str]]:
    cards = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    if not cards:
        return {}
    models = {m[1].strip() for card in cards if (m := re.search(r"^Model:\s*(.+)$", _text(card), re.MULTILINE))}
    driver = re.search(r"Kernel Module\D*?\s([0-9]+(?:\.[0-9]+)+)\s", _text(root / "proc/driver/nvidia/version"))
    facts = {"count": str(len(cards)), "model": _listed(models), "driver": driver[1] if driver else ""}
    if root == Path("/"):
        facts["memory"] = _smi_memory()
    return {"nvidia": facts}


def _smi_memory() -> str:
    """Return the memory of the largest card in bytes; empty where ``nvidia-smi`` does not tell."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    sizes = [int(line) for line in asked.stdout.split() if line.isdigit()]
    return str(max(sizes) << 20) if sizes else ""


def _display(root: Path) -> dict[str, dict[str, str]]:
    kinds: dict[str, dict[str, str]] = {}
    for card in sorted((root / "sys/class/drm").glob("card[0-9]*")):
        if not card.name.removeprefix("card").isdigit():
            continue  # card0-HDMI-A-1 is a socket of it
        kind = _VENDORS.get(_text(card / "device/vendor").strip())
        driver = re.search(r"^DRIVER=(\S+)$", _text(card / "device/uevent"), re.MULTILINE)
        if kind is None or driver is None or driver[1] not in _DRIVERS[kind]:
            continue
        facts = kinds.setdefault(kind, {"count": "0", "model": "", "memory": "", "driver": ""})
        facts["count"] = str(int(facts["count"]) + 1)
        name = _text(card / "device/product_name").strip()
        facts["model"] = _listed({one for one in (*facts["model"].split(","), name) if one})
        memory = _text(card / "device/mem_info_vram_total").strip()
        if memory.isdigit():
            facts["memory"] = str(max(int(memory), int(facts["memory"] or 0)))
        version = _text(root / "sys/module" / driver[1] / "version").strip()
        facts["driver"] = version or facts["driver"]
    return kinds


def _jetson(root: Path, memory_bytes: int) -> dict[str, dict[str, str]]:
    tree = root / "proc/device-tree"
    model, compatible = (_text(tree / name).replace("\0", " ").strip() for name in ("model", "compatible"))
    if "Jetson" not in model and "nvidia,tegra" not in compatible:
        return {}
    version = re.search(r"# R(\d+) \(release\), REVISION: ([0-9.]+)", _text(root / "etc/nv_tegra_release"))
    return {
        "jetson": {
            "count": "1",
            "model": _listed({model}),
            "memory": str(memory_bytes) if memory_bytes else "",
            "driver": f"{version[1]}.{version[2]}" if version else "",
        }
    }


def _listed(names: set[str]) -> str:
    """Return names as a list fact: commas separate its items."""
    return ",".join(sorted(re.sub(r"[,\s]+", " ", name).strip() for name in names if name.strip()))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
