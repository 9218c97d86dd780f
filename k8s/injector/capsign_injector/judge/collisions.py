"""Refuses pods that use the names and paths of the agent or its sockets. Pure."""

from __future__ import annotations

from capsign_injector.judge import host_paths
from capsign_injector.names import AGENT, OURS, RUN, SOCKET_ENV, SOCKET_PATH
from capsign_injector.read.injection_request import is_socket_mount
from capsign_injector.read.pod import Container, Mount, Pod
from capsign_injector.refusal import Reason, Refusal, shown


def refuse_collisions(pod: Pod, *, injected: bool) -> None:
    """Our names are allowed only as an earlier injection left them, and our volumes only where it
    mounted them. Raises Refusal.
    """
    for one in pod.everyone:
        mine = injected and one.name == AGENT and any(one is each for each in pod.init)
        if one.name.startswith(AGENT) and not mine:
            sentence = f"The name `{one.name}` is the injector's. Give that container another name."
            raise Refusal(Reason.COLLISION, f"container {one.name}", sentence)
    for volume in pod.volumes:
        if volume.name.startswith(OURS) and not injected:
            sentence = (
                f"Volumes whose names begin with `{OURS}` are the injector's. Rename "
                f"`{shown(volume.name)}`."
            )
            raise Refusal(Reason.COLLISION, "spec.volumes", sentence)
    _refuse_mounts_of_ours(pod, injected=injected)


def _refuse_mounts_of_ours(pod: Pod, *, injected: bool) -> None:
    """A socket's volume may be mounted in one container only, our other volumes in the agent only.
    Raises Refusal.
    """
    owner: dict[str, str] = {}
    for one in pod.everyone:
        if one.name == AGENT:
            continue
        for mount in one.volume_mounts or ():
            if mount.name.startswith(OURS) and not (
                injected
                and is_socket_mount(mount)
                and owner.setdefault(mount.name, one.name) == one.name
            ):
                raise _mounts_ours(one, mount.name)
        for device in one.volume_devices or ():
            if device.name.startswith(OURS):
                raise _mounts_ours(one, device.name)


def refuse_container(pod: Pod, container: Container) -> None:
    """Refuse a container with a socket for mounts and variables in its way. Raises Refusal."""
    _refuse_mounts_over_socket(pod, container)
    for variable in container.env or ():
        if variable.name == SOCKET_ENV and variable.value != SOCKET_PATH:
            sentence = (
                f"The container `{container.name}` sets {SOCKET_ENV} itself. Remove it: the "
                f"injector sets it."
            )
            raise Refusal(Reason.COLLISION, f"container {container.name}.env", sentence)


def _refuse_mounts_over_socket(pod: Pod, container: Container) -> None:
    """Refuse mounts at the socket's path, below it or above it. Raises Refusal."""
    mounts = [mount for mount in container.volume_mounts or () if not is_socket_mount(mount)]
    places = [(host_paths.plain(mount.mount_path), mount) for mount in mounts]
    above = any(_above(path, RUN) for path, _ in places)
    own = _own_volumes(pod, container) if above else frozenset()
    for path, mount in places:
        fix = "Mount it elsewhere."
        if _above(path, RUN):
            if _harmless_above(mount, own):
                continue
            fix = "Mount it elsewhere, or an emptyDir of its own."
        elif path != RUN and not _above(RUN, path):
            continue
        sentence = (
            f"The container `{container.name}` mounts `{shown(mount.mount_path)}`, where "
            f"its socket goes ({RUN})."
        )
        raise Refusal(
            Reason.COLLISION, f"container {container.name}.volumeMounts", f"{sentence} {fix}"
        )


def _own_volumes(pod: Pod, container: Container) -> frozenset[str]:
    """Names of the emptyDirs that no other container mounts."""
    shared = {
        mount.name
        for one in pod.everyone
        if one.name != container.name
        for mount in one.volume_mounts or ()
    }
    return frozenset(
        one.name for one in pod.volumes if one.empty_dir is not None and one.name not in shared
    )


def _harmless_above(mount: Mount, own: frozenset[str]) -> bool:
    """Whether the mount is a writable emptyDir at /run of this container alone, in which the
    runtime makes our mount point. If another container shared it, that one could replace the socket
    by a link and a socket of its own.
    """
    return mount.name in own and not mount.read_only and mount.mount_propagation in {None, "None"}


def _above(upper: str, lower: str) -> bool:
    return lower != upper and lower.startswith(upper.rstrip("/") + "/")


def _mounts_ours(container: Container, volume: str) -> Refusal:
    sentence = (
        f"The container `{container.name}` mounts `{shown(volume)}`, which is the agent's. "
        f"Remove that mount."
    )
    return Refusal(Reason.ISOLATION, f"container {container.name}.volumeMounts", sentence)
