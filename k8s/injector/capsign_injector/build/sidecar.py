"""What is put into a pod: the agent as a native sidecar, its volumes, and a socket for each
container. Pure.

Everything that the API server would fill in by itself is stated, so that a pod which comes back
shows no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from capsign_injector import quantity
from capsign_injector.build.agent_config import RUN, STATE, TOKEN_FILE
from capsign_injector.settings import CONFIG_ENV, EnvVar, Settings

AGENT = "capsign-agent"
OURS = "capsign-"
"""Before the names of our volumes; nobody else's may begin so."""
STATE_VOLUME, TOKEN_VOLUME, EMPTY_VOLUME, SOCKET_VOLUME = (
    "capsign-state",
    "capsign-token",
    "capsign-none",
    "capsign-socket-",
)
SOCKET_ENV, SOCKET_PATH = "CAPSIGN_SOCKET", f"{RUN}/s/agent.sock"
MAX_SOCKETS = 16
"""Most containers of a pod that get a socket."""

TOKEN_SECONDS = 600
"""Life of a projected token; the kubelet renews it, and this is the least that Kubernetes
allows.
"""

DEFAULT_TOKEN_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
"""Where the API server's admission would mount the token for its own API, unless something is
mounted there already.
"""

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


def container(
    settings: Settings,
    config: str,
    resources: Resources,
    sockets: int,
    otlp_endpoint: str,
    *,
    gate_readiness: bool,
) -> dict[str, Any]:
    """The agent. A native sidecar (KEP-753): started before everything after it, stopped after
    everything else, and no reason for a Job to go on. Without a preStop hook: on SIGTERM it hands
    in its records.
    """
    return {
        "name": AGENT,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "env": _env(settings, config, otlp_endpoint),
        "startupProbe": _probe(period=1, failures=120),
        # One that is frozen is made anew; one that only finds no adapter would gain nothing by it.
        # A frozen one hears no signal, so the pod's grace period, which may be an hour, is not
        # waited for. Its journal stays.
        "livenessProbe": {
            **_probe("--live", period=10, failures=3),
            "terminationGracePeriodSeconds": 5,
        },
        # A sidecar's readiness is its pod's: by default an outage of the adapter takes no pod out
        # of its Services (0029).
        **({"readinessProbe": _probe(period=5, failures=2)} if gate_readiness else {}),
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
            **({"runAsGroup": settings.run_as_group} if settings.run_as_group is not None else {}),
            "runAsNonRoot": True,
            **({"runAsUser": settings.run_as_user} if settings.run_as_user is not None else {}),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": STATE_VOLUME, "mountPath": STATE},
            {"name": TOKEN_VOLUME, "mountPath": TOKEN_FILE.rpartition("/")[0], "readOnly": True},
            {"name": EMPTY_VOLUME, "mountPath": DEFAULT_TOKEN_DIR, "readOnly": True},
            *(
                {"name": f"{SOCKET_VOLUME}{index}", "mountPath": f"{RUN}/{index}"}
                for index in range(sockets)
            ),
        ],
    }


def _probe(*options: str, period: int, failures: int) -> dict[str, Any]:
    command = [
        "/usr/bin/python3",
        "-I",
        "-S",
        "/opt/capsign/probe.py",
        *options,
        f"{STATE}/health.sock.probe",
    ]
    return {
        "exec": {"command": command},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "successThreshold": 1,
        "failureThreshold": failures,
    }


def _env(settings: Settings, config: str, otlp_endpoint: str) -> list[dict[str, Any]]:
    """The configuration, what telemetry takes, and what the platform team adds: of two with one
    name, theirs.
    """
    theirs = {one.name for one in settings.extra_env}
    ours = (
        [one for one in _telemetry(settings, otlp_endpoint) if one.name not in theirs]
        if otlp_endpoint
        else []
    )
    return [
        {"name": CONFIG_ENV, "value": config},
        *map(_variable, ours),
        *map(_variable, settings.extra_env),
    ]


def _telemetry(settings: Settings, otlp_endpoint: str) -> list[EnvVar]:
    """OpenTelemetry's own variables, and which pod it is: `$(NAME)` is filled in by the kubelet,
    from those before it.
    """
    fields = {
        "name": "metadata.name",
        "uid": "metadata.uid",
        "namespace": "metadata.namespace",
        "node": "spec.nodeName",
    }
    attributes = {
        "k8s.namespace.name": "$(K8S_POD_NAMESPACE)",
        "k8s.pod.name": "$(K8S_POD_NAME)",
        "k8s.pod.uid": "$(K8S_POD_UID)",
        "k8s.node.name": "$(K8S_POD_NODE)",
        "k8s.container.name": AGENT,
    }
    given = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": str(settings.telemetry.metric_interval_s * 1000),
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": settings.telemetry.traces_sample_ratio,
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(f"{key}={value}" for key, value in attributes.items()),
    }
    return [
        *(EnvVar(name=f"K8S_POD_{key.upper()}", field_path=path) for key, path in fields.items()),
        *(EnvVar(name=name, value=value) for name, value in given.items()),
    ]


def _variable(one: EnvVar) -> dict[str, Any]:
    if one.field_path:
        return {
            "name": one.name,
            "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": one.field_path}},
        }
    return {"name": one.name, "value": one.value}


def volumes(settings: Settings, sockets: int) -> list[dict[str, Any]]:
    """Memory volumes with a size limit: the cluster autoscaler takes them for no local storage
    (since 1.27), so the pod needs no `safe-to-evict` annotation, and nothing reaches a disk.
    """
    return [
        _memory(STATE_VOLUME, quantity.memory(settings.state_bytes)),
        {"name": TOKEN_VOLUME, **_identity(settings)},
        _memory(EMPTY_VOLUME, SMALL),
        *(_memory(f"{SOCKET_VOLUME}{index}", SMALL) for index in range(sockets)),
    ]


def _identity(settings: Settings) -> dict[str, Any]:
    """What the agent has its identity from: a token for the adapter, or what somebody else's driver
    puts there.
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


def socket_mount(index: int) -> dict[str, Any]:
    """In a chosen container: it can connect to its socket and can neither replace nor remove it."""
    return {"name": f"{SOCKET_VOLUME}{index}", "mountPath": RUN, "readOnly": True}


def socket_env() -> dict[str, Any]:
    """Tells the client library where the socket is."""
    return {"name": SOCKET_ENV, "value": SOCKET_PATH}


def keep_admitted(ours: dict[str, Any], existing: dict[str, Any]) -> dict[str, Any]:
    """Our container with what the API server's own admission added to it since: a LimitRange's
    limit of CPU where we state none, AlwaysPullImages, and OpenShift's user where we name none.
    They are checked again after us. Whatever else was changed is as we make it again.
    """
    kept = dict(ours)
    theirs = existing.get("securityContext") or {}
    given = {
        name: theirs[name]
        for name in ("runAsUser", "runAsGroup")
        if name in theirs and name not in ours["securityContext"]
    }
    if given:
        kept["securityContext"] = {**ours["securityContext"], **given}
    if existing.get("imagePullPolicy") == "Always":
        kept["imagePullPolicy"] = "Always"
    limit = ((existing.get("resources") or {}).get("limits") or {}).get("cpu")
    if limit is not None and "cpu" not in ours["resources"]["limits"]:
        kept["resources"] = {
            **ours["resources"],
            "limits": {"cpu": limit, **ours["resources"]["limits"]},
        }
    return kept


def socket_indices(mounts: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Container name to index, of (container, volume) pairs whose volume is a socket's."""
    found = (
        (name, volume.removeprefix(SOCKET_VOLUME))
        for name, volume in mounts
        if volume.startswith(SOCKET_VOLUME)
    )
    return {
        name: int(index)
        for name, index in found
        if index.isdecimal() and index.isascii() and len(index) <= 4
    }
