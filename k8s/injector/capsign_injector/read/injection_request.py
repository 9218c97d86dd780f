"""Everything that is read of a pod that asks for an agent: the pod, its annotations, and what an
earlier injection left. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from capsign_injector.names import AGENT, INJECTED, RUN, SOCKET_VOLUME
from capsign_injector.read.annotations import Choices
from capsign_injector.read.annotations import read as read_annotations
from capsign_injector.read.pod import Mount, Pod
from capsign_injector.read.pod import read as read_pod
from capsign_injector.settings import Settings


@dataclass(frozen=True, slots=True)
class InjectionRequest:
    """The input of `judge` and `build`."""

    pod: Pod
    choices: Choices
    injected: bool
    """Whether the pod says that it was injected already."""
    holders: tuple[str, ...]
    """Containers with a socket of an earlier injection, in the order of their sockets."""


def read(raw: Mapping[str, Any], namespace: str, settings: Settings) -> InjectionRequest:
    """What a labelled pod asks for. Raises Refusal for what is no pod, or for an annotation that is
    wrong or not allowed.
    """
    view = read_pod(raw)
    choices = read_annotations(view.annotations, namespace, settings)
    injected = INJECTED in view.annotations
    return InjectionRequest(view, choices, injected, _holders(view) if injected else ())


def is_socket_mount(mount: Mount) -> bool:
    """Whether a mount is what an injection put into a chosen container."""
    return (
        mount.name.startswith(SOCKET_VOLUME)
        and mount.mount_path == RUN
        and mount.read_only is True
        and not (mount.sub_path or mount.sub_path_expr)
        and mount.mount_propagation in {None, "None"}
    )


def _holders(view: Pod) -> tuple[str, ...]:
    numbers: dict[str, int] = {}
    for one in (*view.init, *view.spec.containers):
        if one.name == AGENT:
            continue
        for mount in filter(is_socket_mount, one.volume_mounts or ()):
            number = mount.name.removeprefix(SOCKET_VOLUME)
            if number.isdecimal() and number.isascii() and len(number) <= 4:
                numbers[one.name] = int(number)
    return tuple(sorted(numbers, key=lambda name: (numbers[name], name)))
