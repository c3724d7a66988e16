"""Where a node's files are, and what stands in its configurations. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from tests.cluster import addresses

SANDBOX: Final = "edgeferry.test/pause:1"
CNI: Final = "/usr/lib/cni"
# The binaries' folders, bound into the node.
COMPONENTS: Final = "/parts/kubernetes"
RUNTIME: Final = "/parts/runtime"
KUBELET_ROOT: Final = "/var/lib/kubelet"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths on a node.

    Attributes:
        state: of containerd, gone after a power cut.
        data: of containerd, kept.
        etc: configurations of containerd and CNI.
        keys: certificates and kubeconfigs of kubelet and kube-proxy.
        admin: the administrator's kubeconfig, where this kind of cluster has one on its server.
        server: the datastore's folder on the server's node; empty where it is not shown there.
    """

    state: str
    data: str
    etc: str
    keys: str
    admin: str
    server: str = ""

    @property
    def socket(self) -> str:
        """Of containerd."""
        return f"{self.state}/containerd.sock"


PLAIN: Final = Layout("/run/containerd", "/var/lib/containerd", "/etc", "/etc/kubernetes", "/etc/kubernetes/admin.conf")
K3S: Final = Layout(
    "/run/k3s/containerd",
    "/var/lib/rancher/k3s/agent/containerd",
    "/var/lib/rancher/k3s/agent/etc",
    "/var/lib/rancher/k3s/agent",
    "/etc/rancher/k3s/k3s.yaml",
    "/var/lib/rancher/k3s/server",
)


def containerd(layout: Layout) -> str:
    """Return containerd's configuration. No snapshotter but overlayfs; scores of the OOM killer are only raised."""
    return f"""version = 3
root = "{layout.data}"
state = "{layout.state}/state"
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{layout.socket}"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{SANDBOX}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{layout.etc}/containerd/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  enable_cdi = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{CNI}"]
    conf_dir = "{layout.etc}/cni/net.d"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def plain_registry(host: str) -> str:
    """Return the hosts.toml of a registry that speaks plain HTTP."""
    return f'server = "http://{host}"\n[host."http://{host}"]\n  capabilities = ["pull", "resolve"]\n'


def network(site: int, index: int) -> str:
    """Return the CNI configuration of a node: one bridge; the site's router knows the way to the other nodes' pods."""
    ranges = [[{"subnet": addresses.node_pods(site, index)}]]
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}, indent=2)


def kubelet(layout: Layout, site: int, cgroup: str, memory_mib: int) -> str:
    """Return the kubelet's configuration.

    Args:
        layout: of the node.
        site: number of its site.
        cgroup: below which its pods' control groups stand.
        memory_mib: of a node that has less than the machine; 0: all. Its limit is then the control group's: the kubelet
            would compare the machine's use with the node's size and evict everything.
    """
    eviction = {"nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"}
    if not memory_mib:
        eviction["memory.available"] = "100Mi"
    document = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{layout.keys}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{layout.keys}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{layout.keys}/kubelet-server.key",
        "containerRuntimeEndpoint": f"unix://{layout.socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failSwapOn": False,
        "failCgroupV1": False,
        "oomScoreAdj": 0,
        "maxOpenFiles": 20000,
        "resolvConf": "/etc/resolv.conf",
        "clusterDomain": "cluster.local",
        "clusterDNS": [addresses.node(site, 1)],
        "evictionHard": eviction,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "3s",
        "nodeStatusReportFrequency": "10s",
        "syncFrequency": "10s",
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "featureGates": {"ImageVolume": True},
    }
    return json.dumps(document, indent=2)


def proxy(layout: Layout, site: int, name: str) -> str:
    """Return kube-proxy's configuration: iptables, and none of the machine's own limits touched."""
    document = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{layout.keys}/proxy.kubeconfig"},
        "mode": "iptables",
        "hostnameOverride": name,
        "clusterCIDR": addresses.pods(site),
        "oomScoreAdj": 0,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    return json.dumps(document, indent=2)
