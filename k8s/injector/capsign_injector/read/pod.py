"""The parts of a pod (k8s.io/api/core/v1) that we read, typed and bounded. Pure.

Everything else passes through unread. A mutating webhook runs before the API server's own
validation, so every type is checked here; a malformed field is refused with its path.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from capsign_injector.refusal import Reason, Refusal, shown

MAX_CONTAINERS = 512
"""Most containers of all kinds in a pod, more than a node could run."""

Text = Annotated[str, Meta(max_length=4096)]
Amounts = dict[str, str | int | float]

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<path>.*)`)?$", re.DOTALL)


class _Read(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of the pod. Other fields of it are ignored."""


class Mount(_Read, frozen=True, kw_only=True):
    name: Text
    mount_path: Text
    read_only: bool | None = None
    sub_path: Text | None = None
    sub_path_expr: Text | None = None
    mount_propagation: Text | None = None


class Device(_Read, frozen=True, kw_only=True):
    name: Text


class EnvVar(_Read, frozen=True, kw_only=True):
    name: Text
    value: str | None = None


class Capabilities(_Read, frozen=True, kw_only=True):
    add: list[Text] | None = None


class WindowsOptions(_Read, frozen=True, kw_only=True):
    host_process: bool | None = None


class SecurityContext(_Read, frozen=True, kw_only=True):
    privileged: bool | None = None
    capabilities: Capabilities | None = None
    windows_options: WindowsOptions | None = None


class Resources(_Read, frozen=True, kw_only=True):
    requests: Amounts | None = None
    limits: Amounts | None = None


class Container(_Read, frozen=True, kw_only=True):
    name: Text
    env: list[EnvVar] | None = None
    volume_mounts: list[Mount] | None = None
    volume_devices: list[Device] | None = None
    security_context: SecurityContext | None = None
    resources: Resources | None = None
    image_pull_policy: Text | None = None


class HostPath(_Read, frozen=True, kw_only=True):
    path: Text
    type: Text | None = None


class Volume(_Read, frozen=True, kw_only=True):
    name: Text
    empty_dir: dict[str, Any] | None = None
    host_path: HostPath | None = None
    git_repo: dict[str, Any] | None = None


class Os(_Read, frozen=True, kw_only=True):
    name: Text


class PodSecurityContext(_Read, frozen=True, kw_only=True):
    windows_options: WindowsOptions | None = None


class Spec(_Read, frozen=True, kw_only=True):
    containers: Annotated[list[Container], Meta(min_length=1)]
    init_containers: list[Container] | None = None
    ephemeral_containers: list[Container] | None = None
    volumes: list[Volume] | None = None
    image_pull_secrets: list[dict[str, Any]] | None = None
    host_pid: bool | None = msgspec.field(name="hostPID", default=None)
    host_network: bool | None = None
    host_users: bool | None = None
    share_process_namespace: bool | None = None
    dns_policy: Text | None = None
    os: Os | None = None
    node_selector: dict[str, str] | None = None
    service_account_name: Text | None = None
    termination_grace_period_seconds: int | None = None
    resources: Resources | None = None
    security_context: PodSecurityContext | None = None


class Metadata(_Read, frozen=True, kw_only=True):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Pod(_Read, frozen=True, kw_only=True):
    """A pod, or the pod template of a workload."""

    spec: Spec
    metadata: Metadata = Metadata()

    @property
    def annotations(self) -> dict[str, str]:
        return self.metadata.annotations or {}

    @property
    def init(self) -> list[Container]:
        return self.spec.init_containers or []

    @property
    def everyone(self) -> list[Container]:
        """Containers of every kind."""
        return [*self.init, *self.spec.containers, *(self.spec.ephemeral_containers or [])]

    @property
    def volumes(self) -> list[Volume]:
        return self.spec.volumes or []


def read(pod: Any) -> Pod:
    """The typed pod. Raises Refusal if it is malformed, has more than MAX_CONTAINERS, or names that
    Kubernetes does not allow.
    """
    try:
        view = msgspec.convert(pod, Pod)
    except msgspec.ValidationError as error:
        found = _AT.match(str(error))
        what, path = (found["what"], found["path"] or "") if found else (str(error), "")
        raise Refusal(
            Reason.MALFORMED,
            path,
            f"The pod's field `{path or '(top level)'}` is wrong: {what}. Correct it.",
        ) from None
    if len(view.everyone) > MAX_CONTAINERS:
        sentence = (
            f"The pod has {len(view.everyone)} containers; at most {MAX_CONTAINERS} are "
            f"looked at. Split the pod."
        )
        raise Refusal(Reason.TOO_LARGE, "spec.containers", sentence)
    names = set()
    for one in view.everyone:
        if not _DNS_LABEL.fullmatch(one.name):
            sentence = (
                f'"{shown(one.name)}" is no name for a container. Use at most 63 lower-case '
                f"letters, digits and dashes."
            )
            raise Refusal(Reason.MALFORMED, "spec.containers", sentence)
        if one.name in names:
            sentence = f"Two containers are called `{one.name}`. Give each a name of its own."
            raise Refusal(Reason.MALFORMED, "spec.containers", sentence)
        names.add(one.name)
    return view
