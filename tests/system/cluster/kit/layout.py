"""Where everything of one cluster is: its addresses, its run directory, and the configuration
written there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from system.cluster.kit.pki import MASTERS, ClusterAuthority, key_pair

# The node has a network namespace of its own: these addresses exist nowhere else and two clusters
# do not meet.
NODE = "node"
NODE_ADDRESS = "10.99.0.1"
SERVICES = "10.96.0.0/16"
FIRST_SERVICE = "10.96.0.1"
PODS = "10.244.0.0/24"
DOMAIN = "cluster.local"
PAUSE = "localhost/pause:1"
API = f"https://{NODE_ADDRESS}:6443"
API_NAMES = (
    "localhost",
    "127.0.0.1",
    NODE_ADDRESS,
    FIRST_SERVICE,
    "kubernetes.default",
    "kubernetes.default.svc",
    f"kubernetes.default.svc.{DOMAIN}",
)

# What the kubelet would otherwise write into the machine's own settings.
KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "Metadata",
            "verbs": ["create", "update", "patch"],
            "resources": [{"group": "", "resources": ["pods", "pods/*", "serviceaccounts/token"]}],
        },
        {"level": "None"},
    ],
}


@dataclass(frozen=True, slots=True)
class Layout:
    run: Path

    @property
    def pki(self) -> Path:
        return self.run / "pki"

    @property
    def configuration(self) -> Path:
        return self.run / "configuration"

    @property
    def logs(self) -> Path:
        return self.run / "log"

    @property
    def audit(self) -> Path:
        """What the API server records of requests about pods: an audit.k8s.io/v1 Event a line."""
        return self.logs / "audit.jsonl"

    @property
    def volumes(self) -> Path:
        """Where the claims of StorageClass `node` live."""
        return self.run / "volumes"

    @property
    def stage(self) -> Path:
        """How far the node's start is: one line, replaced at each step; `failed: ...` when it
        ended.
        """
        return self.run / "stage"

    @property
    def init_pid(self) -> Path:
        return self.run / "init.pid"

    @property
    def cgroup(self) -> str:
        return f"/{self.run.name}"

    def kubeconfig(self, who: str) -> Path:
        return self.configuration / f"{who}.kubeconfig"

    def make(self) -> ClusterAuthority:
        for directory in (
            "pki",
            "configuration",
            "configuration/cni",
            "log",
            "volumes",
            "kubelet",
            "containerd",
            "pods",
            "containers",
        ):
            (self.run / directory).mkdir()
        for setting, value in KERNEL_SETTINGS.items():
            (self.configuration / setting.replace("/", ".")).write_text(value + "\n")
        (self.configuration / "resolv.conf").touch()
        (self.configuration / "containerd.toml").write_text(containerd(self))
        (self.configuration / "cni" / "10-node.conflist").write_text(json.dumps(network(self)))
        (self.configuration / "kubelet.json").write_text(json.dumps(kubelet(self)))
        (self.configuration / "audit.json").write_text(json.dumps(AUDIT_POLICY))
        return self._make_identities()

    def _make_identities(self) -> ClusterAuthority:
        authority = ClusterAuthority()
        (self.pki / "ca.crt").write_bytes(authority.certificate)
        authority.issue("kube-apiserver", names=API_NAMES).write(self.pki / "apiserver")
        authority.issue(NODE, names=(NODE, NODE_ADDRESS)).write(self.pki / "kubelet-server")
        authority.issue("kube-apiserver-kubelet-client", groups=(MASTERS,)).write(
            self.pki / "apiserver-kubelet"
        )
        clients = {
            "controllers": authority.issue("system:kube-controller-manager"),
            "scheduler": authority.issue("system:kube-scheduler"),
            "proxy": authority.issue("system:kube-proxy"),
            "kubelet": authority.issue(f"system:node:{NODE}", groups=("system:nodes",)),
            "helpers": authority.issue("helpers", groups=(MASTERS,)).write(self.pki / "helpers"),
        }
        for name, credential in clients.items():
            self.kubeconfig(name).write_text(authority.kubeconfig(API, credential))
        key, public = key_pair()
        (self.pki / "service-account.key").write_bytes(key)
        (self.pki / "service-account.pub").write_bytes(public)
        return authority


def containerd(layout: Layout) -> str:
    """For containerd 1.6 (Debian 12). Without CAP_SYS_RESOURCE nobody may lower oom_score_adj."""
    return f"""\
version = 2
oom_score = 0
disabled_plugins = [
  "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs",
]

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{layout.configuration}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  options = {{ SystemdCgroup = false, BinaryName = "/usr/sbin/runc" }}
"""


def network(layout: Layout) -> dict:
    """Each pod is routed by the node (no bridge): what goes from pod to pod through a Service
    passes the node's NAT both ways.
    """
    addresses = {
        "type": "host-local",
        "dataDir": str(layout.run / "addresses"),
        "ranges": [[{"subnet": PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {
        "cniVersion": "1.0.0",
        "name": "node",
        "plugins": [{"type": "ptp", "ipMasq": False, "ipam": addresses}],
    }


def kubelet(layout: Layout) -> dict:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "tlsCertFile": str(layout.pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet-server.key"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        # refused by default since 1.35; our machines have the hybrid hierarchy
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": layout.cgroup,
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        "seccompDefault": True,
        "resolvConf": str(layout.configuration / "resolv.conf"),
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": DOMAIN,
        "maxPods": 100,
        "evictionHard": {
            "imagefs.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
        "serializeImagePulls": True,
        "crashLoopBackOff": {"maxContainerRestartPeriod": "5s"},
    }
