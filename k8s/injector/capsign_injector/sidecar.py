"""What is put into a pod: the agent as a native sidecar, its volumes, and a socket for each container. Pure.

Everything that the API server would fill in by itself is stated, so that a pod which comes back shows no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from capsign_injector import quantity
from capsign_injector.agent_config import RUN, STATE, TOKEN_FILE
from capsign_injector.settings import Settings

AGENT = "capsign-agent"
OURS = "capsign-"
"""Before the names of our volumes; nobody else's may begin so."""
STATE_VOLUME, TOKEN_VOLUME, EMPTY_VOLUME, SOCKET_VOLUME = "capsign-state", "capsign-token", "capsign-none", "capsign-socket-"
SOCKET_ENV, SOCKET_PATH = "CAPSIGN_SOCKET", f"{RUN}/s/agent.sock"
MAX_SOCKETS = 16
"""Most containers of a pod that get a socket."""

USER = 65532
"""uid and gid in our images."""

TOKEN_SECONDS = 600
"""Life of a projected token; the kubelet renews it, and this is the least that Kubernetes allows."""

DEFAULT_TOKEN_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
"""Where the API server's admission would mount the token for its own API, unless something is mounted there already."""

SMALL = "1Mi"
"""Size limit of a volume that holds a socket or nothing."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Of the agent's container, as canonical quantities; an empty `cpu_limit` is none."""

    cpu_request: str
    cpu_limit: str
    memory_request: str
    memory_limit: str
    ephemeral_storage: str


def container(settings: Settings, config: str, resources: Resources, sockets: int) -> dict[str, Any]:
    """The agent. A native sidecar (KEP-753): started before everything after it, stopped after everything else, and no reason for
    a Job to go on. Without a preStop hook: on SIGTERM it hands in its records."""
    return {
        "name": AGENT,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "env": [{"name": "CAPSIGN_AGENT_CONFIG", "value": config}],
        "startupProbe": {
            "exec": {"command": ["/usr/bin/python3", "-I", "-S", "/opt/capsign/probe.py", f"{STATE}/health.sock.probe"]},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "successThreshold": 1,
            "failureThreshold": 120,
        },
        "resources": {
            "requests": {
                "cpu": resources.cpu_request,
                "ephemeral-storage": resources.ephemeral_storage,
                "memory": resources.memory_request,
            },
            "limits": {
                **({"cpu": resources.cpu_limit} if resources.cpu_limit else {}),
                "ephemeral-storage": resources.ephemeral_storage,
                "memory": resources.memory_limit,
            },
        },
        # Nothing is left to what the pod says for all its containers.
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsGroup": USER,
            "runAsNonRoot": True,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": STATE_VOLUME, "mountPath": STATE},
            {"name": TOKEN_VOLUME, "mountPath": TOKEN_FILE.rpartition("/")[0], "readOnly": True},
            {"name": EMPTY_VOLUME, "mountPath": DEFAULT_TOKEN_DIR, "readOnly": True},
            *({"name": f"{SOCKET_VOLUME}{index}", "mountPath": f"{RUN}/{index}"} for index in range(sockets)),
        ],
    }


def volumes(settings: Settings, sockets: int) -> list[dict[str, Any]]:
    """Memory volumes with a size limit: the cluster autoscaler takes them for no local storage (since 1.27), so the pod needs no
    `safe-to-evict` annotation, and nothing reaches a disk."""
    token = {"audience": settings.audience, "expirationSeconds": TOKEN_SECONDS, "path": TOKEN_FILE.rpartition("/")[2]}
    return [
        _memory(STATE_VOLUME, quantity.memory(settings.state_bytes)),
        {"name": TOKEN_VOLUME, "projected": {"defaultMode": 0o644, "sources": [{"serviceAccountToken": token}]}},
        _memory(EMPTY_VOLUME, SMALL),
        *(_memory(f"{SOCKET_VOLUME}{index}", SMALL) for index in range(sockets)),
    ]


def _memory(name: str, size: str) -> dict[str, Any]:
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}}


def socket_mount(index: int) -> dict[str, Any]:
    """In a chosen container: it can connect to its socket and can neither replace nor remove it."""
    return {"name": f"{SOCKET_VOLUME}{index}", "mountPath": RUN, "readOnly": True}


def socket_env() -> dict[str, Any]:
    """Tells the client library where the socket is."""
    return {"name": SOCKET_ENV, "value": SOCKET_PATH}


def keep_admitted(ours: dict[str, Any], existing: dict[str, Any]) -> dict[str, Any]:
    """Our container with what the API server's own admission added to it since: a LimitRange's limit of CPU where we state none,
    and AlwaysPullImages. Both are checked again after us. Whatever else was changed is as we make it again."""
    kept = dict(ours)
    if existing.get("imagePullPolicy") == "Always":
        kept["imagePullPolicy"] = "Always"
    limit = ((existing.get("resources") or {}).get("limits") or {}).get("cpu")
    if limit is not None and "cpu" not in ours["resources"]["limits"]:
        kept["resources"] = {**ours["resources"], "limits": {"cpu": limit, **ours["resources"]["limits"]}}
    return kept


def socket_indices(mounts: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Container name to index, of (container, volume) pairs whose volume is a socket's."""
    found = ((name, volume.removeprefix(SOCKET_VOLUME)) for name, volume in mounts if volume.startswith(SOCKET_VOLUME))
    return {name: int(index) for name, index in found if index.isdecimal() and index.isascii() and len(index) <= 4}
