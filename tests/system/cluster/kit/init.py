"""The first process of the node's namespaces: mounts, network, then every part of Kubernetes; it
ends when one of them does.

python -m system.cluster.kit.init RUN BINARIES LISTENER        (started by the keeper, never by
hand)
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from system.cluster.kit.layout import (
    API,
    KERNEL_SETTINGS,
    NODE,
    NODE_ADDRESS,
    PODS,
    SERVICES,
    Layout,
)

CONTAINERD = Path("/run/containerd/containerd.sock")
START_PATIENCE_S = 240.0


class Node:
    def __init__(self, layout: Layout, binary: Path, listener: int) -> None:
        self._layout = layout
        self._binary = str(binary)
        self._listener = listener
        self._names: dict[int, str] = {}

    def stage(self, words: str) -> None:
        scratch = self._layout.stage.with_suffix(".new")
        scratch.write_text(words)
        scratch.rename(self._layout.stage)

    def start(self, name: str, *command: str, pass_fds: tuple[int, ...] = ()) -> None:
        with (self._layout.logs / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
                start_new_session=True,
            )
        self._names[process.pid] = name
        process.returncode = 0  # reaped below, with the orphans that every first process inherits

    def reap(self) -> None:
        """A part that ended takes the node with it: a test must not go on against half a
        cluster.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if name := self._names.pop(pid, None):
                self.stage(f"failed: {name} ended with {os.waitstatus_to_exitcode(status)}")
                raise SystemExit(f"{name} ended")

    def wait_until(self, what: str, there: Callable[[], bool]) -> None:
        end = time.monotonic() + START_PATIENCE_S
        while not there():
            self.reap()
            if time.monotonic() > end:
                self.stage(f"failed: {what} within {START_PATIENCE_S:.0f} s")
                raise SystemExit(what)
            time.sleep(0.05)

    # --- the parts ---

    def start_containerd(self) -> None:
        self.start(
            "containerd", "containerd", "-c", f"{self._layout.configuration}/containerd.toml"
        )

    def start_control_plane(self) -> None:
        pki = self._layout.pki
        self.start(
            "control-plane",
            self._binary,
            "control-plane",
            "--etcd-dir",
            str(self._layout.run / "etcd"),
            "--bind-address=0.0.0.0",
            "--secure-port=6443",
            f"--advertise-address={NODE_ADDRESS}",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            f"--cert-dir={pki}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--service-cluster-ip-range={SERVICES}",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
            f"--kubelet-client-key={pki}/apiserver-kubelet.key",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={pki}/ca.crt",
            "--requestheader-allowed-names=nobody",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/service-account.pub",
            f"--service-account-signing-key-file={pki}/service-account.key",
            f"--audit-policy-file={self._layout.configuration}/audit.json",
            f"--audit-log-path={self._layout.audit}",
            "--profiling=false",
            "--v=1",
        )

    def start_kubelet(self) -> None:
        self.start(
            "kubelet",
            self._binary,
            "kubelet",
            f"--config={self._layout.configuration}/kubelet.json",
            f"--kubeconfig={self._layout.kubeconfig('kubelet')}",
            f"--hostname-override={NODE}",
            f"--node-ip={NODE_ADDRESS}",
            "--v=2",
        )

    def start_controllers(self) -> None:
        pki = self._layout.pki
        self.start(
            "controllers",
            self._binary,
            "controllers",
            *self._speaking_for("controllers"),
            "--use-service-account-credentials=true",
            f"--root-ca-file={pki}/ca.crt",
            f"--service-account-private-key-file={pki}/service-account.key",
        )
        self.start("scheduler", self._binary, "scheduler", *self._speaking_for("scheduler"))

    def _speaking_for(self, name: str) -> list[str]:
        kubeconfig = self._layout.kubeconfig(name)
        flags = [
            f"--{flag}={kubeconfig}"
            for flag in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
        ]
        return [*flags, "--bind-address=127.0.0.1", "--leader-elect=false", "--v=1"]

    def start_proxy(self) -> None:
        """Zeros: the machine's own conntrack limits are not ours to change."""
        self.start(
            "proxy",
            self._binary,
            "proxy",
            f"--kubeconfig={self._layout.kubeconfig('proxy')}",
            "--proxy-mode=iptables",
            f"--hostname-override={NODE}",
            f"--cluster-cidr={PODS}",
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
            "--iptables-min-sync-period=100ms",
            "--v=1",
        )

    def start_helpers(self) -> None:
        command = [
            sys.executable,
            "-m",
            "system.cluster.kit.helpers",
            str(self._layout.run),
            str(self._listener),
        ]
        self.start("helpers", *command, pass_fds=(self._listener,))
        os.close(self._listener)

    def api_is_ready(self) -> bool:
        trust = ssl.create_default_context(cafile=str(self._layout.pki / "ca.crt"))
        trust.load_cert_chain(self._layout.pki / "helpers.crt", self._layout.pki / "helpers.key")
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )
        try:
            with opener.open(f"{API}/readyz", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def mount(layout: Layout) -> None:
    """The node sees the machine's files, but what it writes below /var and /run goes to the run
    directory or to memory.
    """
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "proc", "proc", "/proc")
    run("mount", "--make-rshared", "/")
    for setting in KERNEL_SETTINGS:
        run(
            "mount",
            "--bind",
            str(layout.configuration / setting.replace("/", ".")),
            f"/proc/sys/{setting}",
        )
    for name, place in {
        "kubelet": "/var/lib/kubelet",
        "containerd": "/var/lib/containerd",
        "pods": "/var/log/pods",
        "containers": "/var/log/containers",
    }.items():
        Path(place).mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", str(layout.run / name), place)
    for place in ("/run/containerd", "/run/netns"):
        Path(place).mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", place)
    for place in ("/var/lib/kubelet", "/run/netns"):
        run("mount", "--make-shared", place)


def connect() -> None:
    """There is no default route here: without a route to the Services, connect() fails before the
    node's NAT is asked.
    """
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{NODE_ADDRESS}/32", "dev", "lo")
    run("ip", "route", "add", SERVICES, "dev", "lo", "src", NODE_ADDRESS)
    for setting in ("ip_forward", "conf/all/route_localnet"):
        Path("/proc/sys/net/ipv4", setting).write_text("1\n")


def hold(node: Node) -> None:
    """Until the keeper goes (its pipe ends) or a part of the node does."""
    lease = select.poll()
    lease.register(sys.stdin, select.POLLHUP)
    while not lease.poll(200):
        node.reap()


def main(layout: Layout, binaries: Path, listener: int) -> None:
    socket.sethostname(NODE)
    mount(layout)
    connect()
    for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[variable]
    node = Node(layout, binaries / "node", listener)
    node.start_containerd()
    node.start_control_plane()
    node.wait_until("containerd did not open its socket", CONTAINERD.is_socket)
    node.stage("containerd")
    node.wait_until("the API server did not get ready", node.api_is_ready)
    node.start_kubelet()
    node.start_controllers()
    node.start_proxy()
    node.start_helpers()
    node.stage("started")
    hold(node)


if __name__ == "__main__":
    main(Layout(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]))
