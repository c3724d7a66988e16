"""A control plane on this machine: etcd and an API server, with controllers where a test wants them. No nodes."""

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

from tests.cluster import processes
from tests.cluster.certificates import Authority

HOST: Final = "127.0.0.1"
SERVICES: Final = "10.96.0.0/16"

_INFO: Final = "cluster.json"
_CONTROLLERS: Final = (
    "deployment,replicaset,statefulset,daemonset,job,cronjob,garbagecollector,namespace,serviceaccount,disruption"
)


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """One control plane; everything of it stands below ``folder``.

    Attributes:
        folder: state, certificates, logs; short-lived keys, so it is 0700.
        binary: every component.
        etcd_port, peer_port, api_port, controllers_port: on 127.0.0.1, kept over restarts.
        controllers: a controller manager runs too: Deployments get pods, deleted namespaces go, owners' objects go.
        dies_with_us: its processes end with the one that started them.
    """

    folder: Path
    binary: Path
    etcd_port: int
    peer_port: int
    api_port: int
    controllers_port: int
    controllers: bool
    dies_with_us: bool

    @property
    def url(self) -> str:
        """Base URL of the API server."""
        return f"https://{HOST}:{self.api_port}"

    @property
    def kubeconfig(self) -> Path:
        """Of the administrator."""
        return self.folder / "admin.kubeconfig"


def create(folder: Path, binary: Path, *, controllers: bool, dies_with_us: bool) -> ControlPlane:
    """Make and start a control plane; it is ready when this returns (3 to 5 s).

    Raises:
        processes.NotUp: a component did not come up.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    etcd, peer, api, manager = _free_ports(4)
    cluster = ControlPlane(folder.absolute(), binary, etcd, peer, api, manager, controllers, dies_with_us)
    _certificates(cluster)
    (folder / _INFO).write_text(json.dumps(asdict(cluster), default=str, indent=2))
    start(cluster)
    return cluster


def load(folder: Path) -> ControlPlane:
    """Return the control plane that stands in a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    values = json.loads((folder / _INFO).read_text())
    return ControlPlane(**{**values, "folder": Path(values["folder"]), "binary": Path(values["binary"])})


def start(cluster: ControlPlane) -> None:
    """Start what does not run, and wait until it is ready."""
    _start_etcd(cluster)
    start_api_server(cluster)
    if cluster.controllers:
        _start_controllers(cluster)


def start_api_server(cluster: ControlPlane) -> None:
    """Start the API server and wait until it says that it is ready."""
    folder, pki = cluster.folder, cluster.folder / "pki"
    command = [
        str(cluster.binary),
        "kube-apiserver",
        f"--etcd-servers=http://{HOST}:{cluster.etcd_port}",
        f"--bind-address={HOST}",
        f"--advertise-address={HOST}",
        f"--secure-port={cluster.api_port}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-signing-key-file={pki}/accounts.key",
        f"--service-account-key-file={pki}/accounts.pub",
        "--authorization-mode=Node,RBAC",
        "--disable-admission-plugins=ServiceAccount",
        "--allow-privileged=true",
        "--feature-gates=ImageVolume=true",
        "--endpoint-reconciler-type=none",
        "--profiling=false",
    ]
    processes.start(folder, "apiserver", command, dies_with_us=cluster.dies_with_us, environment={"GOGC": "40"})
    processes.until(lambda: _says_ok(cluster, "/readyz"), "the API server's /readyz", folder, "apiserver")


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


def write_kubeconfig(cluster: ControlPlane, name: str, user: dict[str, str], namespace: str = "default") -> Path:
    """Write NAME.kubeconfig and return its path.

    Args:
        cluster: that it is for.
        name: of the file.
        user: what kubectl takes in ``users[].user``: ``token``, or ``client-certificate`` and ``client-key``.
        namespace: of its context.
    """
    path = cluster.folder / f"{name}.kubeconfig"
    server = {"server": cluster.url, "certificate-authority": str(cluster.folder / "pki" / "ca.crt")}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": server}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(document, indent=2))
    return path


def certificate_kubeconfig(cluster: ControlPlane, user: str, namespace: str = "default") -> Path:
    """Write a kubeconfig of a user with no rights but those that the test binds to its name."""
    Authority(cluster.folder / "pki").client(f"user-{user}", user)
    pki = cluster.folder / "pki"
    keys = {"client-certificate": str(pki / f"user-{user}.crt"), "client-key": str(pki / f"user-{user}.key")}
    return write_kubeconfig(cluster, f"user-{user}", keys, namespace)


def _certificates(cluster: ControlPlane) -> None:
    pki = cluster.folder / "pki"
    authority = Authority(pki)
    first_service = SERVICES.rsplit(".", 1)[0] + ".1"
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", HOST, first_service]
    authority.server("apiserver", "kube-apiserver", names)
    authority.client("admin", "admin", ["system:masters"])
    authority.client("controllers", "system:kube-controller-manager")
    authority.signing_key("accounts")
    for who in ("admin", "controllers"):
        write_kubeconfig(
            cluster, who, {"client-certificate": str(pki / f"{who}.crt"), "client-key": str(pki / f"{who}.key")}
        )


def _start_etcd(cluster: ControlPlane) -> None:
    client, peer = (f"http://{HOST}:{port}" for port in (cluster.etcd_port, cluster.peer_port))
    command = [
        str(cluster.binary),
        "etcd",
        "--name=test",
        f"--data-dir={cluster.folder}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=test={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]
    processes.start(cluster.folder, "etcd", command, dies_with_us=cluster.dies_with_us)


def _start_controllers(cluster: ControlPlane) -> None:
    kubeconfig, pki = cluster.folder / "controllers.kubeconfig", cluster.folder / "pki"
    command = [
        str(cluster.binary),
        "kube-controller-manager",
        *(
            f"--{option}={kubeconfig}"
            for option in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
        ),
        f"--controllers={_CONTROLLERS}",
        f"--bind-address={HOST}",
        f"--secure-port={cluster.controllers_port}",
        "--leader-elect=false",
        f"--root-ca-file={pki}/ca.crt",
        f"--service-account-private-key-file={pki}/accounts.key",
        "--use-service-account-credentials=true",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--profiling=false",
    ]
    processes.start(cluster.folder, "controllers", command, dies_with_us=cluster.dies_with_us)


def _says_ok(cluster: ControlPlane, path: str) -> bool:
    pki = cluster.folder / "pki"
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    connection = http.client.HTTPSConnection(HOST, cluster.api_port, timeout=5, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
