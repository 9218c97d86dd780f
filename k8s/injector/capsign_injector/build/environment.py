"""The agent's environment variables: its configuration, what its engine needs, telemetry, and what
the platform team adds. Pure.
"""

from __future__ import annotations

from typing import Any

from capsign_injector.names import AGENT, STATE
from capsign_injector.read.annotations import Choices
from capsign_injector.settings import CONFIG_ENV, EnvVar, Settings


def variables(settings: Settings, choices: Choices, config: str) -> list[dict[str, Any]]:
    """The variables. Of two with one name, the platform team's is used."""
    theirs = {one.name for one in settings.extra_env}
    ours = _engine(choices.profile.engine)
    if choices.otlp_endpoint:
        ours += _telemetry(settings, choices.otlp_endpoint)
    return [
        {"name": CONFIG_ENV, "value": config},
        *(_variable(one) for one in ours if one.name not in theirs),
        *map(_variable, settings.extra_env),
    ]


def _engine(name: str) -> list[EnvVar]:
    """pygrpc-native puts a socket among the temporary files, and the root cannot be written."""
    return [EnvVar(name="TMPDIR", value=STATE)] if name == "native" else []


def _telemetry(settings: Settings, otlp_endpoint: str) -> list[EnvVar]:
    """OpenTelemetry's standard variables. The kubelet replaces `$(NAME)` by the variables before
    them, which identify the pod.
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
