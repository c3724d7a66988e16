"""A fleet whose sites are clusters of a test bed, each with the agent's chart and the project's own images."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gitops.demo.fleet import Fleet
from gitops.demo.places import Place
from gitops.demo.pods import AGENT, MODELS, PodSite, join
from gitops.demo.sites import Site as Seen
from tests.cluster import addresses, binary
from tests.cluster.site import Site
from tests.cluster.testbed import Testbed

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Images:
    """The project's images in a test bed's registry, by digest."""

    agent: str
    runtime: str


def push_images(bed: Testbed) -> Images:
    """Build the images, where they are not built yet, and push them to a test bed's registry."""
    layout = bed.folder / "images"
    build = ["build", "--image", "agent", "--image", "runtime", "--out", str(layout)]
    subprocess.run([sys.executable, "-m", "images", *build], cwd=CHECKOUT, check=True, capture_output=True)
    return pushed(layout, f"http://{addresses.REGISTRY}/edgeferry", bed.enter())


def pushed(layout: Path, registry: str, words: Sequence[str] = ()) -> Images:
    """Push agent and runtime from a layout to a registry.

    Args:
        layout: of `python -m images build`.
        registry: URL, with the first part of the repositories.
        words: before a command that is to run where the registry is reached.
    """
    push = [*words, sys.executable, "-m", "images", "push", "--from", str(layout), "--to", registry]
    out = subprocess.run(push, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    found = {line.partition("@")[0].rpartition("/")[2]: line for line in out.splitlines()}
    return Images(found["agent"], found["runtime"])


def helm() -> Path:
    """Return the pinned Helm."""
    return binary.find(binary.helm("amd64"))


@dataclass(frozen=True, slots=True)
class Reach:
    """A cluster, as it is reached.

    Attributes:
        kubectl, helm: the commands with what they need to reach it.
        forget: removes what a fleet leaves on its nodes' disks.
    """

    kubectl: tuple[str, ...]
    helm: tuple[str, ...]
    forget: Callable[[], None] = lambda: None


def reach(site: Site) -> Reach:
    """Return how a test bed's site is reached."""
    kubeconfig = f"--kubeconfig={site.cluster.kubeconfig}"

    def forget() -> None:
        for node in site.nodes:
            shutil.rmtree(node.folder / "root" / "var" / "lib" / "edgeferry", ignore_errors=True)

    return Reach((str(site.cluster.binary.parent / "kubectl"), kubeconfig), (str(helm()), kubeconfig), forget)


@contextmanager
def pod_fleet(root: Path, bed: Testbed, images: Images, sites: Sequence[Site]) -> Iterator[Fleet]:
    """A fleet that settles on these clusters in the order of joining; they are empty again afterwards."""
    tls = ("--tls-name", addresses.HUB)
    place = Place(addresses.HUB, tuple(bed.enter()), lambda: bed.network, tls)
    with settled(root, place, images, [reach(site) for site in sites]) as fleet:
        yield fleet


@contextmanager
def settled(root: Path, place: Place, images: Images, clusters: Sequence[Reach]) -> Iterator[Fleet]:
    """A fleet with its hub at a place, which settles on clusters in the order of joining.

    Afterwards the namespaces of agent and models are gone from them, with all that is in them.
    """
    free, used = iter(clusters), list[tuple[PodSite, Reach]]()

    def settle(fleet: Fleet, name: str) -> Seen:
        cluster = next(free)
        site = PodSite(name, cluster.kubectl, root)
        used.append((site, cluster))
        repository, _, digest = images.agent.partition("@")
        token, line = fleet.join_line(name)
        values = {
            "hub": {"url": fleet.hub_url, "caHash": line[line.index("--ca-hash") + 1]},
            "image": {"repository": repository, "digest": digest},
            "settings": {"probation_s": 2},
            "charts": True,
        }
        join(site, CHECKOUT / "charts" / "agent", cluster.helm, token, values)
        return site

    fleet = Fleet(root / "fleet", place, images.runtime, settle)
    fleet.open()
    try:
        yield fleet
    finally:
        fleet.close()
        for site, cluster in used:
            _empty(site, cluster.helm)
            cluster.forget()


def _empty(site: PodSite, helm_: tuple[str, ...]) -> None:
    """Take everything of a fleet off a cluster, at once."""
    subprocess.run([*helm_, "uninstall", "edgeferry-agent", f"--namespace={AGENT}"], check=False, capture_output=True)
    for namespace in (AGENT, MODELS):
        at_once = ("--all", "--force", "--grace-period=0", "--wait=false")
        site.run(
            "delete", "deployments,statefulsets,daemonsets,jobs", "--all", f"--namespace={namespace}", "--wait=false"
        )
        site.run("delete", "pods", f"--namespace={namespace}", *at_once)
    site.run("delete", "namespace", AGENT, MODELS, "--ignore-not-found")
