"""Which mounts of a node's own files are harmless: a list of those that are. All else is access to
the node. Pure.

What is dangerous cannot be listed: sockets of services (/run/systemd, /run/dbus), files that the
node executes (/usr/bin, /etc/cron.d, /opt/cni), its kernel (/sys), its homes, and whatever a
distribution adds. So a path passes only by name, with all that is below it, and nearly always only
to be read: who writes into a directory of the node can put a link there that a program of the node
follows. What is meant counts, not the spelling. No `subPath` makes a path harmless: the node
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
"""Mounted read-only: names, time zones, public certificates, logs, facts about hardware. No other
file system is mounted below any of them, which a read-only mount would leave writable.

Of `/var/log` that is nearly true: hardened nodes keep `/var/log/audit` on a partition of its own.
Who may write into `/var/log` can plant a link to any file of the node, and the kubelet, which
serves that directory as root, follows it for whoever may `get nodes/log`. That is why it passes to
be read only. Where it has a partition below it, root in the container could still plant one there,
for somebody who has that right, and with it the node's logs, anyway; `recursiveReadOnly: Enabled`
in the mount closes it. Collectors of logs mount `/var/log` on every cluster: to refuse it to all
for that would only teach people to add it to `harmlessHostPaths`, to be written too.
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
"""However mounted: devices that give nothing of the node away, disks for pods, settings of the
kernel's network and memory.
"""

NEVER = frozenset({"Socket", "BlockDevice"})
"""Types of a hostPath behind which there is a service of the node, or a disk."""


def harmless(path: HostPath, mount: Mount, further: Collection[str]) -> bool:
    """Whether this mount of a node's path gives no access to the node. `further` are paths that the
    platform team adds, to be written too.
    """
    here = plain(path.path)
    if any(_covers(plain(one), here) for one in further):
        return not _leaves(mount)
    if path.type in NEVER or _leaves(mount) or mount.mount_propagation == "Bidirectional":
        return False
    read_only = mount.read_only is True
    return any(_covers(one, here) for one in (*TO_WRITE, *(TO_READ if read_only else ())))


def plain(path: str) -> str:
    """The path as the node or a container sees it; on nearly every one /var/run is a link to
    /run.
    """
    there = posixpath.normpath("/" + path.lstrip("/"))
    return (
        there.removeprefix("/var")
        if there == "/var/run" or there.startswith("/var/run/")
        else there
    )


def _leaves(mount: Mount) -> bool:
    """Whether the sub-path may lead out of its volume. The API server refuses those that say so; an
    expression says it later.
    """
    return ".." in (mount.sub_path or "").split("/") or mount.sub_path_expr is not None


def _covers(upper: str, lower: str) -> bool:
    return lower == upper or lower.startswith(upper.rstrip("/") + "/")
