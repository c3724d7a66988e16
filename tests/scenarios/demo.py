"""``python -m tests.scenarios.demo``: the demo on real clusters, made for it or your own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from gitops.demo.documents import cluster, placement, version
from gitops.demo.fleet import Fleet, Wrong
from gitops.demo.places import Place
from gitops.demo.play import play_one, push_to_serving
from gitops.demo.pods import AGENT, MODELS
from gitops.demo.scenarios import SCENARIOS, Scenario
from tests.cluster import binary, packages, testbed
from tests.cluster.site import Site
from tests.scenarios.pods import CHECKOUT, Images, Reach, helm, pod_fleet, push_images, pushed, settled

SITES = 3


@dataclass(frozen=True, slots=True)
class Ground:
    """What the demo stands on.

    Attributes:
        sites: those whose line can be cut; empty for clusters of somebody's own.
    """

    images: Images
    clusters: Sequence[Reach]
    place: Place
    sites: Sequence[Site] = ()
    bed: testbed.Testbed | None = None

    def fleet(self, root: Path) -> AbstractContextManager[Fleet]:
        """Open a fleet on it."""
        if self.bed is not None:
            return pod_fleet(root, self.bed, self.images, self.sites)
        return settled(root, self.place, self.images, self.clusters)


@click.command()
@click.option(
    "--contexts", default="", metavar="A,B,C", help="Three contexts of your kubeconfig, for clusters of yours."
)
@click.option(
    "--registry", default="", metavar="URL", help="Where your clusters pull from: https://registry.example/team."
)
@click.option(
    "--hub-address", default="", metavar="IP", help="This machine, as your clusters reach it.  [default: found]"
)
@click.option("--scenario", "-s", "names", multiple=True, metavar="NAME", help="S1 to S5.  [default: S2, S4]")
@click.option("--once", is_flag=True, help="Play unattended.")
def main(contexts: str, registry: str, hub_address: str, names: tuple[str, ...], *, once: bool) -> None:
    """Watch real models travel from a git push to pods on real clusters.

    Without --contexts three clusters are made on this machine, as root, from source, and removed afterwards. On
    clusters of your own the namespaces edgeferry and edgeferry-models are made, and removed afterwards; they must not
    be there before.

    \b
    Examples:
      make demo-kubernetes
      make demo-kubernetes CONTEXTS=kind-a,kind-b,kind-c ARGS='--registry https://registry.example/team'
    """
    console = Console(highlight=False)
    unknown = set(names) - SCENARIOS.keys()
    if unknown:
        raise click.UsageError(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    root = Path(tempfile.mkdtemp(prefix="edgeferry-demo-"))
    try:
        with _theirs(contexts, registry, hub_address) if contexts else _made(console) as ground:
            for name in names or ("S2", "S4"):
                with ground.fleet(root / name) as fleet:
                    play_one(name, SCENARIOS[name], fleet, once=once, console=console)
            if ground.sites:
                with ground.fleet(root / "cut") as fleet:
                    play_one("S7", _at(ground.sites[0]), fleet, once=once, console=console)
            with ground.fleet(root / "speed") as fleet:
                push_to_serving(fleet, console)
    except Wrong as error:
        raise click.ClickException(str(error)) from None
    finally:
        shutil.rmtree(root, ignore_errors=True)


def cut_off(site: Site, fleet: Fleet) -> Iterator[str]:
    """S7: a site is cut off, loses power, serves on, and goes straight to the newest version afterwards."""
    fleet.init(empty=True)
    files = cluster("milan-01", line="welding") | cluster("turin-01", line="welding")
    fleet.commit("Two sites", files | placement("digits", model="digits"))
    fleet.start_hub()
    for name in ("milan-01", "turin-01"):
        fleet.join(name)
    fleet.expect({"milan-01": "1.0.0", "turin-01": "1.0.0"}, within_s=120)
    site.link.cut()
    yield "1. The line to milan-01 is cut"
    fleet.commit("digits 2.0.0", dict(version("digits", "2.0.0")))
    fleet.expect({"milan-01": "1.0.0", "turin-01": "2.0.0"})
    yield "2. 2.0.0 is pushed: turin-01 has it, milan-01 serves what it had"
    site.power_off()
    site.power_on()
    fleet.expect({"milan-01": "1.0.0", "turin-01": "2.0.0"}, within_s=120)
    yield "3. milan-01 loses power and comes back: it serves again"
    site.link.restore()
    fleet.expect({"milan-01": "2.0.0", "turin-01": "2.0.0"}, within_s=120)
    yield "4. The line is back: milan-01 goes straight to 2.0.0"


def _at(site: Site) -> Scenario:
    """Return the scenario with the site that is cut off."""

    def scenario(fleet: Fleet) -> Iterator[str]:
        return cut_off(site, fleet)

    scenario.__doc__ = cut_off.__doc__
    return scenario


@contextmanager
def _made(console: Console) -> Iterator[Ground]:
    """Three clusters of a test bed, gone afterwards."""
    if reasons := packages.missing(testbed.base()):
        raise click.ClickException("; ".join(reasons))
    try:
        binary.build(console.print, binary.helm("amd64"))
        testbed.remove_dead(testbed.base())
        bed = testbed.create(testbed.base() / f"demo-{os.getpid()}", dies_with_us=True)
    except binary.Unavailable as reason:
        raise click.ClickException(str(reason)) from None
    try:
        with console.status("Three clusters boot, the images are built and pushed …"):
            sites = bed.add_sites(SITES, kind="kubernetes", say=console.print)
            images = push_images(bed)
        yield Ground(images, (), Place(), sites, bed)
    finally:
        bed.destroy()


@contextmanager
def _theirs(contexts: str, registry: str, hub_address: str) -> Iterator[Ground]:
    """Clusters of somebody's own."""
    names = [name for name in contexts.split(",") if name]
    if len(names) < SITES:
        raise click.UsageError(f"give {SITES} contexts, for instance --contexts kind-a,kind-b,kind-c")
    if not registry:
        raise click.UsageError("--contexts needs --registry, where the clusters can pull the images from")
    kubectl, helm_ = shutil.which("kubectl"), shutil.which("helm") or str(helm())
    if kubectl is None:
        raise click.ClickException("kubectl is not installed")
    clusters = [Reach((kubectl, f"--context={name}"), (helm_, f"--kube-context={name}")) for name in names]
    for name, one in zip(names, clusters, strict=True):
        words = [*one.kubectl, "get", "namespace", AGENT, MODELS, "--ignore-not-found", "--output=name"]
        found = subprocess.run(words, capture_output=True, text=True, check=False)
        if found.returncode or found.stdout.strip():
            raise click.ClickException(
                f"{name}: {found.stderr.strip() or found.stdout.split()[0] + ' is there already'}"
            )
    with tempfile.TemporaryDirectory() as layout:
        build = ["build", "--image", "agent", "--image", "runtime", "--out", layout]
        subprocess.run([sys.executable, "-m", "images", *build], cwd=CHECKOUT, check=True)
        images = pushed(Path(layout), registry)
    address = hub_address or _own_address()
    yield Ground(images, clusters, Place(address, hub=("--tls-name", address)))


def _own_address() -> str:
    """Return the address that this machine has towards others; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        address: str = probe.getsockname()[0]
        return address


if __name__ == "__main__":
    main()
