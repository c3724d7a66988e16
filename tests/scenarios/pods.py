"""A fleet whose sites are clusters of a test bed, each with the agent's chart and the project's own images."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gitops.demo.fleet import Fleet
from gitops.demo.places import Place
from gitops.demo.pods import AGENT, MODELS, PodSite, join
from gitops.demo.sites import Site as Seen
from tests.cluster import binary
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
    push = ["push", "--from", str(layout), "--to", "http://10.200.0.1:5000/edgeferry"]
    out = bed.run([sys.executable, "-m", "images", *push], cwd=CHECKOUT).stdout
    found = {line.partition("@")[0].rpartition("/")[2]: line for line in out.splitlines()}
    return Images(found["agent"], found["runtime"])


def helm() -> Path:
    """Return the pinned Helm."""
    return binary.find(binary.helm("amd64"))


def access(site: Site) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return kubectl and helm with what they need to reach a site."""
    kubeconfig = f"--kubeconfig={site.cluster.kubeconfig}"
    return (str(site.cluster.binary.parent / "kubectl"), kubeconfig), (str(helm()), kubeconfig)


@contextmanager
def pod_fleet(root: Path, bed: Testbed, images: Images, sites: Sequence[Site]) -> Iterator[Fleet]:
    """A fleet that settles on these clusters in the order of joining; they are empty again afterwards."""
    free, used = iter(sites), list[tuple[PodSite, tuple[str, ...], Site]]()

    def settle(fleet: Fleet, name: str) -> Seen:
        cluster = next(free)
        kubectl, helm = access(cluster)
        site = PodSite(name, kubectl, root)
        used.append((site, helm, cluster))
        repository, _, digest = images.agent.partition("@")
        values = {
            "hub": {"url": fleet.hub_url, "insecure": True},
            "image": {"repository": repository, "digest": digest},
            "settings": {"probation_s": 2},
            "charts": True,
        }
        join(site, CHECKOUT / "charts" / "agent", helm, fleet.token(name), values)
        return site

    fleet = Fleet(
        root / "fleet",
        Place("10.200.0.1", tuple(bed.enter()), lambda: bed.network),
        images.runtime,
        settle,
    )
    fleet.open()
    try:
        yield fleet
    finally:
        fleet.close()
        for site, helm_, cluster in used:
            _empty(site, helm_)
            for node in cluster.nodes:
                shutil.rmtree(node.folder / "root" / "var" / "lib" / "edgeferry", ignore_errors=True)


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
