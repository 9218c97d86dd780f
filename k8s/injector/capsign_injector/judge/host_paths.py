"""A list of the node's files that are harmless to mount; every other hostPath is access to the
node. Pure.

What is dangerous cannot be listed: sockets of services (/run/systemd, /run/dbus), files that the
node executes (/usr/bin, /etc/cron.d, /opt/cni), its kernel (/sys), home directories, and whatever a
distribution adds. So a path is allowed only by name, with everything below it, and nearly always
read-only: whoever writes into a directory of the node can put a link there that a program of the
node follows.

The normalised path counts, not its spelling. A `subPath` makes no path harmless, because the node
decides what is there.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection

from capsign_injector.read.pod import HostPath, Mount

TO_READ = (
    "/etc/ca-certificates",
    "/etc/group",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/machine-id",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/resolv.conf",
    "/etc/ssl/certs",
    "/etc/timezone",
    "/run/udev/data",
    "/sys/class/net",
    "/sys/devices/system",
    "/usr/lib/os-release",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/share/zoneinfo",
    "/var/lib/ca-certificates",
    "/var/log",
)
"""Allowed read-only: names, time zones, public certificates, logs, facts about hardware. No other
file system is mounted below any of them, which a read-only mount would leave writable.

`/var/log` is nearly so: hardened nodes keep `/var/log/audit` on a partition of its own. Whoever can
write into `/var/log` can put a link there to any file of the node, and the kubelet, which serves
that directory as root, follows it for whoever may `get nodes/log`. That is why it is allowed
read-only. With a partition below it, root in the container could still put a link there, for
somebody with that right; `recursiveReadOnly: Enabled` in the mount prevents it. Log collectors
mount `/var/log` in every cluster: to refuse it would only make people add it to
`harmlessHostPaths`, which allows writing.
"""

TO_WRITE = (
    "/dev/fuse",
    "/dev/hugepages",
    "/dev/net/tun",
    "/dev/null",
    "/mnt/disks",
    "/proc/sys/net",
    "/proc/sys/vm",
)
"""Allowed with any mount: devices that reveal nothing of the node, disks for pods, kernel settings
of network and memory.
"""

NEVER = frozenset({"Socket", "BlockDevice"})
"""Types of a hostPath that is a service of the node, or a disk."""


def harmless(path: HostPath, mount: Mount, further: Collection[str]) -> bool:
    """Whether this mount of a node's path gives no access to the node. `further` are paths that the
    platform team allows, also to be written.
    """
    here = plain(path.path)
    if any(_covers(plain(one), here) for one in further):
        return not _leaves(mount)
    if path.type in NEVER or _leaves(mount) or mount.mount_propagation == "Bidirectional":
        return False
    read_only = mount.read_only is True
    return any(_covers(one, here) for one in (*TO_WRITE, *(TO_READ if read_only else ())))


def plain(path: str) -> str:
    """The normalised path. On nearly every system /var/run is a link to /run."""
    there = posixpath.normpath("/" + path.lstrip("/"))
    return (
        there.removeprefix("/var")
        if there == "/var/run" or there.startswith("/var/run/")
        else there
    )


def _leaves(mount: Mount) -> bool:
    """Whether the sub-path may lead out of its volume. The API server refuses those that do so
    literally; an expression is known only later.
    """
    return ".." in (mount.sub_path or "").split("/") or mount.sub_path_expr is not None


def _covers(upper: str, lower: str) -> bool:
    return lower == upper or lower.startswith(upper.rstrip("/") + "/")
