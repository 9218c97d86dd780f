"""The decision about a pod: whether it may have an agent, which containers get a socket, and
warnings. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from capsign_injector.judge import advice, collisions, isolation, sockets
from capsign_injector.read.annotations import MAX_WARNINGS
from capsign_injector.read.injection_request import InjectionRequest
from capsign_injector.settings import Settings


@dataclass(frozen=True, slots=True)
class Verdict:
    """The pod may have an agent."""

    containers: tuple[str, ...]
    """Containers that get a socket, in the order of their sockets; at least one."""
    warnings: tuple[str, ...]


def judge(asked: InjectionRequest, settings: Settings) -> Verdict:
    """The verdict. Raises Refusal for a pod that must not run with an agent."""
    pod = asked.pod
    node_access = isolation.refuse_pod(pod, settings)
    collisions.refuse_collisions(pod, injected=asked.injected)
    containers = sockets.choose(asked)
    sockets.refuse_profiles(asked.choices.of_container, containers)
    for one in pod.everyone:
        if one.name in containers:
            collisions.refuse_container(pod, one)
    warnings = [*asked.choices.warnings, *node_access, *advice.warnings(pod, settings)]
    return Verdict(containers, tuple(warnings[:MAX_WARNINGS]))
