"""A pod that answers through its Service: what `up` measures, and what tests look at."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.cluster import images
from tests.cluster.site import Site
from tests.cluster.testbed import Testbed


def push(bed: Testbed, version: str) -> str:
    """Push the image ``test/web:VERSION``, which says ``web VERSION``, and return the reference that pods pull."""
    with TemporaryDirectory() as folder:
        images.web(Path(folder), version)
        return bed.push(Path(folder), "web", version)


def deployment(namespace: str, image: str, **pod: Any) -> dict[str, Any]:
    """Return the Deployment ``web`` of one pod; ``pod`` is merged into the pod's spec."""
    container = {
        "name": "web",
        "image": image,
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1},
        "resources": {"requests": {"memory": "8Mi", "cpu": "10m"}, "limits": {"memory": "64Mi"}},
    }
    labels = {"app": "web"}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container], **pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def service(namespace: str) -> dict[str, Any]:
    """Return the Service ``web``, port 80."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }


def start(site: Site, namespace: str, image: str, **pod: Any) -> str:
    """Apply Deployment and Service in a namespace that is made for them; return the Service's address."""
    site.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    site.apply(deployment(namespace, image, **pod), service(namespace))
    return site.kubectl("get", "service", "web", f"--namespace={namespace}", "-o", "jsonpath={.spec.clusterIP}")


def run(site: Site, namespace: str, image: str, **pod: Any) -> str:
    """Do what `start` does, and wait until the Service answers."""
    address = start(site, namespace, image, **pod)
    until_answer(site, address)
    return address


def answer(site: Site, address: str) -> str:
    """Return what the Service answers to one request from the site's own network.

    Raises:
        OSError: nothing.
    """
    with site.network, urllib.request.urlopen(f"http://{address}/", timeout=2) as response:
        return str(response.read().decode().strip())


def until_answer(site: Site, address: str, wanted: str = "", limit_s: float = 60.0) -> str:
    """Ask until there is an answer, or the wanted one; return it.

    Raises:
        TimeoutError: there is none in time.
    """
    deadline, last = time.monotonic() + limit_s, ""
    while time.monotonic() < deadline:
        try:
            last = answer(site, address)
            if last == wanted or not wanted:
                return last
        except OSError as error:
            last = repr(error)
        time.sleep(0.05)
    raise TimeoutError(f"http://{address}/ at {site.name} does not answer {wanted}: {last}")


def until(so: Callable[[], object], limit_s: float = 60.0) -> None:
    """Poll until it is so.

    Raises:
        TimeoutError: it is not in time.
    """
    deadline = time.monotonic() + limit_s
    while not so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {limit_s} s")
        time.sleep(0.05)
