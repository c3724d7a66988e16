"""First process of a node, in namespaces of its own: gives it its disk as root, starts its daemons, reaps.

``python -m tests.cluster.node_init NODE.json``, started by node.py. When it is killed the kernel kills everything
in the node: that is the power cut.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.cluster import cgroups

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The kubelet wants these settings of the whole machine; it finds them as it likes and need not write them.
_WANTED: Final = {"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
_FROM_MACHINE: Final = ("passwd", "group", "nsswitch.conf", "protocols", "services", "ld.so.cache")


def main() -> None:
    """Boot the node; returns never."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    root = Path(settings["root"])
    os.umask(0o022)
    cgroups.move_here(f"{settings['cgroup']}/system")
    _run("hostname", settings["name"])
    _mount_root(root, settings["binds"])
    _mount_proc(root, settings["memory_mib"])
    os.chdir(root)
    # Both roots on one place, then the lower one goes: what runs here sees the node's disk alone.
    _run("pivot_root", ".", ".")
    _run("umount", "-l", ".")
    os.chdir("/")
    _run("mount", "--make-rshared", "/")
    _run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    _start_daemons(settings["daemons"], Path(settings["socket"]), settings["images"])
    print("booted", flush=True)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(3600)


def _mount_root(root: Path, binds: Mapping[str, str]) -> None:
    _run("mount", "--bind", root, root)
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr"):
        theirs = Path("/", name)
        if theirs.is_symlink() and not (root / name).is_symlink():
            (root / name).symlink_to(theirs.readlink())
        elif theirs.is_dir() and not theirs.is_symlink():
            _bind(theirs, root / name, "ro")
    for name, source in binds.items():
        _bind(Path(source), root / name.lstrip("/"), "ro")
    for name in ("etc", "tmp", "var/log"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in _FROM_MACHINE:
        if Path("/etc", name).exists():
            shutil.copyfile(Path("/etc", name), root / "etc" / name)
    # On Debian iptables is a link into it.
    if Path("/etc/alternatives").is_dir():
        _bind(Path("/etc/alternatives"), root / "etc/alternatives", "ro")
    for name in ("dev", "sys"):
        (root / name).mkdir(exist_ok=True)
        _run("mount", "--rbind", f"/{name}", root / name)
    (root / "run").mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "tmpfs", root / "run")


def _mount_proc(root: Path, memory_mib: int) -> None:
    proc = root / "proc"
    proc.mkdir(exist_ok=True)
    _run("mount", "-t", "proc", "proc", proc)
    shown = root / "run" / "shown"
    shown.mkdir()
    for name, value in _WANTED.items():
        file = shown / name.replace("/", ".")
        file.write_text(f"{value}\n")
        _run("mount", "--bind", file, proc / "sys" / name)
    if memory_mib:
        lines = (proc / "meminfo").read_text().splitlines()
        total = f"{memory_mib << 10} kB"
        small = {"MemTotal": total, "MemFree": total, "MemAvailable": total}
        (shown / "meminfo").write_text(
            "".join(
                f"{key}:\t{small.get(key, value.strip())}\n" for key, _, value in (one.partition(":") for one in lines)
            )
        )
        _run("mount", "--bind", shown / "meminfo", proc / "meminfo")


def _start_daemons(daemons: Mapping[str, Sequence[str]], socket: Path, images: Sequence[str]) -> None:
    for index, (name, command) in enumerate(daemons.items()):
        with Path("/var/log", f"{name}.log").open("ab") as log:
            environment = {"PATH": f"{Path(command[0]).parent}:{_PATH}"}
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        if index == 0:
            while not socket.is_socket():
                if process.poll() is not None:
                    raise SystemExit(f"{name} ended: see its log")
                time.sleep(0.03)
            tool = Path(command[0]).parent / "ctr"
            for image in images:
                if Path(image).exists():
                    _run(tool, f"--address={socket}", "--namespace=k8s.io", "images", "import", image)
                    Path(image).unlink()


def _bind(source: Path, target: Path, mode: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    _run("mount", "--bind", source, target)
    _run("mount", "-o", f"remount,bind,{mode}", target)


def _run(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


if __name__ == "__main__":
    main()
