"""The volumes of an injected pod, and who mounts them. Pure."""

from __future__ import annotations

from typing import Any

from capsign_injector import quantity
from capsign_injector.names import (
    EMPTY_VOLUME,
    RUN,
    SOCKET_VOLUME,
    STATE,
    STATE_VOLUME,
    TOKEN_FILE,
    TOKEN_VOLUME,
)
from capsign_injector.settings import Settings

TOKEN_SECONDS = 600
"""Lifetime of the projected token, the least that Kubernetes allows; the kubelet renews it."""

DEFAULT_TOKEN_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
"""Where the API server's admission would mount a token for its own API, unless something is mounted
there.
"""

SMALL = "1Mi"
"""Size limit of a volume that holds a socket or nothing."""


def volumes(settings: Settings, sockets: int) -> list[dict[str, Any]]:
    """The pod's volumes. They are in memory, with a size limit: the cluster autoscaler does not
    count them as local storage (since 1.27), so that no `safe-to-evict` annotation is needed, and
    nothing is written to a disk.
    """
    return [
        _memory(STATE_VOLUME, quantity.memory(settings.state_bytes)),
        {"name": TOKEN_VOLUME, **_identity(settings)},
        _memory(EMPTY_VOLUME, SMALL),
        *(_memory(f"{SOCKET_VOLUME}{index}", SMALL) for index in range(sockets)),
    ]


def _identity(settings: Settings) -> dict[str, Any]:
    """The source of the agent's identity: a token for the adapter, or what another CSI driver
    provides.
    """
    csi = settings.identity.csi
    if csi is not None:
        attributes = (
            {"volumeAttributes": dict(sorted(csi.attributes.items()))} if csi.attributes else {}
        )
        return {"csi": {"driver": csi.driver, "readOnly": True, **attributes}}
    token = {
        "audience": settings.audience,
        "expirationSeconds": TOKEN_SECONDS,
        "path": TOKEN_FILE.rpartition("/")[2],
    }
    return {"projected": {"defaultMode": 0o644, "sources": [{"serviceAccountToken": token}]}}


def _memory(name: str, size: str) -> dict[str, Any]:
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}}


def agent_mounts(sockets: int) -> list[dict[str, Any]]:
    """The agent's mounts. No other container mounts any of these volumes, except for one socket
    each.
    """
    return [
        {"name": STATE_VOLUME, "mountPath": STATE},
        {"name": TOKEN_VOLUME, "mountPath": TOKEN_FILE.rpartition("/")[0], "readOnly": True},
        {"name": EMPTY_VOLUME, "mountPath": DEFAULT_TOKEN_DIR, "readOnly": True},
        *({"name": f"{SOCKET_VOLUME}{at}", "mountPath": f"{RUN}/{at}"} for at in range(sockets)),
    ]


def socket_mount(index: int) -> dict[str, Any]:
    """The mount of a chosen container. It can connect to its socket, but not replace or
    remove it.
    """
    return {"name": f"{SOCKET_VOLUME}{index}", "mountPath": RUN, "readOnly": True}
