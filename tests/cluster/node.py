"""One node of a site: its disk, its certificates, its link, its power."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from tests.cluster import addresses, cgroups, control_plane, disk, k3s, layout, namespaces, processes
from tests.cluster.control_plane import ControlPlane
from tests.cluster.layout import Layout

_NAME: Final = "node"
# A table that is restored loses what it had.
_NO_RULES: Final = "".join(f"*{table}\nCOMMIT\n" for table in ("filter", "nat", "mangle"))
_ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Node:
    """A node. The first of a site stands in the site's own network namespace, a further one behind a link of its own.

    Attributes:
        folder: of its state; ``root`` in it is its disk, ``logs`` are of its boot, ``root/var/log`` of its daemons.
        cluster: that it belongs to.
        site: number of the site.
        index: within the site, from 1.
        cgroup: name of its control group.
        layout: of its files.
        memory_mib: what it has; 0: as much as the machine.
    """

    folder: Path
    cluster: ControlPlane
    site: int
    index: int
    cgroup: str
    layout: Layout
    memory_mib: int = 0

    @property
    def name(self) -> str:
        """Of the Node object."""
        return self.folder.name

    @property
    def address(self) -> str:
        """In the site's network."""
        return addresses.node(self.site, self.index)

    @property
    def disk(self) -> Path:
        """Its root directory; ``disk / "var/lib/x"`` is what pods see of hostPath /var/lib/x."""
        return self.folder / "root"

    @property
    def place(self) -> Path:
        """Folder whose process holds the network namespace that it stands in."""
        return self.cluster.folder if self.index == 1 else self.folder

    @property
    def is_on(self) -> bool:
        """Whether it has power."""
        return bool(processes.pid(self.folder, _NAME))

    @property
    def is_ready(self) -> bool:
        """Whether the API server says so, and heard it from the node since its last boot."""
        try:
            status, body = control_plane.request(self.cluster, "GET", f"/api/v1/nodes/{self.name}")
            booted = int((self.folder / "pids" / _NAME).stat().st_mtime)
        except OSError:
            return False
        conditions = json.loads(body)["status"].get("conditions", []) if status == 200 else []
        ready = [one for one in conditions if one["type"] == "Ready" and one["status"] == "True"]
        # Heartbeats are in whole seconds: one of the second of the boot may be from before it.
        return any(datetime.fromisoformat(one["lastHeartbeatTime"]).timestamp() > booted for one in ready)

    def install(self) -> None:
        """Write its disk, and lay its link; what is there already stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lay_link()
        if (self.folder / "node.json").exists():
            return
        settings = k3s.install(self) if self.cluster.k3s else disk.install(self)
        (self.folder / "node.json").write_text(json.dumps(settings, indent=2))

    def power_on(self) -> None:
        """Boot it, unless it runs; `wait` waits until it is ready."""
        if self.is_on:
            return
        cgroups.make(f"{self.cgroup}/system")
        if self.memory_mib:
            cgroups.limit_memory(self.cgroup, self.memory_mib)
        spaces = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        command: list[str | Path] = [
            *spaces,
            sys.executable,
            "-m",
            "tests.cluster.node_init",
            self.folder / "node.json",
        ]
        processes.start(
            self.folder,
            _NAME,
            command,
            dies_with_us=self.cluster.dies_with_us,
            environment={"PYTHONPATH": str(_ROOT)},
            enter=namespaces.enter(self.place),
        )

    def wait(self, limit_s: float = 90.0) -> None:
        """Wait until it is ready.

        Raises:
            processes.NotUp: it is not in time, or has no power.
        """
        processes.until(lambda: self.is_ready, f"node {self.name} to be Ready", self.folder, _NAME, limit_s)

    def power_off(self) -> None:
        """Cut the power: everything on it is killed at once, pods too, and its kernel forgets; the disk stays."""
        processes.stop(self.folder, _NAME)
        cgroups.remove(self.cgroup)
        for command in ("iptables-restore", "ip6tables-restore"):
            namespaces.run(self.place, [command], input=_NO_RULES)
        namespaces.run(self.place, ["ip", "link", "delete", "cni0"], check=False)
        namespaces.run(self.place, ["conntrack", "--flush"])

    def cut_link(self) -> None:
        """Cut its cable to the rest of the site. The first node has none."""
        self._set_link("down")

    def restore_link(self) -> None:
        """Plug its cable in again."""
        self._set_link("up")

    def uninstall(self) -> None:
        """Take it out of the cluster, a further node, and remove its disk and link."""
        self._set_link("down")
        control_plane.request(self.cluster, "DELETE", f"/api/v1/nodes/{self.name}")
        self.power_off()
        namespaces.configure(self.cluster.folder, f"link delete node-{self.index}")
        processes.stop(self.folder, "net")
        shutil.rmtree(self.folder)

    def trust_registry(self, host: str, hosts_toml: str = "") -> None:
        """Tell containerd how to reach a registry; it holds from the next pull on.

        Args:
            host: with port, as image names begin.
            hosts_toml: containerd's own format; without it the registry speaks plain HTTP.
        """
        folder = self.disk / self.layout.etc.lstrip("/") / "containerd" / "certs.d" / host
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts.toml").write_text(hosts_toml or layout.plain_registry(host))

    def _set_link(self, state: str) -> None:
        if self.index == 1:
            raise ValueError(f"{self.name} is the site's router: cut the site's link, or a further node's")
        namespaces.configure(self.cluster.folder, f"link set node-{self.index} {state}")

    def _lay_link(self) -> None:
        router, pods = self.cluster.folder, addresses.node_pods(self.site, self.index)
        if self.index == 1 or processes.pid(self.folder, "net"):
            return
        namespaces.hold(self.folder, dies_with_us=self.cluster.dies_with_us)
        port = f"node-{self.index}"
        namespaces.configure(
            router,
            f"link add {port} type veth peer name eth0 netns {processes.pid(self.folder, 'net')}",
            f"link set {port} master lan up",
            f"route replace {pods} via {self.address}",
        )
        namespaces.configure(
            self.folder,
            f"addr add {self.address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {addresses.node(self.site, 1)}",
        )
