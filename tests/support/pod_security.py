"""The Pod Security Standards' level `restricted` as a checker: every control, in the page's order,
over every container list.

Source: kubernetes.io/docs/concepts/security/pod-security-standards (v1.35 and later), the tables
Baseline and Restricted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

CAPABILITIES = {
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
}
SELINUX_TYPES = {
    None,
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


def violations(pod: dict[str, Any]) -> list[str]:
    """Every rule of `restricted` that the pod breaks; empty if it satisfies it."""
    return [*_baseline(pod), *_restricted(pod)]


def _containers(pod: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for one in pod["spec"].get(kind) or ():
            yield f"{kind}/{one['name']}", one, one.get("securityContext") or {}


def _contexts(pod: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "pod", pod["spec"].get("securityContext") or {}
    for name, _, context in _containers(pod):
        yield name, context


def _baseline(pod: dict[str, Any]) -> Iterator[str]:
    spec = pod["spec"]
    for name, context in _contexts(pod):
        if (context.get("windowsOptions") or {}).get("hostProcess"):
            yield f"{name}: hostProcess"
        if (context.get("appArmorProfile") or {}).get("type") not in {
            None,
            "RuntimeDefault",
            "Localhost",
        }:
            yield f"{name}: appArmorProfile"
        selinux = context.get("seLinuxOptions") or {}
        if selinux.get("type") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
            yield f"{name}: seLinuxOptions"
        if (context.get("seccompProfile") or {}).get("type") == "Unconfined":
            yield f"{name}: seccompProfile Unconfined"
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name))
    for name, one, context in _containers(pod):
        if context.get("privileged"):
            yield f"{name}: privileged"
        if not set((context.get("capabilities") or {}).get("add") or ()) <= CAPABILITIES:
            yield f"{name}: capabilities.add"
        if any(port.get("hostPort") for port in one.get("ports") or ()):
            yield f"{name}: hostPort"
        if context.get("procMount") not in {None, "Default"}:
            yield f"{name}: procMount"
        hooks = (one.get("lifecycle") or {}).values()
        probes = [
            one.get(probe) or {} for probe in ("livenessProbe", "readinessProbe", "startupProbe")
        ]
        if any(
            (handler.get(kind) or {}).get("host")
            for handler in (*probes, *hooks)
            for kind in ("httpGet", "tcpSocket")
        ):
            yield f"{name}: a probe or hook with a host"
    if any("hostPath" in volume for volume in spec.get("volumes") or ()):
        yield "hostPath"
    for key, value in ((pod.get("metadata") or {}).get("annotations") or {}).items():
        if (
            key.startswith(APPARMOR)
            and value != "runtime/default"
            and not value.startswith("localhost/")
        ):
            yield key
    for sysctl in (spec.get("securityContext") or {}).get("sysctls") or ():
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']}"


def _restricted(pod: dict[str, Any]) -> Iterator[str]:
    spec = pod["spec"]
    whole = spec.get("securityContext") or {}
    for volume in spec.get("volumes") or ():
        if not (set(volume) - {"name"}) <= VOLUMES or len(volume) != 2:
            yield f"volume {volume['name']}"
    if whole.get("runAsUser") == 0:
        yield "pod: runAsUser 0"
    for name, _, context in _containers(pod):
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation"
        if context.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True:
            yield f"{name}: runAsNonRoot"
        if context.get("runAsUser") == 0:
            yield f"{name}: runAsUser 0"
        seccomp = context.get("seccompProfile") or whole.get("seccompProfile") or {}
        if seccomp.get("type") not in {"RuntimeDefault", "Localhost"}:
            yield f"{name}: seccompProfile"
        capabilities = context.get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or ()) or not set(
            capabilities.get("add") or ()
        ) <= {"NET_BIND_SERVICE"}:
            yield f"{name}: capabilities"
