"""Finds containers that are as powerful as root on the node, and so could reach the agent. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec

from capsign_injector.judge import host_paths
from capsign_injector.names import AGENT
from capsign_injector.read.pod import Container, HostPath, Mount, Pod, SecurityContext
from capsign_injector.refusal import shown

ROOT_CAPABILITIES = frozenset(
    {"ALL", "BPF", "DAC_READ_SEARCH", "PERFMON", "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO"}
)
"""Capabilities that give access to memory or files of other containers, unless the pod has a user
namespace (capabilities(7)).
"""


def ways(pod: Pod, further_paths: Collection[str]) -> Iterator[tuple[str, str]]:
    """Field and sentence for every such setting of the pod. `further_paths` are node paths that the
    settings declare harmless.
    """
    node_paths = {one.name: one.host_path for one in pod.volumes if one.host_path is not None}
    for volume in pod.volumes:
        if volume.git_repo is not None:
            sentence = (
                f"The volume `{shown(volume.name)}` is a gitRepo: the node's root runs what "
                f"is in it."
            )
            yield "spec.volumes", f"{sentence} Clone in an init container instead."
    for one in pod.everyone:
        yield from _of_container(one, node_paths, further_paths, pod.spec.host_users)


def _of_container(
    container: Container,
    node_paths: Mapping[str, HostPath],
    further_paths: Collection[str],
    host_users: bool | None,
) -> Iterator[tuple[str, str]]:
    field = f"container {container.name}"
    roots = _root_in(container.security_context) if host_users is not False else ()
    for where, what in roots:
        sentence = f"The container `{container.name}` {what} and could take the agent over."
        fix = "Remove that, or set `hostUsers: false`."
        yield f"{field}.securityContext.{where}", f"{sentence} {fix}"
    if container.name == AGENT:  # one of theirs is made anew or refused
        return
    for mount in container.volume_mounts or ():
        path = node_paths.get(mount.name)
        if path is not None and not host_paths.harmless(path, mount, further_paths):
            yield f"{field}.volumeMounts", _reaches(container, path, mount)


def _reaches(container: Container, path: HostPath, mount: Mount) -> str:
    what = f"The container `{container.name}` mounts the node's {shown(path.path)}"
    read_only = msgspec.structs.replace(mount, read_only=True, mount_propagation=None)
    if mount.read_only is not True and host_paths.harmless(path, read_only, ()):
        return (
            f"{what} to write in it, and the node may follow a link put there. Mount it with "
            f"`readOnly: true`."
        )
    fix = (
        "Remove that mount, or let the platform team name the path in `harmless_host_paths` "
        "if it is harmless."
    )
    return f"{what}, which may be access to the node and so to the agent. {fix}"


def _root_in(context: SecurityContext | None) -> Iterator[tuple[str, str]]:
    if context is not None and context.privileged:
        yield "privileged", "is privileged"
    added = (context and context.capabilities and context.capabilities.add) or ()
    for name in sorted(ROOT_CAPABILITIES & {one.upper().removeprefix("CAP_") for one in added}):
        yield "capabilities.add", f"adds the capability {name}"
