"""A site's cluster is a real one: pods run, answer, change and come back."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import binary, cgroups, images, k3s, probe
from tests.cluster.fixtures import take
from tests.cluster.probe import until
from tests.cluster.site import Site
from tests.cluster.testbed import Testbed

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(300)]


def pod(namespace: str, image: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": image, **spec.pop("container", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one", "namespace": namespace},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **spec},
    }


def wait_ready(site: Site, namespace: str) -> None:
    site.kubectl("wait", f"--namespace={namespace}", "--for=condition=Ready", "pod/one", "--timeout=60s")


def test_a_pod_answers_through_its_service_at_its_site_and_from_the_hub(
    bed: Testbed, site: Site, namespace: str
) -> None:
    address = probe.run(site, namespace, probe.push(bed, "1"))
    assert probe.answer(site, address) == "web 1"
    assert bed.run(["busybox", "wget", "-q", "-O-", f"http://{address}/"]).stdout == "web 1\n"


def test_an_update_rolls_out_and_back(bed: Testbed, site: Site, namespace: str) -> None:
    first, second = probe.push(bed, "1"), probe.push(bed, "2")
    address = probe.run(site, namespace, first)
    site.apply(probe.deployment(namespace, second))
    probe.until_answer(site, address, "web 2")
    site.kubectl("rollout", "undo", "deployment/web", f"--namespace={namespace}")
    probe.until_answer(site, address, "web 1")


def test_what_a_pod_says_and_does_can_be_seen(bed: Testbed, site: Site, namespace: str) -> None:
    address = probe.run(site, namespace, probe.push(bed, "1"))
    probe.answer(site, address)
    web = (f"--namespace={namespace}", "deployment/web")
    assert "response:200" in site.kubectl("logs", *web)
    assert site.kubectl("exec", *web, "--", "cat", "/www/index.html") == "web 1\n"


def test_a_pod_reaches_the_api_server_and_the_hub(bed: Testbed, site: Site, namespace: str) -> None:
    probe.run(site, namespace, probe.push(bed, "1"))
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    ask = f"""
        wget -q --no-check-certificate -O- --header "Authorization: Bearer $(cat {account}/token)" \
            https://$KUBERNETES_SERVICE_HOST/version
        wget -q -O- http://10.200.0.1:5000/v2/_catalog
    """
    said = site.kubectl("exec", f"--namespace={namespace}", "deployment/web", "--", "sh", "-c", ask)
    assert '"gitVersion": "v1.' in said
    assert "test/web" in said


def test_a_service_has_a_name(bed: Testbed, site: Site, namespace: str) -> None:
    probe.run(site, namespace, probe.push(bed, "1"))
    pod = ("exec", f"--namespace={namespace}", "deployment/web", "--")
    ask = f"""
        set -e
        wget -q -O- http://web/
        wget -q -O- http://web.{namespace}/
        wget -q -O- http://web.{namespace}.svc.cluster.local/
    """
    # The name server hears of a new Service a moment after the API server.
    until(lambda: site.kubectl(*pod, "sh", "-c", ask, check=False) == "web 1\n" * 3)


def test_a_killed_container_is_started_again(bed: Testbed, site: Site, namespace: str) -> None:
    address = probe.run(site, namespace, probe.push(bed, "1"))
    uid = site.kubectl("get", "pods", f"--namespace={namespace}", "-o", "jsonpath={.items[0].metadata.uid}")
    group = next(path for path in (cgroups.hierarchies()[0] / site.nodes[0].cgroup).rglob(f"*{uid}*") if path.is_dir())
    inside = cgroups.processes(str(group.relative_to(cgroups.hierarchies()[0])))
    servers = [one for one in inside if b"httpd" in Path(f"/proc/{one}/cmdline").read_bytes()]
    os.kill(servers[0], signal.SIGKILL)
    restarts = ("get", "pods", f"--namespace={namespace}", "-o", "jsonpath={..restartCount}")
    until(lambda: site.kubectl(*restarts) == "1")
    probe.until_answer(site, address, "web 1")


def test_an_image_is_a_volume_with_a_path_in_it_read_only(
    bed: Testbed, site: Site, namespace: str, tmp_path: Path
) -> None:
    files = {"model/weights.bin": b"w" * 1000, "model/labels/names.txt": b"cat\ndog\n"}
    images.pack(tmp_path, "data", files, {})
    reference = bed.push(tmp_path, "data", "1")
    mounts = [
        {"name": "model", "mountPath": "/models"},
        {"name": "model", "mountPath": "/labels", "subPath": "model/labels"},
    ]
    volumes = [{"name": "model", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}]
    site.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    site.apply(pod(namespace, probe.push(bed, "1"), container={"volumeMounts": mounts}, volumes=volumes))
    wait_ready(site, namespace)

    def inside(command: str) -> str:
        return site.kubectl("exec", f"--namespace={namespace}", "one", "--", "sh", "-c", f"{command} 2>&1 || true")

    assert inside("wc -c </models/model/weights.bin").strip() == "1000"
    assert inside("cat /labels/names.txt") == "cat\ndog\n"
    assert "Read-only" in inside("touch /models/x")


def test_a_path_of_the_host_is_on_the_nodes_own_disk(bed: Testbed, site: Site, namespace: str) -> None:
    name = f"srv/{namespace}/model.bin"
    volumes = [{"name": "store", "hostPath": {"path": f"/srv/{namespace}", "type": "DirectoryOrCreate"}}]
    mounts = [{"name": "store", "mountPath": "/store"}]
    site.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    site.apply(pod(namespace, probe.push(bed, "1"), container={"volumeMounts": mounts}, volumes=volumes))
    wait_ready(site, namespace)
    site.kubectl("exec", f"--namespace={namespace}", "one", "--", "sh", "-c", "echo model >/store/model.bin")
    assert (site.nodes[0].disk / name).read_text() == "model\n"
    assert not Path("/", name).exists()


def test_quotas_hold(bed: Testbed, site: Site, namespace: str) -> None:
    quota = {"hard": {"pods": "0"}}
    named = {"name": "none", "namespace": namespace}
    site.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    site.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": named, "spec": quota})
    until(lambda: site.kubectl("get", "resourcequota", "none", f"--namespace={namespace}", "-o", "jsonpath={.status}"))
    with pytest.raises(AssertionError, match="exceeded quota"):
        site.apply(pod(namespace, probe.push(bed, "1")))


def test_the_k3s_shaped_one_has_the_paths_of_k3s_and_not_its_name(bed: Testbed) -> None:
    [site] = take(bed, 1, "k3s-shaped")
    disk = site.nodes[0].disk
    assert (disk / "etc/rancher/k3s/k3s.yaml").exists()
    assert (disk / "var/lib/rancher/k3s/agent/containerd").is_dir()
    assert (site.folder / "server/db/state.db").read_bytes().startswith(b"SQLite format 3")
    assert "k3s" not in site.kubectl("version")


def test_without_k3s_the_kind_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(binary.Unavailable, match="no `k3s` on PATH: install K3s, or take --kind k3s-shaped"):
        k3s.find()
