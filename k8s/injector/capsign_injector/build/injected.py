"""The pod with its agent. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from capsign_injector.build import agent_config, placing, resources, sidecar, volumes
from capsign_injector.names import FORMAT, INJECTED
from capsign_injector.read.wish import Wish
from capsign_injector.settings import Settings


def build(
    pod: Mapping[str, Any],
    wish: Wish,
    containers: Sequence[str],
    settings: Settings,
    bundle_pem: str,
) -> dict[str, Any]:
    """`pod` is not changed. Raises SettingsError for a bundle that no agent could use."""
    agent = _agent(wish, containers, settings, bundle_pem)
    spec = placing.copied(pod["spec"])
    if wish.injected:
        placing.clear(spec, containers)
    placing.put_agent(spec, agent)
    for volume in volumes.volumes(settings, len(containers)):
        placing.put(spec, "volumes", volume)
    for secret in settings.image_pull_secrets:
        placing.put(spec, "imagePullSecrets", {"name": secret})
    placing.put_sockets(spec, containers)
    metadata = {**pod["metadata"], "annotations": {**wish.pod.annotations, INJECTED: FORMAT}}
    return {**pod, "metadata": metadata, "spec": spec}


def _agent(
    wish: Wish, containers: Sequence[str], settings: Settings, bundle_pem: str
) -> dict[str, Any]:
    choices = wish.choices
    sockets = [
        agent_config.Socket(index, name, choices.profile_of(name).grants)
        for index, name in enumerate(containers)
    ]
    config = agent_config.text(settings, sockets, choices.log_level, bundle_pem)
    return sidecar.container(
        settings, choices, config, resources.needed(wish, len(sockets)), len(sockets)
    )
