"""One site: a network namespace with a cluster of its own and a line to the hub."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster import addresses, binary, control_plane, k3s, layout, namespaces, processes
from tests.cluster.control_plane import ControlPlane
from tests.cluster.link import Link
from tests.cluster.node import Node

KINDS: Final = ("kubernetes", "k3s", "k3s-shaped")

_INFO: Final = "site.json"
_FORWARD: Final = Path(__file__).parent / "forward.py"


@dataclass(frozen=True, slots=True)
class Site:
    """A site; everything of it stands below ``folder``.

    Attributes:
        folder: named as the site.
        number: from 1; its addresses follow from it.
        kind: of ``KINDS``.
        cgroup: below which its nodes' control groups stand.
        dies_with_us: its processes end with the one that started them.
    """

    folder: Path
    number: int
    kind: str
    cgroup: str
    dies_with_us: bool

    @property
    def name(self) -> str:
        """Of the site."""
        return self.folder.name

    @property
    def cluster(self) -> ControlPlane:
        """Its control plane: URL, kubeconfig."""
        return control_plane.load(self.folder)

    @property
    def link(self) -> Link:
        """Its line to the hub."""
        return Link(self.folder)

    @property
    def nodes(self) -> list[Node]:
        """Its nodes, the first one first."""
        found = sorted(self.folder.glob("nodes/*/node.json"), key=lambda path: int(path.parent.name.rpartition("-")[2]))
        return [self._node(index, _memory(path)) for index, path in enumerate(found, start=1)]

    @property
    def network(self) -> AbstractContextManager[None]:
        """Within it this thread's new sockets stand at the site: Services and pods answer."""
        return namespaces.entered(self.folder)

    def run(self, command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command at the site, as `subprocess.run` does; output is text and captured, a failure raises."""
        return namespaces.run(self.folder, command, **options)

    def enter(self) -> list[str]:
        """Return the words to put before a command that is to run at the site."""
        return namespaces.enter(self.folder)

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> str:
        """Run kubectl as administrator and return what it prints.

        Args:
            arguments: of kubectl.
            stdin: what it reads.
            check: a failure raises.

        Raises:
            AssertionError: it failed; what it said is in the text.
        """
        command = [str(self.cluster.binary.parent / "kubectl"), f"--kubeconfig={self.cluster.kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def apply(self, *documents: Mapping[str, object]) -> None:
        """Apply objects, server-side."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def add_node(self, *, memory_mib: int = 0) -> Node:
        """Join one more node, behind a link of its own, and wait until it is ready (2 to 4 s).

        Args:
            memory_mib: that it has; 0: as much as the machine.
        """
        node = self._node(len(self.nodes) + 1, memory_mib)
        node.install()
        node.power_on()
        node.wait()
        return node

    def power_off(self) -> None:
        """Cut the power of everything at the site; disks stay. The line to the hub is the provider's and stays too."""
        for node in self.nodes:
            node.power_off()
        for name in ("dns", "scheduler", "controllers", "apiserver", "kine", "etcd"):
            processes.stop(self.folder, name)

    def power_on(self) -> None:
        """Give power back, and wait until every node is ready."""
        boot([self])

    def lay(self, hub: Path, binaries: Mapping[str, Path], memory_mib: int) -> None:
        """Make namespace, line, control plane's settings and first node's disk; what is there already stays.

        Args:
            hub: folder that holds the hub's network namespace.
            binaries: name of each part that this kind needs → its file.
            memory_mib: of its first node; 0: as much as the machine.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (self.folder / _INFO).exists():
            api, _ = control_plane.free_ports(2)
            cluster = ControlPlane(
                folder=self.folder,
                binary=binaries["kubecluster"],
                etcd_port=2379,
                peer_port=2380,
                api_port=api,
                controllers_port=10257,
                controllers=True,
                dies_with_us=self.dies_with_us,
                address=addresses.node(self.number, 1),
                services=addresses.services(self.number),
                nodes=True,
                kine=binaries.get("kine"),
                dns=binaries["coredns"],
                k3s=binaries.get("k3s"),
            )
            control_plane.save(cluster)
            (self.folder / _INFO).write_text(json.dumps(asdict(self), default=str, indent=2))
        self._lay_line(hub)
        self._forward()
        self._node(1, memory_mib).install()

    def take_up(self) -> None:
        """Wait until K3s has made its administrator's keys, and take them.

        Raises:
            processes.NotUp: it did not, within two minutes.
        """
        first = self.nodes[0]
        processes.until(lambda: k3s.take_up(self.cluster, first), "K3s's keys", first.folder, "node", limit_s=120.0)
        control_plane.write_kubeconfigs(self.cluster)

    def _lay_line(self, hub: Path) -> None:
        if processes.pid(self.folder, "net"):
            return
        namespaces.hold(self.folder, dies_with_us=self.dies_with_us)
        nets = (namespaces.path(hub), self.name, namespaces.path(self.folder), "wan")
        self.link.start(*nets, dies_with_us=self.dies_with_us)
        number, outside = self.number, addresses.site(self.number)
        namespaces.configure(hub, f"link set {self.name} master sites up")
        namespaces.configure(
            self.folder,
            f"addr add {outside}/24 dev wan",
            "link set wan up",
            f"route add default via {addresses.HUB}",
            "link add lan type bridge",
            f"addr add {addresses.node(number, 1)}/24 dev lan",
            "link set lan up",
        )
        inside = (addresses.lan(number), addresses.pods(number), addresses.services(number))
        namespaces.configure(hub, *(f"route add {network} via {outside}" for network in inside))

    def _forward(self) -> None:
        cluster = self.cluster
        route = f"{cluster.api_port}={cluster.address}:{addresses.API_PORT}"
        command: list[str | Path] = [sys.executable, "-S", "-E", _FORWARD, namespaces.path(self.folder), route]
        processes.start(self.folder, "forward", command, dies_with_us=self.dies_with_us)

    def _node(self, index: int, memory_mib: int) -> Node:
        name = f"{self.name}-node-{index}"
        where = layout.PLAIN if self.kind == "kubernetes" else layout.K3S
        folder, group = self.folder / "nodes" / name, f"{self.cgroup}/{name}"
        return Node(folder, self.cluster, self.number, index, group, where, memory_mib)


def boot(sites: Iterable[Site]) -> None:
    """Give power to sites that are laid, all at once, and wait until every node of theirs is ready.

    Raises:
        processes.NotUp: a component did not come up.
    """
    sites = list(sites)
    for site in sites:
        control_plane.begin(site.cluster)
    for site in sites:
        control_plane.start(site.cluster)
        for node in site.nodes:
            node.power_on()
    for site in sites:
        if site.cluster.k3s:
            site.take_up()
        control_plane.start_dns(site.cluster)
        for node in site.nodes:
            node.wait()


def load(folder: Path) -> Site:
    """Return the site that stands in a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    values = json.loads((folder / _INFO).read_text())
    return Site(**{**values, "folder": Path(values["folder"])})


def binaries(kinds: Iterable[str], say: binary.Say | None) -> dict[str, Path]:
    """Return the file of every part that these kinds need.

    Args:
        kinds: of sites.
        say: told what is being built; None: nothing is built.

    Raises:
        binary.Unavailable: one is not there.
    """
    parts = [binary.KUBECLUSTER, binary.NODE, binary.COREDNS]
    if "k3s-shaped" in kinds:
        parts.append(binary.KINE)
    found = {part.name: binary.build(say, part) if say else binary.find(part) for part in parts}
    return {**found, "k3s": k3s.find()} if "k3s" in kinds else found


def _memory(settings: Path) -> int:
    return int(json.loads(settings.read_text())["memory_mib"])
