"""The command of each control-plane component. Pure: a control plane's settings in, words out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.cluster.addresses import API_PORT

if TYPE_CHECKING:
    from tests.cluster.control_plane import ControlPlane

HOST: Final = "127.0.0.1"

_WITHOUT_NODES: Final = (
    "deployment,replicaset,statefulset,daemonset,job,cronjob,garbagecollector,namespace,serviceaccount,disruption"
)


def etcd(cluster: ControlPlane) -> list[str]:
    """Of the datastore of kind kubernetes."""
    client, peer = (f"http://{HOST}:{port}" for port in (cluster.etcd_port, cluster.peer_port))
    return [
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


def kine(cluster: ControlPlane) -> list[str]:
    """Of the datastore of kind k3s-shaped: etcd's protocol over SQLite."""
    return [
        str(cluster.kine),
        f"--endpoint=sqlite://{cluster.folder}/server/db/state.db?_journal=WAL&cache=shared&_busy_timeout=30000&_txlock=immediate",
        f"--listen-address={HOST}:{cluster.etcd_port}",
        "--metrics-bind-address=0",
    ]


def api_server(cluster: ControlPlane) -> list[str]:
    """Of the API server: with nodes on every address of its namespace, without on the loopback alone."""
    pki = cluster.folder / "pki"
    command = [
        str(cluster.binary),
        "kube-apiserver",
        f"--etcd-servers=http://{HOST}:{cluster.etcd_port}",
        f"--advertise-address={cluster.address}",
        f"--service-cluster-ip-range={cluster.services}",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-signing-key-file={pki}/accounts.key",
        f"--service-account-key-file={pki}/accounts.pub",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        "--feature-gates=ImageVolume=true",
        "--profiling=false",
    ]
    if not cluster.nodes:
        return [
            *command,
            f"--bind-address={HOST}",
            f"--secure-port={cluster.api_port}",
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
        ]
    return [
        *command,
        "--bind-address=0.0.0.0",
        f"--secure-port={API_PORT}",
        "--enable-admission-plugins=NodeRestriction",
        f"--kubelet-client-certificate={pki}/to-kubelet.crt",
        f"--kubelet-client-key={pki}/to-kubelet.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        # Otherwise exec and logs ask a name server for the node's name.
        "--kubelet-preferred-address-types=InternalIP",
    ]


def controllers(cluster: ControlPlane) -> list[str]:
    """Of the controller manager: with nodes all controllers, without those that need none."""
    pki = cluster.folder / "pki"
    command = [
        str(cluster.binary),
        "kube-controller-manager",
        *_as(cluster, "controllers"),
        f"--secure-port={cluster.controllers_port}",
        f"--root-ca-file={pki}/ca.crt",
        f"--service-account-private-key-file={pki}/accounts.key",
        "--use-service-account-credentials=true",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]
    if not cluster.nodes:
        return [*command, f"--controllers={_WITHOUT_NODES}"]
    return [
        *command,
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        "--node-monitor-period=2s",
        "--node-monitor-grace-period=20s",
    ]


def scheduler(cluster: ControlPlane) -> list[str]:
    """Of the scheduler, which only clusters with nodes have."""
    return [
        str(cluster.binary),
        "kube-scheduler",
        *_as(cluster, "scheduler"),
        f"--secure-port={cluster.controllers_port + 2}",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]


def dns(cluster: ControlPlane) -> list[str]:
    """Of the cluster's name server, on the first node's address."""
    return [str(cluster.dns), "-conf", str(cluster.folder / "Corefile")]


def corefile(cluster: ControlPlane) -> str:
    """Return the name server's configuration: names of Services, and nothing beyond the cluster."""
    return f"""cluster.local in-addr.arpa {{
    bind {cluster.address}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {cluster.inside_kubeconfig}
        ttl 5
    }}
    cache 5
}}
"""


def _as(cluster: ControlPlane, who: str) -> list[str]:
    kubeconfig = cluster.folder / f"{who}.kubeconfig"
    options = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [
        *(f"--{option}={kubeconfig}" for option in options),
        f"--bind-address={HOST}",
        "--leader-elect=false",
        "--profiling=false",
    ]
