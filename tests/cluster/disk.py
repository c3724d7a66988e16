"""What stands on a new node's disk: keys, configurations, the image that every pod begins with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tests.cluster import addresses, binary, control_plane, images, layout, tools
from tests.cluster.certificates import Authority

if TYPE_CHECKING:
    from tests.cluster.node import Node


def install(node: Node) -> dict[str, Any]:
    """Write the disk of a node whose daemons are ours; return its settings for node_init.

    Raises:
        binary.Unavailable: a part is missing.
    """
    _write_keys(node)
    etc, keys = node.layout.etc, node.layout.keys
    write(node.disk, f"{etc}/containerd/config.toml", layout.containerd(node.layout))
    write(node.disk, f"{etc}/cni/net.d/10-pods.conflist", layout.network(node.site, node.index))
    write(node.disk, f"{keys}/kubelet.yaml", layout.kubelet(node.layout, node.site, node.cgroup, node.memory_mib))
    write(node.disk, f"{keys}/proxy.yaml", layout.proxy(node.layout, node.site, node.name))
    write_names(node)
    node.trust_registry(addresses.REGISTRY)
    pack_sandbox(node.disk / "sandbox.tar")
    kubernetes = f"{layout.COMPONENTS}/{node.cluster.binary.name}"
    binds = {
        layout.COMPONENTS: str(node.cluster.binary.parent),
        layout.RUNTIME: str(binary.find(binary.NODE).parent),
    }
    if node.index == 1 and node.layout.server:
        (node.cluster.folder / "server").mkdir(exist_ok=True)
        binds[node.layout.server] = str(node.cluster.folder / "server")
    daemons = {
        "containerd": [f"{layout.RUNTIME}/containerd", "-c", f"{etc}/containerd/config.toml"],
        "kubelet": [
            kubernetes,
            "kubelet",
            f"--config={keys}/kubelet.yaml",
            f"--kubeconfig={keys}/kubelet.kubeconfig",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
            f"--root-dir={layout.KUBELET_ROOT}",
            f"--cert-dir={keys}",
        ],
        "kube-proxy": [kubernetes, "kube-proxy", f"--config={keys}/proxy.yaml"],
    }
    return settings(node, binds, daemons, ["/sandbox.tar"])


def settings(node: Node, binds: dict[str, str], daemons: dict[str, list[str]], archives: list[str]) -> dict[str, Any]:
    """Return what node_init reads.

    Args:
        node: to boot.
        binds: path on the node → folder of the machine, read-only there.
        daemons: name → command; when the first one's socket is there the images are imported and the others start.
        archives: images on the disk to import at the first boot, with the ``ctr`` beside the first daemon.
    """
    return {
        "name": node.name,
        "root": str(node.disk),
        "cgroup": node.cgroup,
        "memory_mib": node.memory_mib,
        "socket": node.layout.socket,
        "images": archives,
        "binds": binds,
        "daemons": daemons,
    }


def write_names(node: Node) -> None:
    """Write what every Linux host has: its name, and no name server but the cluster's."""
    write(node.disk, "/etc/resolv.conf", "")
    write(node.disk, "/etc/hosts", f"127.0.0.1 localhost\n{node.address} {node.name}\n")
    write(node.disk, "/etc/hostname", f"{node.name}\n")


def pack_sandbox(path: Path) -> None:
    """Write the archive of the image that every pod begins with, so that a site needs no registry for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        pause = {"pause": tools.compiled("pause").read_bytes()}
        images.pack(Path(folder), layout.SANDBOX, pause, {"Entrypoint": ["/pause"]})
        images.archive(Path(folder), layout.SANDBOX, path)


def write(disk: Path, name: str, text: str) -> None:
    """Write a file that only root reads."""
    path = disk / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
        file.write(text)


def _write_keys(node: Node) -> None:
    keys = node.disk / node.layout.keys.lstrip("/")
    keys.mkdir(parents=True, exist_ok=True)
    pki = node.cluster.folder / "pki"
    authority = Authority(pki)
    user = f"system:node:{node.name}"
    authority.client(f"kubelet-{node.name}", user, ["system:nodes"])
    authority.server(f"kubelet-server-{node.name}", user, [node.name, node.address], ["system:nodes"])
    authority.client("proxy", "system:kube-proxy")
    theirs = {"kubelet": f"kubelet-{node.name}", "kubelet-server": f"kubelet-server-{node.name}", "proxy": "proxy"}
    if node.index == 1:
        theirs["admin"] = "admin"
    shutil.copyfile(pki / "ca.crt", keys / "ca.crt")
    for name, source in theirs.items():
        for ending in ("crt", "key"):
            shutil.copy(pki / f"{source}.{ending}", keys / f"{name}.{ending}")
    files = {"kubelet": f"{node.layout.keys}/kubelet.kubeconfig", "proxy": f"{node.layout.keys}/proxy.kubeconfig"}
    if node.index == 1:
        files["admin"] = node.layout.admin
    for who, name in files.items():
        write(node.disk, name, control_plane.kubeconfig(node.cluster.inside_url, node.layout.keys, who))
