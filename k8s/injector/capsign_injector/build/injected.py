"""The pod with its agent. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from capsign_injector.build import agent_config, placing, resources, sidecar, volumes
from capsign_injector.names import FORMAT, INJECTED
from capsign_injector.read.injection_request import InjectionRequest
from capsign_injector.settings import Settings


def build(
    pod: Mapping[str, Any],
    asked: InjectionRequest,
    containers: Sequence[str],
    settings: Settings,
    bundle_pem: str,
) -> dict[str, Any]:
    """The pod with its agent; `pod` itself is not changed. Raises SettingsError for a bundle that
    no agent could use.
    """
    agent = _agent(asked, containers, settings, bundle_pem)
    spec = placing.copied(pod["spec"])
    if asked.injected:
        placing.clear(spec, containers)
    placing.put_agent(spec, agent)
    for volume in volumes.volumes(settings, len(containers)):
        placing.put(spec, "volumes", volume)
    for secret in settings.image_pull_secrets:
        placing.put(spec, "imagePullSecrets", {"name": secret})
    placing.put_sockets(spec, containers)
    metadata = {**pod["metadata"], "annotations": {**asked.pod.annotations, INJECTED: FORMAT}}
    return {**pod, "metadata": metadata, "spec": spec}


def _agent(
    asked: InjectionRequest, containers: Sequence[str], settings: Settings, bundle_pem: str
) -> dict[str, Any]:
    choices = asked.choices
    sockets = [
        agent_config.Socket(index, name, choices.profile_of(name).grants)
        for index, name in enumerate(containers)
    ]
    config = agent_config.text(settings, sockets, choices, bundle_pem)
    return sidecar.container(
        settings, choices, config, resources.needed(asked, len(sockets)), len(sockets)
    )
