"""Refuses pods that cannot be injected safely. Each rule is a function that raises Refusal with a
reason and a fix. Pure.

The agent's socket is protected by who mounts it, its memory by who can see its process, its token
by who can read its volumes. A pod that breaks one of these could sign for others, so it is refused.
`hostIPC` breaks none (the agent uses no shared memory) and is allowed.
"""

from __future__ import annotations

from capsign_injector.judge import node_access
from capsign_injector.read.pod import Pod, Spec
from capsign_injector.refusal import Reason, Refusal
from capsign_injector.settings import Settings

MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a static pod's copy in the API. The kubelet runs the pod from a file, so that
changes here have no effect.
"""


def refuse_pod(pod: Pod, settings: Settings) -> list[str]:
    """Refuse the pod as a whole; returns warnings. Raises Refusal."""
    _refuse_platform(pod)
    _refuse_shared_processes(pod.spec)
    if pod.spec.host_network:
        _refuse_host_network(pod, settings)
    ways = list(node_access.ways(pod, settings.harmless_host_paths))
    if ways and not settings.allow_node_access:
        field, sentence = ways[0]
        raise Refusal(
            Reason.ISOLATION,
            field,
            f"{sentence} (The setting `allow_node_access` makes this a warning.)",
        )
    return [sentence for _, sentence in ways]


def _refuse_platform(pod: Pod) -> None:
    spec = pod.spec
    selected = (spec.node_selector or {}).items()
    systems = {value for key, value in selected if key.endswith("kubernetes.io/os")}
    contexts = [spec.security_context, *(one.security_context for one in pod.everyone)]
    hosted = any(
        one and one.windows_options and one.windows_options.host_process for one in contexts
    )
    if (spec.os and spec.os.name == "windows") or "windows" in systems or hosted:
        raise Refusal(
            Reason.PLATFORM,
            "spec.os",
            "The pod is for Windows; the agent runs on Linux only. Remove the label.",
        )
    if MIRROR in pod.annotations:
        sentence = (
            "The pod is static: it has no service account, so its agent would have no "
            "identity. Use a DaemonSet."
        )
        raise Refusal(Reason.PLATFORM, f"metadata.annotations[{MIRROR}]", sentence)


def _refuse_shared_processes(spec: Spec) -> None:
    if spec.host_pid:
        sentence = (
            "With `hostPID` its containers see the agent's process and could read its "
            "memory. Remove `hostPID`."
        )
        raise Refusal(Reason.ISOLATION, "spec.hostPID", sentence)
    if spec.share_process_namespace:
        sentence = (
            "With `shareProcessNamespace` its containers see the agent's process and its "
            "files. Remove it."
        )
        raise Refusal(Reason.ISOLATION, "spec.shareProcessNamespace", sentence)


def _refuse_host_network(pod: Pod, settings: Settings) -> None:
    """The adapter accepts a token only from its pod's address. On the host network that is the
    node's address, which every process on the node has. Raises Refusal.
    """
    if not settings.allow_host_network:
        sentence = (
            "With `hostNetwork` the pod has its node's address, so a stolen token could be "
            "used by others on the node."
        )
        raise Refusal(
            Reason.ISOLATION,
            "spec.hostNetwork",
            f"{sentence} Remove it, or set `allow_host_network` in the injector.",
        )
    if settings.cluster_name and pod.spec.dns_policy != "ClusterFirstWithHostNet":
        sentence = (
            "With `hostNetwork` the agent finds the adapter only with `dnsPolicy: "
            "ClusterFirstWithHostNet`. Set it."
        )
        raise Refusal(Reason.PLATFORM, "spec.dnsPolicy", sentence)
