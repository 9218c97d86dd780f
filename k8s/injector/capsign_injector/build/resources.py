"""The resources of the agent's container. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from capsign_injector import quantity
from capsign_injector.names import AGENT
from capsign_injector.read.annotations import Choices
from capsign_injector.read.injection_request import InjectionRequest
from capsign_injector.read.pod import Pod

SOCKETS_COVERED = 2
"""The number of sockets for which a profile's `memory_limit` is enough."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Requests and limits of the agent's container, as canonical quantities. An empty `cpu_limit`
    means none.
    """

    cpu_request: str
    cpu_limit: str
    memory_request: str
    memory_limit: str
    ephemeral_storage: str

    def requirements(self) -> dict[str, Any]:
        """As the container's `resources`."""
        return {
            "requests": {
                "cpu": self.cpu_request,
                "ephemeral-storage": self.ephemeral_storage,
                "memory": self.memory_request,
            },
            "limits": {
                **({"cpu": self.cpu_limit} if self.cpu_limit else {}),
                "ephemeral-storage": self.ephemeral_storage,
                "memory": self.memory_limit,
            },
        }


def needed(asked: InjectionRequest, sockets: int) -> Resources:
    """The agent's resources. For a pod of quality of service Guaranteed its requests equal its
    limits, so that the pod stays Guaranteed.
    """
    choices, profile = asked.choices, asked.choices.profile
    memory_limit = quantity.memory(_memory_limit(choices, sockets))
    ephemeral = quantity.memory(quantity.parse(profile.ephemeral_storage))
    cpu_limit = quantity.cpu(quantity.parse(profile.cpu_limit)) if profile.cpu_limit else ""
    if _guaranteed(asked.pod):
        cpu = quantity.cpu(choices.cpu_request) if choices.cpu_asked else cpu_limit
        cpu = cpu or quantity.cpu(quantity.parse(profile.cpu_request_max))
        return Resources(cpu, cpu, memory_limit, memory_limit, ephemeral)
    memory_request = quantity.memory(quantity.parse(profile.memory_request))
    return Resources(
        quantity.cpu(choices.cpu_request), cpu_limit, memory_request, memory_limit, ephemeral
    )


def _memory_limit(choices: Choices, sockets: int) -> Fraction:
    """The memory limit in bytes. It grows with the number of containers, because each can make the
    agent hold something.
    """
    profile = choices.profile
    if choices.memory_asked or not profile.memory_limit_per_socket:
        return choices.memory_limit
    more = quantity.parse(profile.memory_limit_per_socket) * max(0, sockets - SOCKETS_COVERED)
    return min(choices.memory_limit + more, quantity.parse(profile.memory_limit_max))


def _guaranteed(pod: Pod) -> bool:
    """Kubernetes' rule for a pod without resources of its own: every container limits CPU and
    memory, and requests as much.
    """
    if pod.spec.resources is not None:
        return False
    for one in (*pod.init, *pod.spec.containers):
        if one.name == AGENT:
            continue
        limits = (one.resources and one.resources.limits) or {}
        requests = (one.resources and one.resources.requests) or {}
        for name in ("cpu", "memory"):
            if name not in limits or not _same(requests.get(name, limits[name]), limits[name]):
                return False
    return True


def _same(one: object, other: object) -> bool:
    try:
        return quantity.parse(str(one)) == quantity.parse(str(other))
    except quantity.NotAQuantityError:
        return False
