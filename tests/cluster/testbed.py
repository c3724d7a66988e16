"""A test bed: a hub's network namespace with a registry, and the sites around it. One folder holds all of it.

What a test bed makes on the machine is processes and control groups. Network interfaces, routes, iptables rules and
mounts stand in namespaces that have no name and go with the processes; so a killed run leaves its folder and empty
control groups, and both carry its id.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from images import push
from tests.cluster import addresses, binary, cgroups, namespaces, processes
from tests.cluster import site as sites_module
from tests.cluster.site import Site

PREFIX: Final = "edgeferry-"

_INFO: Final = "testbed.json"
_REGISTRY: Final = """version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}/images}}, delete: {{enabled: true}}}}
http: {{addr: "0.0.0.0:5000"}}
"""


@dataclass(frozen=True, slots=True)
class Testbed:
    """A hub and its sites; everything stands below ``folder``.

    Attributes:
        folder: of its state.
        id: in the names of its control groups.
        dies_with_us: its processes end with the one that made it.
        owner: process that it belongs to, with its start time: when that is gone, what is left is to be removed. Empty
            once a test bed that outlives its maker is whole.
    """

    folder: Path
    id: str
    dies_with_us: bool
    owner: str

    __test__ = False

    @property
    def hub(self) -> Path:
        """Folder whose process holds the hub's network namespace."""
        return self.folder / "hub"

    @property
    def cgroup(self) -> str:
        """Control group above all of its nodes'."""
        return f"{PREFIX}{self.id}"

    @property
    def places(self) -> list[Path]:
        """Every folder with processes: of the hub, the sites, the nodes."""
        return [self.hub, *self.folder.glob("sites/*"), *self.folder.glob("sites/*/nodes/*")]

    @property
    def sites(self) -> list[Site]:
        """Its sites, by number."""
        found = [sites_module.load(path.parent) for path in self.folder.glob("sites/*/site.json")]
        return sorted(found, key=lambda site: site.number)

    @property
    def network(self) -> AbstractContextManager[None]:
        """Within it this thread's new sockets stand at the hub."""
        return namespaces.entered(self.hub)

    def run(self, command: Sequence[str | Path], **options: object) -> subprocess.CompletedProcess[str]:
        """Run a command at the hub, as `subprocess.run` does; output is text and captured, a failure raises."""
        return namespaces.run(self.hub, command, **options)

    def enter(self) -> list[str]:
        """Return the words to put before a command that is to run at the hub."""
        return namespaces.enter(self.hub)

    def push(self, layout: Path, name: str, tag: str) -> str:
        """Push an image into the registry as ``test/NAME:TAG``; return the reference that pods pull, by digest.

        Args:
            layout: folder of an OCI layout.
            name: of the image in it.
            tag: that it gets.
        """
        with self.network:
            return push.push(layout, name, push.Registry(f"http://{addresses.REGISTRY}/test"), tag)

    def add_sites(
        self,
        count: int = 1,
        *,
        kind: str = "kubernetes",
        memory_mib: int = 0,
        say: binary.Say | None = None,
        names: Sequence[str] = (),
    ) -> list[Site]:
        """Make sites and boot them together; they are ready when this returns (about 8 s for one).

        Args:
            count: how many.
            kind: of each.
            memory_mib: of their first nodes; 0: as much as the machine.
            say: told what is being built; None: nothing is built.
            names: of the sites; without them site-1, site-2 and on.

        Raises:
            binary.Unavailable: a part is missing.
            processes.NotUp: a component did not come up.
        """
        parts = sites_module.binaries([kind], say)
        first = len(self.sites) + 1
        if first + count - 1 > addresses.MOST_SITES:
            raise ValueError(f"a test bed has at most {addresses.MOST_SITES} sites")
        made = []
        for number in range(first, first + count):
            name = names[number - first] if names else f"site-{number}"
            folder = self.folder / "sites" / name
            made.append(Site(folder, number, kind, self.cgroup, self.dies_with_us))
            made[-1].lay(self.hub, parts, memory_mib)
        sites_module.boot(made)
        return made

    def resume(self) -> None:
        """Start again what has ended: after a reboot of the machine, or a kill."""
        self._start_hub()
        parts = sites_module.binaries([site.kind for site in self.sites], None)
        for site in self.sites:
            site.lay(self.hub, parts, 0)
            for node in site.nodes:
                node.install()
        sites_module.boot(self.sites)

    def keep(self) -> Testbed:
        """Say that it is whole: it stays when this process ends. Before that a killed maker leaves it to be removed."""
        kept = replace(self, owner="")
        kept._save()
        return kept

    def logs(self) -> list[Path]:
        """Return every log: of the hub, of the sites' components, of the nodes' boots and daemons."""
        return sorted(
            path for place in self.places for part in ("logs", "root/var/log") for path in (place / part).glob("*.log")
        )

    def copy_logs(self, folder: Path) -> None:
        """Copy every log below a folder, under the path that it has in the test bed."""
        for path in self.logs():
            target = folder / self.folder.name / path.relative_to(self.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    def destroy(self) -> None:
        """End and remove everything that it made, whatever of it was made."""
        for folder in self.places:
            for name in processes.names(folder):
                processes.stop(folder, name)
        processes.end_all_of(self.folder)
        cgroups.remove(self.cgroup)
        shutil.rmtree(self.folder)

    def _start_hub(self) -> None:
        dies = self.dies_with_us
        if not processes.pid(self.hub, "net"):
            namespaces.hold(self.hub, dies_with_us=dies)
            bridge = ("link add sites type bridge", f"addr add {addresses.HUB}/24 dev sites", "link set sites up")
            namespaces.configure(self.hub, *bridge)
            namespaces.run(self.hub, ["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])
        (self.hub / "registry.yaml").write_text(_REGISTRY.format(folder=self.hub))
        command: list[str | Path] = ["docker-registry", "serve", self.hub / "registry.yaml"]
        processes.start(self.hub, "registry", command, dies_with_us=dies, enter=namespaces.enter(self.hub))
        processes.until(self._registry_answers, "the registry", self.hub, "registry")

    def _registry_answers(self) -> bool:
        with suppress(OSError), self.network, urllib.request.urlopen(f"http://{addresses.REGISTRY}/v2/", timeout=2):
            return True
        return False

    def _save(self) -> None:
        new = self.folder / f"{_INFO}.new"
        new.write_text(json.dumps(asdict(self), default=str, indent=2))
        new.rename(self.folder / _INFO)


def create(folder: Path, *, dies_with_us: bool) -> Testbed:
    """Make a test bed: the hub's namespace and its registry, no sites yet (under 1 s).

    Args:
        folder: must be on a file system that overlayfs can stand on.
        dies_with_us: its processes end with this one; otherwise with `Testbed.destroy`.

    Raises:
        FileExistsError: there is one already.
        processes.NotUp: the registry did not come up.
    """
    if (folder / _INFO).exists():
        raise FileExistsError(f"{folder} holds a test bed")
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    bed = Testbed(folder.absolute(), secrets.token_hex(3), dies_with_us, processes.identity())
    bed._save()
    bed._start_hub()
    return bed


@contextmanager
def own(name: str) -> Iterator[Testbed]:
    """A test bed of this process, by a name that no other process's has; what dead processes left goes first.

    Args:
        name: of the use: ``tests``, ``demo``.

    Raises:
        processes.NotUp: the registry did not come up.
    """
    remove_dead(base())
    made = create(base() / f"{name}-{os.getpid()}", dies_with_us=True)
    try:
        yield made
    finally:
        if kept := os.environ.get("EDGEFERRY_CLUSTER_LOGS"):
            made.copy_logs(Path(kept))
        made.destroy()


def load(folder: Path) -> Testbed:
    """Return the test bed that stands in a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    values = json.loads((folder / _INFO).read_text())
    return Testbed(**{**values, "folder": Path(values["folder"])})


def remove_dead(folder: Path) -> list[str]:
    """Remove the test beds in a folder whose owner is gone; return their names."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    removed = []
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for bed in find(folder):
            if bed.owner and not processes.is_alive(bed.owner):
                bed.destroy()
                removed.append(bed.folder.name)
    finally:
        os.close(lock)
    return removed


def base() -> Path:
    """Return the folder that holds this user's test beds and clusters."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp") / f"edgeferry-cluster-{os.getuid()}"


def find(folder: Path) -> list[Testbed]:
    """Return the test beds in a folder, by name; what another version of this package made is none of ours."""
    found = []
    for path in sorted(folder.glob(f"*/{_INFO}")):
        with suppress(FileNotFoundError, TypeError):
            found.append(load(path.parent))
    return found
