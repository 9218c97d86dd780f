"""Pods that cannot be injected safely: each rule is a function that raises Refusal with a reason
and a fix. Pure.

The agent's socket is guarded by who mounts it, its memory by who can see its process, its token by
who can read its volumes. A pod that breaks one of the three would sign for others, so it is
refused. `hostIPC` breaks none of them (the agent uses no shared memory) and passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from capsign_injector.build.agent_config import RUN
from capsign_injector.build.sidecar import (
    AGENT,
    MAX_SOCKETS,
    OURS,
    SOCKET_ENV,
    SOCKET_PATH,
    SOCKET_VOLUME,
)
from capsign_injector.judge import host_paths
from capsign_injector.read.pod import Container, HostPath, Mount, Pod, SecurityContext
from capsign_injector.refusal import Reason, Refusal, shown
from capsign_injector.settings import Settings

MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a static pod's image in the API: the kubelet runs the file on the node, whatever is
changed here.
"""

ROOT_CAPABILITIES = frozenset(
    {"ALL", "BPF", "DAC_READ_SEARCH", "PERFMON", "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO"}
)
"""Each of them reaches the memory or the files of other containers, unless the pod has a user
namespace (capabilities(7)).
"""


def refuse_pod(pod: Pod, settings: Settings) -> list[str]:
    """What the pod as a whole may not be. The answer is warnings. Raises Refusal."""
    spec = pod.spec
    systems = {
        key: value
        for key, value in (spec.node_selector or {}).items()
        if key.endswith("kubernetes.io/os")
    }
    contexts = [spec.security_context, *(one.security_context for one in pod.everyone)]
    hosted = any(
        one and one.windows_options and one.windows_options.host_process for one in contexts
    )
    if (spec.os and spec.os.name == "windows") or "windows" in systems.values() or hosted:
        raise Refusal(
            Reason.PLATFORM,
            "spec.os",
            "The pod is for Windows; the agent runs on Linux only. Remove the label.",
        )
    if MIRROR in pod.annotations:
        sentence = (
            "The pod is static: it has no service account, so its agent would have no "
            "identity. Use a DaemonSet."
        )
        raise Refusal(Reason.PLATFORM, f"metadata.annotations[{MIRROR}]", sentence)
    if spec.host_pid:
        sentence = (
            "With `hostPID` its containers see the agent's process and could read its "
            "memory. Remove `hostPID`."
        )
        raise Refusal(Reason.ISOLATION, "spec.hostPID", sentence)
    if spec.share_process_namespace:
        sentence = (
            "With `shareProcessNamespace` its containers see the agent's process and its "
            "files. Remove it."
        )
        raise Refusal(Reason.ISOLATION, "spec.shareProcessNamespace", sentence)
    if spec.host_network:
        _refuse_host_network(pod, settings)
    faults = list(_node_access(pod, settings))
    if faults and not settings.allow_node_access:
        field, sentence = faults[0]
        raise Refusal(
            Reason.ISOLATION,
            field,
            f"{sentence} (The setting `allow_node_access` makes this a warning.)",
        )
    return [sentence for _, sentence in faults]


def _refuse_host_network(pod: Pod, settings: Settings) -> None:
    """The adapter takes a token only from its pod's address. On the host network that is the node's
    address, which every process on the node has.
    """
    if not settings.allow_host_network:
        sentence = (
            "With `hostNetwork` the pod has its node's address, so a stolen token could be "
            "used by others on the node."
        )
        raise Refusal(
            Reason.ISOLATION,
            "spec.hostNetwork",
            f"{sentence} Remove it, or set `allow_host_network` in the injector.",
        )
    if settings.cluster_name and pod.spec.dns_policy != "ClusterFirstWithHostNet":
        sentence = (
            "With `hostNetwork` the agent finds the adapter only with `dnsPolicy: "
            "ClusterFirstWithHostNet`. Set it."
        )
        raise Refusal(Reason.PLATFORM, "spec.dnsPolicy", sentence)


def _node_access(pod: Pod, settings: Settings) -> Iterator[tuple[str, str]]:
    """Field and sentence of every way in which a container is as good as root on its node."""
    node_paths = {one.name: one.host_path for one in pod.volumes if one.host_path is not None}
    for volume in pod.volumes:
        if volume.git_repo is not None:
            sentence = (
                f"The volume `{shown(volume.name)}` is a gitRepo: the node's root runs what "
                f"is in it."
            )
            yield "spec.volumes", f"{sentence} Clone in an init container instead."
    for one in pod.everyone:
        field = f"container {one.name}"
        for where, what in (
            _root_in(one.security_context) if pod.spec.host_users is not False else ()
        ):
            sentence = f"The container `{one.name}` {what} and could take the agent over."
            yield (
                f"{field}.securityContext.{where}",
                f"{sentence} Remove that, or set `hostUsers: false`.",
            )
        # an agent of theirs is made anew or refused
        for mount in (one.volume_mounts or ()) if one.name != AGENT else ():
            path = node_paths.get(mount.name)
            if path is not None and not host_paths.harmless(
                path, mount, settings.harmless_host_paths
            ):
                yield f"{field}.volumeMounts", _reaches(one, path, mount)


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


def choose(pod: Pod, asked: Sequence[str] | None, before: Sequence[str]) -> tuple[str, ...]:
    """Names of the containers that get a socket: those asked for; else those that have one since an
    earlier injection, so that another injector's containers do not get one; else all ordinary ones.
    Raises Refusal.
    """
    ordinary = [one.name for one in pod.spec.containers]
    known = [one.name for one in (*pod.init, *pod.spec.containers) if one.name != AGENT]
    chosen = tuple(asked if asked is not None else before or ordinary)
    field = "metadata.annotations[capsign.dev/containers]"
    for name in chosen:
        if name not in known:
            close = f"The pod has: {', '.join(known[:8])}."
            raise Refusal(
                Reason.ANNOTATION,
                field,
                f"The annotation `capsign.dev/containers` names `{name}`. {close}",
            )
    if len(chosen) > MAX_SOCKETS:
        sentence = (
            f"{len(chosen)} containers would get a socket; at most {MAX_SOCKETS} can. Name "
            f"them in `capsign.dev/containers`."
        )
        raise Refusal(Reason.TOO_LARGE, field, sentence)
    return chosen


def refuse_profiles(profiled: Iterable[str], chosen: Sequence[str]) -> None:
    """A profile for a container that gets no socket is a mistake. Raises Refusal."""
    for name in profiled:
        if name not in chosen:
            key = f"capsign.dev/profile.{shown(name)}"
            sentence = (
                f"The annotation `{key}` is for a container that gets no socket. Those that "
                f"do: {', '.join(chosen)}."
            )
            raise Refusal(Reason.ANNOTATION, f"metadata.annotations[{key}]", sentence)


def refuse_collisions(pod: Pod, *, injected: bool) -> None:
    """Names that are ours may be there only as an earlier injection left them, and our volumes only
    where it mounted them. Raises Refusal.
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


def is_socket_mount(mount: Mount) -> bool:
    """Whether a mount is what an injection put into a chosen container."""
    return (
        mount.name.startswith(SOCKET_VOLUME)
        and mount.mount_path == RUN
        and mount.read_only is True
        and not (mount.sub_path or mount.sub_path_expr)
        and mount.mount_propagation in {None, "None"}
    )


def _mounts_ours(container: Container, volume: str) -> Refusal:
    sentence = (
        f"The container `{container.name}` mounts `{shown(volume)}`, which is the agent's. "
        f"Remove that mount."
    )
    return Refusal(Reason.ISOLATION, f"container {container.name}.volumeMounts", sentence)


def refuse_container(pod: Pod, container: Container) -> None:
    """What a container that gets a socket may not have. Raises Refusal."""
    mounts = [mount for mount in container.volume_mounts or () if not is_socket_mount(mount)]
    places = [(host_paths.plain(mount.mount_path), mount) for mount in mounts]
    own = (
        _own_volumes(pod, container)
        if any(_above(path, RUN) for path, _ in places)
        else frozenset()
    )
    for path, mount in places:
        if (
            path == RUN
            or _above(RUN, path)
            or (_above(path, RUN) and not _harmless_above(mount, own))
        ):
            sentence = (
                f"The container `{container.name}` mounts `{shown(mount.mount_path)}`, where "
                f"its socket goes ({RUN})."
            )
            fix = (
                "Mount it elsewhere."
                if not _above(path, RUN)
                else "Mount it elsewhere, or an emptyDir of its own."
            )
            raise Refusal(
                Reason.COLLISION, f"container {container.name}.volumeMounts", f"{sentence} {fix}"
            )
    for variable in container.env or ():
        if variable.name == SOCKET_ENV and variable.value != SOCKET_PATH:
            sentence = (
                f"The container `{container.name}` sets {SOCKET_ENV} itself. Remove it: the "
                f"injector sets it."
            )
            raise Refusal(Reason.COLLISION, f"container {container.name}.env", sentence)


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
    """An emptyDir at /run that only this container mounts, writable: the runtime makes our mount
    point in it. Shared with another container, that one could put a link there and a socket of its
    own behind it.
    """
    return mount.name in own and not mount.read_only and mount.mount_propagation in {None, "None"}


def _above(upper: str, lower: str) -> bool:
    return lower != upper and lower.startswith(upper.rstrip("/") + "/")
