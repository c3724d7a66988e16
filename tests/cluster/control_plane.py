"""A control plane: etcd and an API server, with controllers where a test wants them; in a site also what nodes need."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import ssl
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.cluster import addresses, components, namespaces, processes
from tests.cluster.certificates import Authority
from tests.cluster.components import HOST

SERVICES: Final = "10.96.0.0/16"

_INFO: Final = "cluster.json"


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """One control plane; everything of it stands below ``folder``.

    Attributes:
        folder: state, certificates, logs; short-lived keys, so it is 0700.
        binary: every component.
        etcd_port, peer_port, controllers_port: on the 127.0.0.1 where it runs, kept over restarts.
        api_port: on this machine's 127.0.0.1; with nodes it is forwarded into the site's network namespace.
        controllers: a controller manager runs too: Deployments get pods, deleted namespaces go, owners' objects go.
        dies_with_us: its processes end with the one that started them.
        address: where it says that its API server is.
        services: network of the Services.
        nodes: it runs in the network namespace that its folder holds, with a scheduler and what kubelets need.
        kine: the binary of the datastore; None for etcd.
        dns: the binary of the name server; None for a cluster without.
        k3s: the binary that its nodes run in place of the components here; None for a cluster that is not K3s.
    """

    folder: Path
    binary: Path
    etcd_port: int
    peer_port: int
    api_port: int
    controllers_port: int
    controllers: bool
    dies_with_us: bool
    address: str = HOST
    services: str = SERVICES
    nodes: bool = False
    kine: Path | None = None
    dns: Path | None = None
    k3s: Path | None = None

    @property
    def url(self) -> str:
        """Base URL of the API server, from this machine."""
        return f"https://{HOST}:{self.api_port}"

    @property
    def inside_url(self) -> str:
        """Base URL of the API server, from its nodes, its pods and the hub."""
        return f"https://{self.address}:{addresses.API_PORT}" if self.nodes else self.url

    @property
    def kubeconfig(self) -> Path:
        """Of the administrator, from this machine."""
        return self.folder / "admin.kubeconfig"

    @property
    def inside_kubeconfig(self) -> Path:
        """Of the administrator, in the namespaces of the hub and of the site."""
        return self.folder / "inside.kubeconfig"


def create(folder: Path, binary: Path, *, controllers: bool, dies_with_us: bool) -> ControlPlane:
    """Make and start a control plane; it is ready when this returns (3 to 5 s).

    Raises:
        processes.NotUp: a component did not come up.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    etcd, peer, api, manager = free_ports(4)
    cluster = ControlPlane(folder.absolute(), binary, etcd, peer, api, manager, controllers, dies_with_us)
    save(cluster)
    start(cluster)
    return cluster


def save(cluster: ControlPlane) -> None:
    """Write certificates, kubeconfigs and settings into its folder; nothing is started."""
    if not cluster.k3s:
        _certificates(cluster)
        write_kubeconfigs(cluster)
    (cluster.folder / _INFO).write_text(json.dumps(asdict(cluster), default=str, indent=2))


def load(folder: Path) -> ControlPlane:
    """Return the control plane that stands in a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    values = json.loads((folder / _INFO).read_text())
    paths = {name: Path(values[name]) for name in ("folder", "binary", "kine", "dns", "k3s") if values.get(name)}
    return ControlPlane(**{**values, **paths})


def start(cluster: ControlPlane) -> None:
    """Start what does not run, and wait until it is ready."""
    begin(cluster)
    if not cluster.k3s:
        start_api_server(cluster)
        start_controllers(cluster)


def begin(cluster: ControlPlane) -> None:
    """Start datastore and API server, unless they run, and do not wait. K3s has them in its first node."""
    if cluster.k3s:
        return
    if cluster.kine:
        (cluster.folder / "server" / "db").mkdir(parents=True, exist_ok=True)
        _start(cluster, "kine", components.kine(cluster))
    else:
        _start(cluster, "etcd", components.etcd(cluster))
    _start(cluster, "apiserver", components.api_server(cluster), GOGC="40")


def start_api_server(cluster: ControlPlane) -> None:
    """Start the API server and wait until it says that it is ready."""
    _start(cluster, "apiserver", components.api_server(cluster), GOGC="40")
    processes.until(lambda: _says_ok(cluster, "/readyz"), "the API server's /readyz", cluster.folder, "apiserver")


def start_controllers(cluster: ControlPlane) -> None:
    """Start controller manager and scheduler, where the cluster has them."""
    if cluster.controllers:
        _start(cluster, "controllers", components.controllers(cluster))
    if cluster.nodes:
        _start(cluster, "scheduler", components.scheduler(cluster))


def start_dns(cluster: ControlPlane) -> None:
    """Start the name server, where the cluster has one."""
    if cluster.dns:
        (cluster.folder / "Corefile").write_text(components.corefile(cluster))
        _start(cluster, "dns", components.dns(cluster))


def stop_api_server(cluster: ControlPlane, how: signal.Signals = signal.SIGKILL) -> None:
    """End the API server alone; etcd keeps the data."""
    processes.stop(cluster.folder, "apiserver", how)


def compact(cluster: ControlPlane) -> None:
    """Forget the past of every object, as a long absence does: a watch from an old version then gets 410 Gone."""
    connection = http.client.HTTPConnection(HOST, cluster.etcd_port, timeout=10)
    try:
        connection.request("POST", "/v3/kv/range", json.dumps({"key": "AA=="}))
        revision = json.loads(connection.getresponse().read())["header"]["revision"]
        connection.request("POST", "/v3/kv/compaction", json.dumps({"revision": revision, "physical": True}))
        connection.getresponse().read()
    finally:
        connection.close()


def destroy(cluster: ControlPlane) -> None:
    """End every process of it and remove its folder."""
    for name in reversed(processes.names(cluster.folder)):
        processes.stop(cluster.folder, name)
    shutil.rmtree(cluster.folder)


def running(cluster: ControlPlane) -> dict[str, int]:
    """Return component → process id, 0 for one that has ended."""
    return {name: processes.pid(cluster.folder, name) for name in processes.names(cluster.folder)}


def kubeconfig(url: str, keys: Path | str, who: str) -> str:
    """Return the kubeconfig of who has WHO.crt and WHO.key in a folder, as its reader sees it, beside ca.crt."""
    return _kubeconfig(url, keys, {"client-certificate": f"{keys}/{who}.crt", "client-key": f"{keys}/{who}.key"})


def write_kubeconfig(cluster: ControlPlane, name: str, user: dict[str, str], namespace: str = "default") -> Path:
    """Write NAME.kubeconfig, for this machine, and return its path.

    Args:
        cluster: that it is for.
        name: of the file.
        user: what kubectl takes in ``users[].user``: ``token``, or ``client-certificate`` and ``client-key``.
        namespace: of its context.
    """
    return _write(cluster, name, _kubeconfig(cluster.url, cluster.folder / "pki", user, namespace))


def certificate_kubeconfig(cluster: ControlPlane, user: str, namespace: str = "default") -> Path:
    """Write a kubeconfig of a user with no rights but those that the test binds to its name."""
    Authority(cluster.folder / "pki").client(f"user-{user}", user)
    pki = cluster.folder / "pki"
    keys = {"client-certificate": str(pki / f"user-{user}.crt"), "client-key": str(pki / f"user-{user}.key")}
    return write_kubeconfig(cluster, f"user-{user}", keys, namespace)


def _certificates(cluster: ControlPlane) -> None:
    pki = cluster.folder / "pki"
    authority = Authority(pki)
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", HOST, cluster.address]
    authority.server("apiserver", "kube-apiserver", [*names, addresses.first(cluster.services)])
    authority.client("admin", "admin", ["system:masters"])
    authority.client("controllers", "system:kube-controller-manager")
    authority.signing_key("accounts")
    if cluster.nodes:
        authority.client("scheduler", "system:kube-scheduler")
        authority.client("to-kubelet", "apiserver-to-kubelet", ["system:masters"])


def write_kubeconfigs(cluster: ControlPlane) -> None:
    """Write the kubeconfig of everybody whose certificate is there."""
    pki = cluster.folder / "pki"
    for who, url in (("admin", cluster.url), ("controllers", cluster.inside_url), ("scheduler", cluster.inside_url)):
        if (pki / f"{who}.crt").exists():
            _write(cluster, who, kubeconfig(url, pki, who))
    _write(cluster, "inside", kubeconfig(cluster.inside_url, pki, "admin"))


def _write(cluster: ControlPlane, name: str, text: str) -> Path:
    path = cluster.folder / f"{name}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def _kubeconfig(url: str, keys: Path | str, user: dict[str, str], namespace: str = "default") -> str:
    server = {"server": url, "certificate-authority": f"{keys}/ca.crt"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": server}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
    }
    return json.dumps(document, indent=2)


def _start(cluster: ControlPlane, name: str, command: list[str], **environment: str) -> None:
    enter = namespaces.enter(cluster.folder) if cluster.nodes else ()
    processes.start(
        cluster.folder, name, command, dies_with_us=cluster.dies_with_us, environment=environment, enter=enter
    )


def request(cluster: ControlPlane, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """Ask the API server as its administrator.

    Args:
        cluster: asked.
        method: of HTTP; the body of a PATCH is a merge patch.
        path: with query, below the base URL.
        body: sent as JSON; None for no body.

    Returns:
        Status and body of the answer.

    Raises:
        OSError: there was none.
    """
    pki = cluster.folder / "pki"
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    connection = http.client.HTTPSConnection(HOST, cluster.api_port, timeout=5, context=context)
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": kind, "Accept": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"no answer from the API server: {error!r}") from error
    finally:
        connection.close()


def _says_ok(cluster: ControlPlane, path: str) -> bool:
    try:
        return request(cluster, "GET", path)[0] == 200
    except OSError:
        return False


def free_ports(count: int) -> list[int]:
    """Return ports on 127.0.0.1 that nobody listened on just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
