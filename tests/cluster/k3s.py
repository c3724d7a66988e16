"""Real K3s in a site: the ``k3s`` that is on PATH, in place of our control plane and daemons.

No index that the tests' machines reach serves K3s, so this module runs only where somebody has installed it; the
workflow .github/workflows/k3s.yaml does.
"""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from tests.cluster import addresses, disk, layout
from tests.cluster.binary import Unavailable

if TYPE_CHECKING:
    from tests.cluster.control_plane import ControlPlane
    from tests.cluster.node import Node

_BINARY: Final = "/parts/k3s"
_TOKEN: Final = "test-bed"
# What needs images from the internet, or answers on the machine's own addresses.
_WITHOUT: Final = ("coredns", "local-storage", "metrics-server", "servicelb", "traefik")


def find() -> Path:
    """Return the binary.

    Raises:
        Unavailable: there is none on PATH.
    """
    found = shutil.which("k3s")
    if not found:
        raise Unavailable("there is no `k3s` on PATH: install K3s, or take --kind k3s-shaped, which is not K3s")
    return Path(found).resolve()


def install(node: Node) -> dict[str, Any]:
    """Write the disk of a node that runs K3s; return its settings for node_init."""
    mirrors = {addresses.REGISTRY: {"endpoint": [f"http://{addresses.REGISTRY}"]}}
    disk.write(node.disk, "/etc/rancher/k3s/registries.yaml", json.dumps({"mirrors": mirrors}, indent=2))
    disk.write_names(node)
    disk.pack_sandbox(node.disk / "var/lib/rancher/k3s/agent/images/sandbox.tar")
    common = [
        f"--node-name={node.name}",
        f"--node-ip={node.address}",
        f"--token={_TOKEN}",
        f"--pause-image={layout.SANDBOX}",
        "--flannel-iface=" + ("lan" if node.index == 1 else "eth0"),
        f"--kubelet-arg=cgroup-root=/{node.cgroup}",
        "--kubelet-arg=feature-gates=ImageVolume=true",
    ]
    server = [
        f"--https-listen-port={addresses.API_PORT}",
        f"--advertise-address={node.address}",
        f"--cluster-cidr={addresses.pods(node.site)}",
        f"--service-cidr={addresses.services(node.site)}",
        f"--cluster-dns={addresses.node(node.site, 1)}",
        "--flannel-backend=host-gw",
        "--kube-apiserver-arg=feature-gates=ImageVolume=true",
        *(f"--disable={one}" for one in _WITHOUT),
    ]
    program = f"{_BINARY}/{find().name}"
    command = [program, "server", *common, *server]
    if node.index > 1:
        command = [program, "agent", f"--server={node.cluster.inside_url}", *common]
    return disk.settings(node, {_BINARY: str(find().parent)}, {"k3s": command}, [])


def take_up(cluster: ControlPlane, node: Node) -> bool:
    """Take the administrator's keys that K3s made on its first node; return whether they are there yet."""
    path = node.disk / "etc/rancher/k3s/k3s.yaml"
    if not path.exists():
        return False
    document = yaml.safe_load(path.read_text()) or {}
    try:
        theirs = {**document["clusters"][0]["cluster"], **document["users"][0]["user"]}
        keys = {
            "ca.crt": theirs["certificate-authority-data"],
            "admin.crt": theirs["client-certificate-data"],
            "admin.key": theirs["client-key-data"],
        }
    except (KeyError, IndexError, TypeError):
        return False
    for name, text in keys.items():
        disk.write(cluster.folder / "pki", name, base64.b64decode(text).decode())
    return True
